-- What the supervisor knows of its modules. Append-only: an applied file is never edited, a change is a new file.
-- bulkhead_internal is the supervisor's alone. bulkhead is what a module's role may call; every function there takes the
-- module from session_user, never from an argument.
-- The history table bulkhead_internal.migrations exists already: the runner makes it, because this very file is recorded in it.

CREATE SCHEMA IF NOT EXISTS bulkhead_internal;
CREATE SCHEMA IF NOT EXISTS bulkhead;
-- Home of the extensions that modules ask for; modules may use it and create nothing in it.
CREATE SCHEMA IF NOT EXISTS bulkhead_extensions;
REVOKE ALL ON SCHEMA bulkhead_internal, bulkhead, bulkhead_extensions FROM PUBLIC;

-- PostgreSQL 14 and older let everybody create in public. Where the supervisor does not own it, this is a warning.
DO $$
BEGIN
  IF to_regnamespace('public') IS NOT NULL THEN
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE WARNING 'schema public is not the supervisor''s: its privileges stay as they are';
END
$$;

-- One row: this database's identity. Its first 8 hex digits are part of every module's role name, because roles are
-- cluster-wide. The fingerprint tells a node with another master key, whose passwords would be others, to stay away.
CREATE TABLE bulkhead_internal.instance (
  only_row               boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  id                     uuid NOT NULL DEFAULT gen_random_uuid(),
  master_key_fingerprint text,
  created_at             timestamptz NOT NULL DEFAULT now()
);
INSERT INTO bulkhead_internal.instance DEFAULT VALUES;

-- The uid of a module is isolation.uids' first + slot. A row outlives its module: files of a deleted module that is
-- registered again are still its own, and no other module ever gets them.
CREATE SEQUENCE bulkhead_internal.uid_slot AS integer MINVALUE 0 START 0;
CREATE TABLE bulkhead_internal.uid_slots (
  module text PRIMARY KEY,
  slot   integer NOT NULL UNIQUE DEFAULT nextval('bulkhead_internal.uid_slot')
);

CREATE TABLE bulkhead_internal.modules (
  id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name            text NOT NULL UNIQUE CHECK (name <> ''),
  version         text NOT NULL,
  manifest        json NOT NULL,                     -- json, not jsonb: kept as it was registered
  config          jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(config) = 'object'),
  config_revision bigint NOT NULL DEFAULT 1,
  path            text NOT NULL DEFAULT '',
  package         text NOT NULL DEFAULT '',
  package_sha     text NOT NULL DEFAULT '',
  status          text NOT NULL DEFAULT 'REGISTERED'
                  CHECK (status IN ('REGISTERED', 'INSTALLING', 'ENABLED', 'DISABLED', 'UPDATING', 'REMOVING')),
  generation      bigint NOT NULL DEFAULT 1,
  uid_slot        integer NOT NULL REFERENCES bulkhead_internal.uid_slots (slot),
  enabled_at      timestamptz,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE bulkhead_internal.module_exits (
  id        bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  module    text NOT NULL REFERENCES bulkhead_internal.modules (name) ON DELETE CASCADE,
  node      text NOT NULL,
  cause     text NOT NULL,
  signal    integer NOT NULL DEFAULT 0,
  exit_code integer NOT NULL DEFAULT 0,
  at        timestamptz NOT NULL,
  ran_ms    bigint NOT NULL DEFAULT 0,
  output    text NOT NULL DEFAULT ''
);
CREATE INDEX module_exits_newest ON bulkhead_internal.module_exits (module, id DESC);

-- What each node observes; a mirror for people and other nodes, never read back as truth.
CREATE TABLE bulkhead_internal.node_modules (
  node           text NOT NULL,
  module         text NOT NULL REFERENCES bulkhead_internal.modules (name) ON DELETE CASCADE,
  observed       text NOT NULL,
  reason_code    text NOT NULL DEFAULT '',
  reason_message text NOT NULL DEFAULT '',
  generation     bigint NOT NULL,
  at             timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (node, module)
);

-- Who a session is: the database role of each module. 'bulkhead' is the supervisor's own name in the history.
CREATE TABLE bulkhead_internal.module_roles (
  role   text PRIMARY KEY,
  module text NOT NULL UNIQUE CHECK (module <> 'bulkhead'),
  schema text NOT NULL UNIQUE
);

-- Writes the history row of a module's migration, inside the transaction of that migration.
--   step      files without a transaction: how many statements are done; NULL for a file in one transaction
--   finished  false while such a file is under way; checksum is then that of the statements done
CREATE FUNCTION bulkhead.record_migration(number integer, name text, checksum text, step integer, finished boolean)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  caller text;
BEGIN
  SELECT r.module INTO caller FROM bulkhead_internal.module_roles r WHERE r.role = session_user;
  IF caller IS NULL THEN
    RAISE EXCEPTION 'role % belongs to no module', session_user USING ERRCODE = 'insufficient_privilege';
  END IF;
  INSERT INTO bulkhead_internal.migrations AS m (owner, number, name, checksum, progress, applied_at)
  VALUES (caller, record_migration.number, record_migration.name, record_migration.checksum, step,
          CASE WHEN finished THEN now() END)
  ON CONFLICT ON CONSTRAINT migrations_pkey DO UPDATE
    SET name = excluded.name, checksum = excluded.checksum, progress = excluded.progress, applied_at = excluded.applied_at
    WHERE m.applied_at IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'migration % of % is applied already', record_migration.number, caller USING ERRCODE = 'unique_violation';
  END IF;
END
$$;
REVOKE ALL ON FUNCTION bulkhead.record_migration(integer, text, text, integer, boolean) FROM PUBLIC;
