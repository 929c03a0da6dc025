-- What clients were told is stored. For tests/chaos: none of it may be lost, whatever is killed.
CREATE TABLE entries (
    id text PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now()
);
