-- The ceiling: rows of the same content, and nothing else.
CREATE TABLE plain (
  id      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  key     text NOT NULL,
  payload jsonb NOT NULL
);

-- What a commit costs at the least.
CREATE TABLE least (n integer);
