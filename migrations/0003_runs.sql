-- Runs of jobs: the queue and its history in one table.
-- fence grows with every claim (SET fence = nextval('bulkhead_internal.run_fence')): a worker that lost its lease writes with an
-- old one and changes nothing.
CREATE SEQUENCE bulkhead_internal.run_fence;
CREATE TABLE bulkhead_internal.runs (
  id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  module           text NOT NULL,
  job              text NOT NULL,
  status           text NOT NULL DEFAULT 'QUEUED'
                   CHECK (status IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'TIMED_OUT', 'SKIPPED', 'INTERRUPTED')),
  attempt          integer NOT NULL DEFAULT 0,
  max_attempts     integer NOT NULL DEFAULT 1,
  trigger          text NOT NULL,                  -- schedule, manual
  slot             timestamptz,                    -- the tick of the schedule that it stands for
  payload          jsonb NOT NULL DEFAULT 'null',
  progress         double precision NOT NULL DEFAULT 0,
  progress_message text NOT NULL DEFAULT '',
  result           jsonb,
  error_code       text,
  error_message    text,
  error_stack      text,
  queued_at        timestamptz NOT NULL DEFAULT now(),
  not_before       timestamptz NOT NULL DEFAULT now(),  -- later than queued_at for a retry
  started_at       timestamptz,
  finished_at      timestamptz,
  node             text,
  worker           text,
  lease_until      timestamptz,
  fence            bigint NOT NULL DEFAULT nextval('bulkhead_internal.run_fence'),
  -- At most one run per tick, whichever node is first. NULLs are distinct: manual runs are unbounded.
  CONSTRAINT runs_slot_key UNIQUE (module, job, slot)
);
ALTER SEQUENCE bulkhead_internal.run_fence OWNED BY bulkhead_internal.runs.fence;
CREATE INDEX runs_claimable ON bulkhead_internal.runs (not_before, queued_at) WHERE status = 'QUEUED';
CREATE INDEX runs_leases ON bulkhead_internal.runs (lease_until) WHERE status = 'RUNNING';
CREATE INDEX runs_of_job ON bulkhead_internal.runs (module, job, queued_at DESC);
