-- Tokens of people and programs that call the admin API and the modules. Only the hash of the secret is kept.
CREATE TABLE bulkhead_internal.api_tokens (
  name          text PRIMARY KEY CHECK (name <> ''),
  subject       text NOT NULL,
  secret_sha256 text NOT NULL UNIQUE CHECK (secret_sha256 ~ '^[0-9a-f]{64}$'),
  permissions   jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(permissions) = 'array'),
  created_at    timestamptz NOT NULL DEFAULT now(),
  expires_at    timestamptz
);
