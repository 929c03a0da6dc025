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
    SELECT r.endpoint_id,
           r.metric,
           b.start,
           count(*),
           (array_agg(r.value ORDER BY r.recorded_at))[1],
           (array_agg(r.value ORDER BY r.recorded_at DESC))[1],
           min(r.value),
           max(r.value),
           avg(r.value),
           sum(r.consumed),
           min(r.consumed / r.elapsed_seconds),
           max(r.consumed / r.elapsed_seconds),
           sum(r.consumed) / sum(r.elapsed_seconds)
      FROM readings r
     CROSS JOIN LATERAL (
           SELECT CASE WHEN bucket IS NULL THEN from_time ELSE date_trunc(bucket, r.recorded_at, 'UTC') END AS start) b
     WHERE r.recorded_at >= from_time
       AND r.recorded_at < to_time
       AND (only_endpoint IS NULL OR r.endpoint_id = only_endpoint)
     GROUP BY r.endpoint_id, r.metric, b.start
$function$;
