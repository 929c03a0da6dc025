-- The last number that was published of each key, counted in the transaction that published it.
CREATE TABLE counters (
  key text PRIMARY KEY,
  n   bigint NOT NULL
);
