-- Runs that modules queue themselves, with a priority, a delay and a key that waits once; cancelling; what a run has said. The statements that
-- claim and close runs are functions: one round trip each, and planned once per session.
ALTER TABLE bulkhead_internal.runs
  ADD COLUMN priority            integer NOT NULL DEFAULT 0,  -- higher first
  ADD COLUMN unique_key          text,                        -- until the run begins
  ADD COLUMN cancel_requested_at timestamptz;

-- What is written with every run is kept few: of these a run that waits is in one, a run under way in another.
DROP INDEX bulkhead_internal.runs_claimable;
DROP INDEX bulkhead_internal.runs_leases;
ALTER TABLE bulkhead_internal.runs DROP CONSTRAINT runs_slot_key;
CREATE UNIQUE INDEX runs_slot ON bulkhead_internal.runs (module, job, slot) WHERE slot IS NOT NULL;
CREATE INDEX runs_waiting ON bulkhead_internal.runs (module, job, priority DESC, not_before, id) WHERE status = 'QUEUED';
CREATE INDEX runs_running ON bulkhead_internal.runs (module, job) WHERE status = 'RUNNING';
CREATE INDEX runs_interrupted ON bulkhead_internal.runs (finished_at) WHERE status = 'INTERRUPTED' AND error_code = 'SHUTDOWN';
CREATE UNIQUE INDEX runs_unique_key ON bulkhead_internal.runs (module, job, unique_key) WHERE status = 'QUEUED' AND unique_key IS NOT NULL;

-- Lines that runs have logged.
CREATE TABLE bulkhead_internal.run_logs (
  run_id  uuid NOT NULL REFERENCES bulkhead_internal.runs (id) ON DELETE CASCADE,
  seq     bigint NOT NULL,  -- fence of the attempt * 2000 + number of the line
  at      timestamptz NOT NULL,
  level   text NOT NULL,
  message text NOT NULL,
  PRIMARY KEY (run_id, seq)
);

-- ---- the jobs that modules have, for bulkhead.enqueue(): kept by the row of the module itself, so never older or newer than it
CREATE TABLE bulkhead_internal.module_jobs (
  module       text NOT NULL REFERENCES bulkhead_internal.modules (name) ON UPDATE CASCADE ON DELETE CASCADE,
  job          text NOT NULL,
  max_attempts integer NOT NULL,
  backlog      bigint NOT NULL DEFAULT 0,  -- runs that waited when a supervisor counted them last
  PRIMARY KEY (module, job)
);

CREATE FUNCTION bulkhead_internal.keep_module_jobs() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  handlers jsonb;
BEGIN
  BEGIN
    handlers := jsonb_path_query_array(NEW.manifest::jsonb, 'lax $.capabilities.jobs.handlers[*] ? (@.name.type() == "string")');
  EXCEPTION WHEN data_exception THEN
    handlers := '[]';  -- a manifest with a text that jsonb can't hold
  END;
  DELETE FROM bulkhead_internal.module_jobs j
    WHERE j.module = NEW.name AND j.job NOT IN (SELECT h->>'name' FROM jsonb_array_elements(handlers) AS h);
  INSERT INTO bulkhead_internal.module_jobs AS j (module, job, max_attempts)
    SELECT DISTINCT ON (h->>'name') NEW.name, h->>'name',
           CASE WHEN jsonb_typeof(h->'retries') = 'number' THEN (h->>'retries')::numeric::integer ELSE 0 END + 1
    FROM jsonb_array_elements(handlers) AS h
    ON CONFLICT (module, job) DO UPDATE SET max_attempts = excluded.max_attempts WHERE j.max_attempts <> excluded.max_attempts;
  RETURN NULL;
END
$$;
CREATE TRIGGER keep_module_jobs AFTER INSERT OR UPDATE OF manifest ON bulkhead_internal.modules FOR EACH ROW
  EXECUTE FUNCTION bulkhead_internal.keep_module_jobs();
UPDATE bulkhead_internal.modules SET manifest = manifest;

-- Queues a run; `fresh` is false when one with that key waits already, whose id is answered. Not for modules: the supervisor's own and enqueue()'s.
CREATE FUNCTION bulkhead_internal.enqueue_run(module text, job text, payload jsonb, delay interval, unique_key text, priority integer,
                                              OUT run_id uuid, OUT fresh boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  known bulkhead_internal.module_jobs;
  body jsonb := coalesce(payload, 'null');
  key text := nullif(unique_key, '');
  due timestamptz := clock_timestamp() + coalesce(delay, interval '0');
BEGIN
  SELECT j.* INTO known FROM bulkhead_internal.module_jobs j WHERE j.module = enqueue_run.module AND j.job = enqueue_run.job;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the module "%" has no job "%"', enqueue_run.module, left(enqueue_run.job, 64) USING ERRCODE = 'undefined_object';
  END IF;
  IF known.backlog >= 1000000 THEN
    RAISE EXCEPTION 'a million runs of the job "%" are waiting already', known.job USING ERRCODE = 'configuration_limit_exceeded';
  END IF;
  IF octet_length(body::text) > 262144 THEN
    RAISE EXCEPTION 'the payload has more than 262144 bytes as JSON' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF coalesce(enqueue_run.delay, interval '0') NOT BETWEEN interval '0' AND interval '366 days' THEN
    RAISE EXCEPTION 'the delay is not from 0 to 366 days' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF octet_length(key) > 256 THEN
    RAISE EXCEPTION 'the unique key has more than 256 bytes' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF coalesce(enqueue_run.priority, 0) NOT BETWEEN -1000000 AND 1000000 THEN
    RAISE EXCEPTION 'the priority is not from -1000000 to 1000000' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  LOOP
    INSERT INTO bulkhead_internal.runs (module, job, max_attempts, trigger, payload, queued_at, not_before, unique_key, priority)
      VALUES (known.module, known.job, known.max_attempts, 'enqueue', body, clock_timestamp(), due, key, coalesce(enqueue_run.priority, 0))
      ON CONFLICT (module, job, unique_key) WHERE status = 'QUEUED' AND unique_key IS NOT NULL DO NOTHING
      RETURNING id INTO run_id;
    fresh := FOUND;
    EXIT WHEN fresh;
    -- It may have begun meanwhile: then the key is free, and the insertion is tried again.
    SELECT r.id INTO run_id FROM bulkhead_internal.runs r
      WHERE r.module = known.module AND r.job = known.job AND r.unique_key = key AND r.status = 'QUEUED';
    EXIT WHEN FOUND;
  END LOOP;
END
$$;

-- The module whose session this is, for the functions that modules call.
CREATE FUNCTION bulkhead_internal.calling_module() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  caller text;
BEGIN
  SELECT r.module INTO caller FROM bulkhead_internal.module_roles r WHERE r.role = session_user;
  IF caller IS NULL THEN
    RAISE EXCEPTION 'role % belongs to no module', session_user USING ERRCODE = 'insufficient_privilege';
  END IF;
  RETURN caller;
END
$$;

-- Queues a run of one of the calling module's jobs, which begins when the transaction has been committed, and is not there when it is rolled back.
-- Answers the run's id, or that of the run which waits under the same key.
CREATE FUNCTION bulkhead.enqueue(job text, payload jsonb DEFAULT 'null', delay interval DEFAULT '0', unique_key text DEFAULT NULL,
                                 priority integer DEFAULT 0)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  caller text := bulkhead_internal.calling_module();
  queued record;
BEGIN
  SELECT * INTO queued FROM bulkhead_internal.enqueue_run(caller, enqueue.job, enqueue.payload, enqueue.delay, enqueue.unique_key, enqueue.priority);
  -- One for the whole transaction, however many runs it queues.
  IF queued.fresh THEN PERFORM pg_notify('bulkhead_runs', ''); END IF;
  RETURN queued.run_id;
END
$$;

-- ---- claiming and closing, for supervisors

-- Up to `most` runs of these jobs, of each no more than leaves it within its concurrency in the whole cluster, nor than `places`; assigned to its
-- instances in their order. Claims are made one after another: "how many are running?" and the claim are one step cluster-wide. The lock is on a
-- table that no module can reach: an advisory lock could be taken by any of them, to stop all jobs. Nothing else locks it so, readers and
-- writers do not wait for it, and nothing is written for it.
CREATE FUNCTION bulkhead_internal.claim_runs(modules text[], jobs text[], concurrencies integer[], places integer[], instances text[],
                                             most integer, node text, lease interval)
RETURNS SETOF bulkhead_internal.runs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off  -- in the order of the index: of many that wait only the first are looked at
AS $$
#variable_conflict use_column
DECLARE
  at timestamptz;
BEGIN
  LOCK TABLE bulkhead_internal.instance IN SHARE UPDATE EXCLUSIVE MODE;
  at := clock_timestamp();
  RETURN QUERY
  WITH active AS (
    SELECT a.module, a.job, string_to_array(a.instances, ' ') AS instances,
           least(a.places, a.concurrency - (SELECT count(*) FROM bulkhead_internal.runs x
                                            WHERE x.module = a.module AND x.job = a.job AND x.status = 'RUNNING')) AS free
    FROM unnest(modules, jobs, concurrencies, places, instances) AS a(module, job, concurrency, places, instances)),
  picked AS (
    SELECT w.id, a.instances[1 + (row_number() OVER (PARTITION BY a.module, a.job) - 1) % cardinality(a.instances)] AS instance
    FROM active a CROSS JOIN LATERAL (
      SELECT q.id FROM bulkhead_internal.runs q
      WHERE q.module = a.module AND q.job = a.job AND q.status = 'QUEUED' AND q.not_before <= at
      ORDER BY q.priority DESC, q.not_before, q.id LIMIT greatest(a.free, 0) FOR UPDATE SKIP LOCKED) AS w
    LIMIT most)
  UPDATE bulkhead_internal.runs AS r
  SET status = 'RUNNING', attempt = r.attempt + 1, started_at = at, finished_at = NULL, node = claim_runs.node, worker = p.instance,
      lease_until = at + lease, fence = nextval('bulkhead_internal.run_fence'), progress = 0, progress_message = '',
      error_code = NULL, error_message = NULL, error_stack = NULL, unique_key = NULL
  FROM picked p WHERE r.id = p.id RETURNING r.*;
END
$$;

-- What becomes of runs whose attempt is over, by the fence of the attempt; those of another fence are left alone and not answered. Kinds:
--   final     status is the last word
--   retry     queued again after `delay` seconds
--   lost      the worker died: queued at once while attempts are left (a run is not given up for one death), else INTERRUPTED
--   shutdown  INTERRUPTED; does not count; taken up again by the next node that looks
--   returned  nothing happened to the work itself: queued again after `delay` seconds; does not count
-- One that was cancelled meanwhile is CANCELLED instead of waiting again.
CREATE FUNCTION bulkhead_internal.finish_runs(ids uuid[], fences bigint[], kinds text[], statuses text[], delays double precision[],
                                              results text[], codes text[], messages text[], stacks text[],
                                              fractions double precision[], notes text[])
RETURNS SETOF bulkhead_internal.runs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  UPDATE bulkhead_internal.runs AS r
  SET status = CASE o.kind WHEN 'final' THEN o.status WHEN 'cancelled' THEN 'CANCELLED' WHEN 'given_up' THEN 'INTERRUPTED' WHEN 'shutdown' THEN 'INTERRUPTED'
               ELSE 'QUEUED' END,
      finished_at = CASE WHEN o.kind IN ('final', 'cancelled', 'given_up', 'shutdown') THEN now() END,
      lease_until = NULL,
      attempt = CASE WHEN o.kind IN ('shutdown', 'returned') THEN greatest(r.attempt - 1, 0) ELSE r.attempt END,
      started_at = CASE WHEN o.kind = 'returned' THEN NULL ELSE r.started_at END,
      not_before = CASE WHEN o.kind IN ('retry', 'returned', 'lost') THEN clock_timestamp() + o.delay * interval '1 second' ELSE r.not_before END,
      result = o.result::jsonb,
      error_code = CASE o.kind WHEN 'cancelled' THEN 'CANCELLED' WHEN 'lost' THEN 'WORKER_LOST' WHEN 'given_up' THEN 'WORKER_LOST'
                   WHEN 'shutdown' THEN 'SHUTDOWN' WHEN 'returned' THEN NULL ELSE o.code END,
      error_message = CASE WHEN o.kind = 'cancelled' THEN 'The run was cancelled.'
                      WHEN o.kind IN ('lost', 'given_up') THEN 'The worker that ran attempt ' || r.attempt || ' is gone.'
                      WHEN o.kind = 'shutdown' THEN 'The supervisor was shut down; the run is taken up again.'
                      WHEN o.kind = 'returned' THEN NULL ELSE o.message END,
      error_stack = CASE WHEN o.kind IN ('final', 'retry') THEN o.stack END,
      progress = CASE WHEN o.kind = 'final' AND o.status = 'SUCCEEDED' THEN 1 WHEN o.kind = 'returned' THEN 0 ELSE o.fraction END,
      progress_message = CASE WHEN o.kind = 'returned' THEN '' ELSE o.note END
  FROM (
    SELECT f.id, f.status, f.delay, f.result, f.code, f.message, f.stack, f.fraction, f.note,
           CASE WHEN f.kind <> 'final' AND q.cancel_requested_at IS NOT NULL THEN 'cancelled'
                WHEN f.kind = 'lost' AND q.attempt >= greatest(q.max_attempts, 4) THEN 'given_up' ELSE f.kind END AS kind
    FROM unnest(ids, fences, kinds, statuses, delays, results, codes, messages, stacks, fractions, notes)
         AS f(id, fence, kind, status, delay, result, code, message, stack, fraction, note)
    JOIN bulkhead_internal.runs q ON q.id = f.id AND q.fence = f.fence AND q.status = 'RUNNING'
    FOR UPDATE OF q) AS o
  WHERE r.id = o.id
  RETURNING r.*;
END
$$;

-- Runs whose executor is gone: those of an expired lease, or, with a node, all that it left RUNNING.
CREATE FUNCTION bulkhead_internal.release_runs(of_node text) RETURNS SETOF bulkhead_internal.runs
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  WITH gone AS (
    SELECT q.id, q.fence, q.progress, q.progress_message FROM bulkhead_internal.runs q
    WHERE q.status = 'RUNNING' AND (q.lease_until < clock_timestamp() OR q.node = of_node)),
  arrays AS (
    SELECT array_agg(id) AS ids, array_agg(fence) AS fences, array_agg('lost'::text) AS kinds, array_agg(NULL::text) AS none,
           array_agg(0::double precision) AS delays, array_agg(progress) AS fractions, array_agg(progress_message) AS notes
    FROM gone)
  SELECT f.* FROM arrays a,
    bulkhead_internal.finish_runs(a.ids, a.fences, a.kinds, a.none, a.delays, a.none, a.none, a.none, a.none, a.fractions, a.notes) f
$$;

-- Cancels: a run that waits at once, one under way by its executor, who is told. Answers the run as it is then, nothing when it had ended.
CREATE FUNCTION bulkhead_internal.cancel_run(run uuid) RETURNS SETOF bulkhead_internal.runs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM pg_notify('bulkhead_runs', 'cancel');
  RETURN QUERY
  UPDATE bulkhead_internal.runs AS r
  SET cancel_requested_at = coalesce(r.cancel_requested_at, clock_timestamp()),
      status = CASE WHEN r.status = 'RUNNING' THEN r.status ELSE 'CANCELLED' END,
      finished_at = CASE WHEN r.status <> 'RUNNING' THEN clock_timestamp() END,
      error_code = CASE WHEN r.status <> 'RUNNING' THEN 'CANCELLED' END,
      error_message = CASE WHEN r.status <> 'RUNNING' THEN 'The run was cancelled.' END,
      error_stack = NULL
  WHERE r.id = run AND (r.status IN ('QUEUED', 'RUNNING') OR (r.status = 'INTERRUPTED' AND r.error_code = 'SHUTDOWN'))
  RETURNING r.*;
END
$$;

REVOKE ALL ON FUNCTION
  bulkhead_internal.calling_module(),
  bulkhead_internal.keep_module_jobs(),
  bulkhead_internal.enqueue_run(text, text, jsonb, interval, text, integer),
  bulkhead_internal.claim_runs(text[], text[], integer[], integer[], text[], integer, text, interval),
  bulkhead_internal.finish_runs(uuid[], bigint[], text[], text[], double precision[], text[], text[], text[], text[], double precision[], text[]),
  bulkhead_internal.release_runs(text),
  bulkhead_internal.cancel_run(uuid),
  bulkhead.enqueue(text, jsonb, interval, text, integer)
FROM PUBLIC;
