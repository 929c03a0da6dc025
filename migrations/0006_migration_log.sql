-- Who may write a module's migration history, and what happened to it over time.
-- Until now a module could record what had never run, if only of its own. From here on a supervisor announces each file before it runs
-- it, with the session that does, and only that session may record that file.

CREATE TABLE bulkhead_internal.migration_runs (
  owner           text PRIMARY KEY,
  number          integer NOT NULL,
  name            text NOT NULL,
  direction       text NOT NULL CHECK (direction IN ('up', 'down')),
  session_pid     integer NOT NULL,      -- with its start: pids are used again
  session_started timestamptz NOT NULL,
  started_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Append-only: bulkhead_internal.migrations says what is, this says what was. A purge of the module removes its rows.
CREATE TABLE bulkhead_internal.migration_log (
  id       bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  owner    text NOT NULL,
  number   integer NOT NULL,
  name     text NOT NULL,
  checksum text NOT NULL,
  action   text NOT NULL CHECK (action IN ('applied', 'rolled_back')),
  took_ms  bigint NOT NULL,
  at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX migration_log_of_owner ON bulkhead_internal.migration_log (owner, number, id);

-- The announcement that allows the calling session to record this file. Not for modules: schema bulkhead_internal is closed to them.
CREATE FUNCTION bulkhead_internal.announced_migration(number integer, direction text)
RETURNS bulkhead_internal.migration_runs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  caller text;
  run bulkhead_internal.migration_runs;
BEGIN
  SELECT r.module INTO caller FROM bulkhead_internal.module_roles r WHERE r.role = session_user;
  IF caller IS NULL THEN
    RAISE EXCEPTION 'role % belongs to no module', session_user USING ERRCODE = 'insufficient_privilege';
  END IF;
  SELECT m.* INTO run FROM bulkhead_internal.migration_runs m
    WHERE m.owner = caller AND m.number = announced_migration.number AND m.direction = announced_migration.direction
      AND m.session_pid = pg_backend_pid()
      AND m.session_started = (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid());
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the migrations of % are recorded by the supervisor, while it runs them', caller
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN run;
END
$$;

CREATE OR REPLACE FUNCTION bulkhead.record_migration(number integer, name text, checksum text, step integer, finished boolean)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  run bulkhead_internal.migration_runs := bulkhead_internal.announced_migration(number, 'up');
BEGIN
  INSERT INTO bulkhead_internal.migrations AS m (owner, number, name, checksum, progress, applied_at)
  VALUES (run.owner, run.number, run.name, record_migration.checksum, step, CASE WHEN finished THEN now() END)
  ON CONFLICT ON CONSTRAINT migrations_pkey DO UPDATE
    SET name = excluded.name, checksum = excluded.checksum, progress = excluded.progress, applied_at = excluded.applied_at
    WHERE m.applied_at IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'migration % of % is applied already', run.number, run.owner USING ERRCODE = 'unique_violation';
  END IF;
  IF finished THEN
    INSERT INTO bulkhead_internal.migration_log (owner, number, name, checksum, action, took_ms)
    VALUES (run.owner, run.number, run.name, record_migration.checksum, 'applied',
            extract(epoch FROM clock_timestamp() - run.started_at) * 1000);
  END IF;
END
$$;

-- Takes the history row of a migration away, inside the transaction of its down file.
CREATE FUNCTION bulkhead.record_rollback(number integer)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  run bulkhead_internal.migration_runs := bulkhead_internal.announced_migration(number, 'down');
  taken bulkhead_internal.migrations;
BEGIN
  DELETE FROM bulkhead_internal.migrations m WHERE m.owner = run.owner AND m.number = run.number AND m.applied_at IS NOT NULL
    RETURNING m.* INTO taken;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'migration % of % is not applied', run.number, run.owner USING ERRCODE = 'no_data_found';
  END IF;
  INSERT INTO bulkhead_internal.migration_log (owner, number, name, checksum, action, took_ms)
  VALUES (run.owner, run.number, taken.name, taken.checksum, 'rolled_back',
          extract(epoch FROM clock_timestamp() - run.started_at) * 1000);
END
$$;
REVOKE ALL ON FUNCTION bulkhead_internal.announced_migration(integer, text), bulkhead.record_rollback(integer) FROM PUBLIC;
