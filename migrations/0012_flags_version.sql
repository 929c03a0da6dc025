-- Moves with every change of a feature flag, whoever makes it; nodes look at it to know whether to read the flags again.
CREATE TABLE bulkhead_internal.flags_version (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version  bigint NOT NULL DEFAULT 1
);
INSERT INTO bulkhead_internal.flags_version DEFAULT VALUES;

CREATE FUNCTION bulkhead_internal.bump_flags_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE bulkhead_internal.flags_version SET version = version + 1;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION bulkhead_internal.bump_flags_version() FROM PUBLIC;

CREATE TRIGGER flags_version AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON bulkhead_internal.flags
  FOR EACH STATEMENT EXECUTE FUNCTION bulkhead_internal.bump_flags_version();
