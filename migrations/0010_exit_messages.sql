-- What ended a worker, as a sentence, and how often each cause has ended one: a module keeps its newest exits only, and these for its life.
ALTER TABLE bulkhead_internal.module_exits ADD COLUMN message text NOT NULL DEFAULT '';
CREATE TABLE bulkhead_internal.module_exit_counts (
  module text NOT NULL REFERENCES bulkhead_internal.modules (name) ON DELETE CASCADE,
  cause  text NOT NULL,
  count  bigint NOT NULL,
  PRIMARY KEY (module, cause)
);
INSERT INTO bulkhead_internal.module_exit_counts (module, cause, count)
  SELECT module, cause, count(*) FROM bulkhead_internal.module_exits GROUP BY module, cause;
