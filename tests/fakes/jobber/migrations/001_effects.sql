CREATE TABLE effects (
  n          bigint PRIMARY KEY,
  fence      bigint NOT NULL,
  executions integer NOT NULL DEFAULT 1
);
CREATE TABLE faults (
  n    bigint NOT NULL,
  what text NOT NULL
);
CREATE TABLE stamps (
  n     bigint PRIMARY KEY,
  took  double precision NOT NULL
);
