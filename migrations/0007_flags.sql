-- Feature flags as they were set at run time. The environment of a node counts for more, its configuration file for less.
CREATE TABLE bulkhead_internal.flags (
  name        text PRIMARY KEY CHECK (name <> ''),
  enabled     boolean NOT NULL,
  percentage  integer CHECK (percentage BETWEEN 0 AND 100),  -- of identities; NULL: all
  identities  jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(identities) = 'array'),  -- always on for these
  description text NOT NULL DEFAULT '',
  revision    bigint NOT NULL DEFAULT 1,
  updated_at  timestamptz NOT NULL DEFAULT now(),
  updated_by  text NOT NULL DEFAULT ''
);
