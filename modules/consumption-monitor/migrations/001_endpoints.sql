-- What is measured. The host that the module runs on is there from the start.
CREATE TABLE endpoints (
    id         text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    kind       text NOT NULL CHECK (kind IN ('host')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO endpoints (id, name, kind) VALUES ('host', 'This host', 'host');
ANALYZE endpoints;  -- else the planner takes it for a large table until autovacuum comes by
