-- The audit tells what came of what took time, and migrations are in it by the transaction that runs them.

-- ---- runs
-- The row of a run that somebody asked for says ACCEPTED; whoever ends the run, on whichever node and however, adds the outcome with the same
-- request id, in the transaction that ends it.
CREATE INDEX audit_target ON bulkhead_internal.audit (target, id);

CREATE FUNCTION bulkhead_internal.audit_run_outcome() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  INSERT INTO bulkhead_internal.audit (node, subject, credential, credential_id, address, request_id, action, module, target, outcome, message)
  SELECT a.node, a.subject, a.credential, a.credential_id, a.address, a.request_id, a.action, a.module, a.target,
         CASE NEW.status WHEN 'SUCCEEDED' THEN 'OK' ELSE NEW.status END,
         left(concat_ws(': ', NEW.error_code, NEW.error_message), 1000)
  FROM bulkhead_internal.audit a
  WHERE a.target = NEW.id::text AND a.action = 'jobs.run' AND a.outcome = 'ACCEPTED';
  RETURN NULL;
END
$$;
-- One that a shutdown interrupted is taken up again.
CREATE TRIGGER audit_run_outcome AFTER UPDATE OF status ON bulkhead_internal.runs FOR EACH ROW
  WHEN (NEW.trigger = 'manual' AND OLD.status IN ('QUEUED', 'RUNNING') AND NEW.status NOT IN ('QUEUED', 'RUNNING')
        AND NOT (NEW.status = 'INTERRUPTED' AND NEW.error_code IS NOT DISTINCT FROM 'SHUTDOWN'))
  EXECUTE FUNCTION bulkhead_internal.audit_run_outcome();
REVOKE ALL ON FUNCTION bulkhead_internal.audit_run_outcome() FROM PUBLIC;

-- ---- migrations
-- On whose behalf a file runs, as the audit names him; NULL: of an enable, which has a row of its own, or of the supervisor itself.
ALTER TABLE bulkhead_internal.migration_runs ADD COLUMN audit jsonb;

-- A row for the file that `run` announces, where somebody has asked for it. Not for modules: schema bulkhead_internal is closed to them.
CREATE FUNCTION bulkhead_internal.audit_migration(run bulkhead_internal.migration_runs, before jsonb, after jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO bulkhead_internal.audit (node, subject, credential, credential_id, address, request_id, action, module, target, before, after)
  SELECT run.audit->>'node', run.audit->>'subject', run.audit->>'credential', run.audit->>'credentialId', run.audit->>'address',
         run.audit->>'requestId', run.audit->>'action', run.owner, run.name, audit_migration.before, audit_migration.after
  WHERE run.audit IS NOT NULL
$$;

-- As in 0006, with the audit.
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
    PERFORM bulkhead_internal.audit_migration(run, NULL, jsonb_build_object('number', run.number, 'checksum', record_migration.checksum));
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION bulkhead.record_rollback(number integer)
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
  PERFORM bulkhead_internal.audit_migration(run, jsonb_build_object('number', run.number, 'checksum', taken.checksum), NULL);
END
$$;
REVOKE ALL ON FUNCTION bulkhead_internal.audit_migration(bulkhead_internal.migration_runs, jsonb, jsonb) FROM PUBLIC;
