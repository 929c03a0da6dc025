-- Each effect, with no constraint that would hide a double one; the last number of each key; what came when it should not; what handlers are to do.
CREATE TABLE entries (
  id      bigint GENERATED ALWAYS AS IDENTITY,
  key     text NOT NULL,
  n       bigint NOT NULL,
  event   text NOT NULL,
  topic   text NOT NULL,
  attempt integer NOT NULL
);
CREATE TABLE keys (
  key  text PRIMARY KEY,
  last bigint NOT NULL
);
CREATE TABLE disorder (
  key      text NOT NULL,
  expected bigint NOT NULL,
  came     bigint NOT NULL
);
CREATE TABLE mode (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  does     text NOT NULL DEFAULT 'work'
);
INSERT INTO mode DEFAULT VALUES;
