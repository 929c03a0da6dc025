-- Who changed what, when and from where. A row is written in the transaction of the change itself, and never again: also the
-- supervisor's own role is kept from changing or removing one, as far as a role that owns a table can be.
CREATE TABLE bulkhead_internal.audit (
  id            bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  at            timestamptz NOT NULL DEFAULT clock_timestamp(),
  node          text NOT NULL,
  subject       text NOT NULL,             -- "system": the supervisor by itself
  credential    text NOT NULL,             -- admin-token, api-token, jwt, user, system
  credential_id text NOT NULL DEFAULT '',  -- which of them; never a secret
  address       text NOT NULL DEFAULT '',
  request_id    text NOT NULL DEFAULT '',
  action        text NOT NULL,             -- modules.enable, flags.set, …
  module        text,
  target        text NOT NULL DEFAULT '',  -- what it was done to: a module's, flag's or token's name, a run's id
  before        jsonb,                     -- of what was changed, secrets masked; NULL: there was nothing
  after         jsonb,
  outcome       text NOT NULL DEFAULT 'OK',  -- or the code of the error that was the answer
  message       text NOT NULL DEFAULT ''
);
CREATE INDEX audit_at ON bulkhead_internal.audit (at);
CREATE INDEX audit_module ON bulkhead_internal.audit (module, id);
CREATE INDEX audit_subject ON bulkhead_internal.audit (subject, id);
CREATE INDEX audit_action ON bulkhead_internal.audit (action, id);

CREATE FUNCTION bulkhead_internal.refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bulkhead_internal.audit
  FOR EACH STATEMENT EXECUTE FUNCTION bulkhead_internal.refuse_audit_change();
