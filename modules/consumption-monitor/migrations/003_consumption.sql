-- Where TimescaleDB is installed the readings become a hypertable, one chunk a week; elsewhere they stay a plain table.
DO $migration$
DECLARE
    timescale_schema text;
BEGIN
    SELECT n.nspname INTO timescale_schema
      FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'timescaledb';
    IF timescale_schema IS NULL THEN
        RAISE NOTICE 'TimescaleDB is not installed; readings stay a plain table';
        RETURN;
    END IF;
    EXECUTE format(
        'SELECT %I.create_hypertable(%L::regclass, %L, chunk_time_interval => interval ''7 days'', migrate_data => true)',
        timescale_schema, format('%I.%I', current_schema(), 'readings'), 'recorded_at');
END;
$migration$;

-- Statistics of each series in [from_time, to_time), in buckets of `bucket` (a field of date_trunc, in UTC) or, when that is null,
-- in one. `total` is what a counter consumed; the rates are per second and weigh each step by its time.
CREATE FUNCTION consumption(from_time timestamptz, to_time timestamptz, only_endpoint text, bucket text)
RETURNS TABLE (
    endpoint_id  text,
    metric       text,
    bucket_start timestamptz,
    samples      bigint,
    first_value  double precision,
    last_value   double precision,
    min_value    double precision,
    max_value    double precision,
    avg_value    double precision,
    total        double precision,
    min_rate     double precision,
    max_rate     double precision,
    avg_rate     double precision
)
LANGUAGE sql STABLE PARALLEL SAFE
AS $function$
    -- The ends of each group are looked up by their primary key, one probe each: cheaper than keeping every group in order.
    SELECT g.endpoint_id, g.metric, g.start, g.samples,
           (SELECT e.value FROM readings e
             WHERE e.endpoint_id = g.endpoint_id AND e.metric = g.metric AND e.recorded_at = g.first_at),
           (SELECT e.value FROM readings e
             WHERE e.endpoint_id = g.endpoint_id AND e.metric = g.metric AND e.recorded_at = g.last_at),
           g.min_value, g.max_value, g.avg_value, g.total, g.min_rate, g.max_rate, g.total / g.elapsed_seconds
      FROM (SELECT r.endpoint_id,
                   r.metric,
                   b.start,
                   count(*) AS samples,
                   min(r.recorded_at) AS first_at,
                   max(r.recorded_at) AS last_at,
                   min(r.value) AS min_value,
                   max(r.value) AS max_value,
                   avg(r.value) AS avg_value,
                   sum(r.consumed) AS total,
                   sum(r.elapsed_seconds) AS elapsed_seconds,
                   min(r.consumed / r.elapsed_seconds) AS min_rate,
                   max(r.consumed / r.elapsed_seconds) AS max_rate
              FROM readings r
             CROSS JOIN LATERAL (
                   SELECT CASE WHEN bucket IS NULL THEN from_time ELSE date_trunc(bucket, r.recorded_at, 'UTC') END AS start) b
             WHERE r.recorded_at >= from_time
               AND r.recorded_at < to_time
               AND (only_endpoint IS NULL OR r.endpoint_id = only_endpoint)
             GROUP BY r.endpoint_id, r.metric, b.start) g
$function$;
