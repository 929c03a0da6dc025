-- Runs that a node claims ahead of the places that its workers have free: they wait there for some milliseconds, or are given back as if nobody had
-- claimed them. Supervisors of before go on with claim_runs() and finish_runs() of 0015, to which all that a node has claimed counts as executed.
ALTER TABLE bulkhead_internal.runs
  ADD COLUMN slots       integer,  -- of the job's runs its node may execute so many at once, by the claim
  ADD COLUMN claimed_key text;     -- the unique key it waited under, which it has again when it is given back

-- As in 0015, and: `capacities` are the places that the node has for the runs of a job at all, `busy` the runs that it has of it already, executed or
-- waiting, `wanted` the runs to claim at most, and `ahead` how many of all may wait. So `slots` are what the others leave of the job's concurrency,
-- and of what another node has claimed no more counts than it may execute.
CREATE FUNCTION bulkhead_internal.claim_runs(modules text[], jobs text[], concurrencies integer[], capacities integer[], busy integer[], wanted integer[],
                                             ahead integer[], instances text[], most integer, node text, lease interval)
RETURNS SETOF bulkhead_internal.runs
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off  -- in the order of the index: of many that wait only the first are looked at,
SET enable_hashjoin = off SET enable_mergejoin = off  -- and of all runs those that have been picked
AS $$
#variable_conflict use_column
DECLARE
  at timestamptz;
BEGIN
  LOCK TABLE bulkhead_internal.instance IN SHARE UPDATE EXCLUSIVE MODE;
  at := clock_timestamp();
  -- Claims are one at a time, so what has been picked may only have been cancelled meanwhile: the update finds that, and no row need be locked before.
  RETURN QUERY
  WITH active AS (
    SELECT a.module, a.job, string_to_array(a.instances, ' ') AS instances, s.slots, least(a.wanted, s.slots - a.busy + a.ahead) AS free
    FROM unnest(modules, jobs, concurrencies, capacities, busy, wanted, ahead, instances)
         AS a(module, job, concurrency, capacity, busy, wanted, ahead, instances)
    CROSS JOIN LATERAL (
      SELECT least(a.capacity, a.concurrency - coalesce(sum(o.used), 0))::integer AS slots FROM (
        SELECT least(count(*), coalesce(max(x.slots), count(*))) AS used FROM bulkhead_internal.runs x
        WHERE x.module = a.module AND x.job = a.job AND x.status = 'RUNNING' AND x.node IS DISTINCT FROM claim_runs.node GROUP BY x.node) AS o) AS s
    WHERE s.slots > 0),
  picked AS (
    SELECT w.place, a.slots, a.instances[1 + (row_number() OVER (PARTITION BY a.module, a.job) - 1) % cardinality(a.instances)] AS instance
    FROM active a CROSS JOIN LATERAL (
      SELECT q.ctid AS place FROM bulkhead_internal.runs q
      WHERE q.module = a.module AND q.job = a.job AND q.status = 'QUEUED' AND q.not_before <= at
      ORDER BY q.priority DESC, q.not_before, q.id LIMIT greatest(a.free, 0)) AS w
    LIMIT most)
  UPDATE bulkhead_internal.runs AS r
  SET status = 'RUNNING', attempt = r.attempt + 1, started_at = at, finished_at = NULL, node = claim_runs.node, worker = p.instance, slots = p.slots,
      lease_until = at + lease, fence = nextval('bulkhead_internal.run_fence'), progress = 0, progress_message = '',
      error_code = NULL, error_message = NULL, error_stack = NULL, unique_key = NULL, claimed_key = r.unique_key
  FROM picked p WHERE r.ctid = p.place AND r.status = 'QUEUED' RETURNING r.*;
END
$$;

-- As in 0015, with the worker that executed each (NULL: none did), and one more kind:
--   unbegun   it was claimed and never begun: as if it had not been claimed
CREATE FUNCTION bulkhead_internal.finish_runs(ids uuid[], fences bigint[], kinds text[], statuses text[], delays double precision[], results text[],
                                              codes text[], messages text[], stacks text[], fractions double precision[], notes text[], workers text[])
RETURNS TABLE (fence bigint, status text, attempt integer, result text, error_code text, error_message text, error_stack text, progress double precision,
               progress_message text, started_at timestamptz, finished_at timestamptz, not_before timestamptz, cancel boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off  -- one row after another, however many the planner expects
AS $$
#variable_conflict use_column
BEGIN
  -- Most have ended for good, whatever their rows say besides: those need no look at the row first.
  RETURN QUERY
  UPDATE bulkhead_internal.runs AS r
  SET status = o.status, finished_at = now(), lease_until = NULL, worker = coalesce(o.worker, r.worker), result = o.result::jsonb, error_code = o.code,
      error_message = o.message, error_stack = o.stack, progress = CASE o.status WHEN 'SUCCEEDED' THEN 1 ELSE o.fraction END, progress_message = o.note
  FROM unnest(ids, fences, kinds, statuses, results, codes, messages, stacks, fractions, notes, workers)
       AS o(id, fence, kind, status, result, code, message, stack, fraction, note, worker)
  WHERE o.kind = 'final' AND r.id = o.id AND r.fence = o.fence AND r.status || '' = 'RUNNING'  -- by the key, not by the index of all that are under way
  RETURNING r.fence, r.status, r.attempt, r.result::text, r.error_code, r.error_message, r.error_stack, r.progress, r.progress_message, r.started_at,
            r.finished_at, r.not_before, r.cancel_requested_at IS NOT NULL;
  IF 'final' = ALL (kinds) THEN RETURN; END IF;
  RETURN QUERY
  UPDATE bulkhead_internal.runs AS r
  SET status = CASE o.becomes WHEN 'cancelled' THEN 'CANCELLED' WHEN 'given_up' THEN 'INTERRUPTED' WHEN 'shutdown' THEN 'INTERRUPTED' ELSE 'QUEUED' END,
      finished_at = CASE WHEN o.becomes IN ('cancelled', 'given_up', 'shutdown') THEN now() END,
      lease_until = NULL,
      worker = coalesce(o.worker, r.worker),
      attempt = CASE WHEN o.kind IN ('shutdown', 'returned', 'unbegun') THEN greatest(r.attempt - 1, 0) ELSE r.attempt END,
      started_at = CASE WHEN o.kind IN ('returned', 'unbegun') THEN NULL ELSE r.started_at END,
      not_before = CASE WHEN o.becomes IN ('retry', 'returned', 'lost') THEN clock_timestamp() + o.delay * interval '1 second' ELSE r.not_before END,
      unique_key = CASE WHEN o.becomes = 'unbegun' AND NOT EXISTS (
                     SELECT FROM bulkhead_internal.runs w
                     WHERE w.module = r.module AND w.job = r.job AND w.unique_key = r.claimed_key AND w.status = 'QUEUED') THEN r.claimed_key END,
      result = o.result::jsonb,
      error_code = CASE o.becomes WHEN 'cancelled' THEN 'CANCELLED' WHEN 'lost' THEN 'WORKER_LOST' WHEN 'given_up' THEN 'WORKER_LOST'
                   WHEN 'shutdown' THEN 'SHUTDOWN' WHEN 'returned' THEN NULL WHEN 'unbegun' THEN NULL ELSE o.code END,
      error_message = CASE WHEN o.becomes = 'cancelled' THEN 'The run was cancelled.'
                      WHEN o.becomes IN ('lost', 'given_up') THEN 'The worker that ran attempt ' || r.attempt || ' is gone.'
                      WHEN o.becomes = 'shutdown' THEN 'The supervisor was shut down; the run is taken up again.'
                      WHEN o.becomes IN ('returned', 'unbegun') THEN NULL ELSE o.message END,
      error_stack = CASE o.becomes WHEN 'retry' THEN o.stack END,
      progress = CASE WHEN o.becomes IN ('returned', 'unbegun') THEN 0 ELSE o.fraction END,
      progress_message = CASE WHEN o.becomes IN ('returned', 'unbegun') THEN '' ELSE o.note END
  FROM (
    SELECT f.*, CASE WHEN q.cancel_requested_at IS NOT NULL THEN 'cancelled'
                     WHEN f.kind = 'lost' AND q.attempt >= greatest(q.max_attempts, 4) THEN 'given_up' ELSE f.kind END AS becomes
    FROM unnest(ids, fences, kinds, delays, results, codes, messages, stacks, fractions, notes, workers)
         AS f(id, fence, kind, delay, result, code, message, stack, fraction, note, worker)
    JOIN bulkhead_internal.runs q ON q.id = f.id AND q.fence = f.fence AND q.status || '' = 'RUNNING'
    WHERE f.kind <> 'final'
    FOR UPDATE OF q) AS o
  WHERE r.id = o.id
  RETURNING r.fence, r.status, r.attempt, r.result::text, r.error_code, r.error_message, r.error_stack, r.progress, r.progress_message, r.started_at,
            r.finished_at, r.not_before, r.cancel_requested_at IS NOT NULL;
END
$$;

REVOKE ALL ON FUNCTION
  bulkhead_internal.claim_runs(text[], text[], integer[], integer[], integer[], integer[], integer[], text[], integer, text, interval),
  bulkhead_internal.finish_runs(uuid[], bigint[], text[], text[], double precision[], text[], text[], text[], text[], double precision[], text[], text[])
FROM PUBLIC;
