-- Files that runs of jobs have made, kept with their run: here, so that every supervisor on the database has them, and so that they go with the run.
-- A file belongs to an attempt (its fence). Those of the latest attempt are the run's; what an earlier one has left is deleted when a later one
-- leaves something, or with the run.
CREATE TABLE bulkhead_internal.run_artifacts (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run_id       uuid NOT NULL REFERENCES bulkhead_internal.runs (id) ON DELETE CASCADE,
  fence        bigint NOT NULL,
  module       text NOT NULL,
  name         text NOT NULL,
  content_type text NOT NULL,
  bytes        bigint NOT NULL,
  at           timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (run_id, name)
);
CREATE INDEX run_artifacts_of_module ON bulkhead_internal.run_artifacts (module, id) INCLUDE (bytes);

-- In parts of 256 KiB, so that neither end holds a whole file at once to read it. Kept as they are: most kinds of file are compressed already.
CREATE TABLE bulkhead_internal.run_artifact_parts (
  artifact bigint NOT NULL REFERENCES bulkhead_internal.run_artifacts (id) ON DELETE CASCADE,
  part     integer NOT NULL,  -- from 0
  data     bytea NOT NULL,
  PRIMARY KEY (artifact, part)
);
ALTER TABLE bulkhead_internal.run_artifact_parts ALTER COLUMN data SET STORAGE EXTERNAL;

-- Makes room for a file of the attempt `of_fence`, and its row; the parts are written behind it in the same transaction, which is rolled back when this
-- refuses: 'attempt' when that is not the one under way, 'count' and 'bytes' when it has as many or as large ones as it may. The lock on the run
-- keeps its end, and with it the next attempt, behind this transaction. Beyond `most_of_module` bytes the module's oldest files are deleted.
CREATE FUNCTION bulkhead_internal.begin_artifact(run uuid, of_fence bigint, caller text, file_name text, type text, size bigint, most integer,
                                                 most_bytes bigint, most_of_module bigint, OUT artifact bigint, OUT refused text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  others record;
BEGIN
  PERFORM FROM bulkhead_internal.runs r
    WHERE r.id = run AND r.fence = of_fence AND r.module = caller AND r.status = 'RUNNING' FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    refused := 'attempt';
    RETURN;
  END IF;
  DELETE FROM bulkhead_internal.run_artifacts a WHERE a.run_id = run AND (a.fence <> of_fence OR a.name = file_name);
  SELECT count(*) AS files, coalesce(sum(a.bytes), 0) AS bytes INTO others FROM bulkhead_internal.run_artifacts a WHERE a.run_id = run;
  IF others.files >= most THEN
    refused := 'count';
  ELSIF others.bytes + size > most_bytes THEN
    refused := 'bytes';
  END IF;
  IF refused IS NOT NULL THEN RETURN; END IF;
  INSERT INTO bulkhead_internal.run_artifacts (run_id, fence, module, name, content_type, bytes)
    VALUES (run, of_fence, caller, file_name, type, size) RETURNING id INTO artifact;
  DELETE FROM bulkhead_internal.run_artifacts WHERE id IN (
    SELECT s.id FROM (SELECT a.id, sum(a.bytes) OVER (ORDER BY a.id DESC) AS so_far FROM bulkhead_internal.run_artifacts a WHERE a.module = caller) AS s
    WHERE s.so_far > most_of_module);
END
$$;

REVOKE ALL ON FUNCTION bulkhead_internal.begin_artifact(uuid, bigint, text, text, text, bigint, integer, bigint, bigint) FROM PUBLIC;
