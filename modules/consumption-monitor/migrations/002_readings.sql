-- What can be measured: a counter only grows until its source starts anew, a gauge goes up and down.
CREATE TABLE metrics (
    name        text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    unit        text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('counter', 'gauge')),
    description text NOT NULL
);

INSERT INTO metrics (name, unit, kind, description) VALUES
    ('cpu_seconds', 'seconds', 'counter', 'CPU time spent by this host in all but idling, waiting for disks and stolen time'),
    ('memory_bytes', 'bytes', 'gauge', 'Memory in use: all of it less what is available without swapping'),
    ('disk_read_bytes', 'bytes', 'counter', 'Read from physical disks'),
    ('disk_write_bytes', 'bytes', 'counter', 'Written to physical disks'),
    ('network_receive_bytes', 'bytes', 'counter', 'Received by network interfaces'),
    ('network_transmit_bytes', 'bytes', 'counter', 'Sent by network interfaces');
ANALYZE metrics;

-- The primary key is one measurement of one series, which is also how the newest reading of a series and a range of time are
-- found; it contains the time, as a hypertable demands.
CREATE TABLE readings (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    endpoint_id     text NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
    metric          text NOT NULL REFERENCES metrics (name),
    recorded_at     timestamptz NOT NULL,
    value           double precision NOT NULL CHECK (value >= 0 AND value < 'infinity'),
    -- One life of the counter's source, the boot of a host; null where it can't be told.
    epoch           text,
    -- Which parts of the source were summed up; readings of two scopes don't compare.
    scope           text NOT NULL DEFAULT '',
    -- Counters: what was consumed since the reading before, and in which time. Null for gauges and first readings.
    consumed        double precision CHECK (consumed >= 0 AND consumed < 'infinity'),
    elapsed_seconds double precision CHECK (elapsed_seconds > 0),
    PRIMARY KEY (endpoint_id, metric, recorded_at),
    CHECK ((consumed IS NULL) = (elapsed_seconds IS NULL))
);

-- A page of readings, newest first, and a range of time: over everything, and at one endpoint.
CREATE INDEX readings_by_time ON readings (recorded_at DESC, id DESC);
CREATE INDEX readings_by_endpoint_and_time ON readings (endpoint_id, recorded_at DESC, id DESC);
