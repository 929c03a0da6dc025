-- A hypertable stays one: it answers like the plain table, and 002's down file drops it.
DROP FUNCTION consumption(timestamptz, timestamptz, text, text);
