-- Answers to calls that came with an idempotency key, so that one that comes again is answered and not done again. The answer is
-- sealed like a secret of a configuration: it may hold the secret of a token.
CREATE TABLE bulkhead_internal.idempotent_calls (
  subject    text NOT NULL,
  key        text NOT NULL,
  method     text NOT NULL,
  request    text NOT NULL,               -- SHA-256 of the request
  node       text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  status     integer,                     -- NULL: still under way
  answer     text,
  PRIMARY KEY (subject, key)
);
CREATE INDEX idempotent_calls_started ON bulkhead_internal.idempotent_calls (started_at);
