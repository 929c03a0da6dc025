-- Who may call: ids, roles and last use of API tokens, custom roles, users with their sessions.

ALTER TABLE bulkhead_internal.api_tokens
  ADD COLUMN id           uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
  ADD COLUMN roles        jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(roles) = 'array'),
  ADD COLUMN last_used_at timestamptz;

-- Beside these there are admin, operator and viewer, which the supervisor brings along.
CREATE TABLE bulkhead_internal.roles (
  name        text PRIMARY KEY CHECK (name <> ''),
  description text NOT NULL DEFAULT '',
  permissions jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(permissions) = 'array'),
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE bulkhead_internal.users (
  id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name          text NOT NULL UNIQUE CHECK (name <> ''),
  password      text NOT NULL CHECK (password LIKE '$argon2id$%'),  -- a PHC string
  roles         jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(roles) = 'array'),
  enabled       boolean NOT NULL DEFAULT true,
  epoch         bigint NOT NULL DEFAULT 1,  -- access tokens of an older one have ended
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  last_login_at timestamptz
);

-- What one login began: a family of refresh tokens, each used once to get the next. One that is used twice has been stolen, or
-- its successor has, so the whole session ends.
CREATE TABLE bulkhead_internal.sessions (
  id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id    uuid NOT NULL REFERENCES bulkhead_internal.users (id) ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ended_at   timestamptz,
  ended_why  text NOT NULL DEFAULT ''
);
CREATE INDEX sessions_of_user ON bulkhead_internal.sessions (user_id);
CREATE INDEX sessions_ended ON bulkhead_internal.sessions (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE bulkhead_internal.refresh_tokens (
  secret_sha256 text PRIMARY KEY CHECK (secret_sha256 ~ '^[0-9a-f]{64}$'),
  session_id    uuid NOT NULL REFERENCES bulkhead_internal.sessions (id) ON DELETE CASCADE,
  created_at    timestamptz NOT NULL DEFAULT now(),
  expires_at    timestamptz NOT NULL,
  used_at       timestamptz
);
CREATE INDEX refresh_tokens_of_session ON bulkhead_internal.refresh_tokens (session_id);

-- Moves with every change that decides who may what, whoever makes it; nodes look at it to know whether to read again.
CREATE TABLE bulkhead_internal.auth_version (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version  bigint NOT NULL DEFAULT 1
);
INSERT INTO bulkhead_internal.auth_version DEFAULT VALUES;

CREATE FUNCTION bulkhead_internal.bump_auth_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE bulkhead_internal.auth_version SET version = version + 1;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION bulkhead_internal.bump_auth_version() FROM PUBLIC;

CREATE TRIGGER auth_version AFTER INSERT OR DELETE OR TRUNCATE
  OR UPDATE OF name, subject, secret_sha256, permissions, roles, expires_at ON bulkhead_internal.api_tokens
  FOR EACH STATEMENT EXECUTE FUNCTION bulkhead_internal.bump_auth_version();
CREATE TRIGGER auth_version AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE ON bulkhead_internal.roles
  FOR EACH STATEMENT EXECUTE FUNCTION bulkhead_internal.bump_auth_version();
CREATE TRIGGER auth_version AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF name, roles, enabled, epoch ON bulkhead_internal.users
  FOR EACH STATEMENT EXECUTE FUNCTION bulkhead_internal.bump_auth_version();
CREATE TRIGGER auth_version AFTER UPDATE OF ended_at ON bulkhead_internal.sessions
  FOR EACH STATEMENT EXECUTE FUNCTION bulkhead_internal.bump_auth_version();
