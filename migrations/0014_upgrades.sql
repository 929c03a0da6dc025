-- Versions of a module: what it was before an upgrade, and how the last one went.
ALTER TABLE bulkhead_internal.modules
  -- What the module was and will be again when it is no longer UPDATING: also after a supervisor that ended on the way.
  ADD COLUMN updating_from text CHECK (updating_from IN ('REGISTERED', 'ENABLED', 'DISABLED')),
  -- {from, to, outcome, reason: {code, message} | null, at}. Written when an upgrade begins, as one that was interrupted.
  ADD COLUMN last_upgrade  jsonb CHECK (jsonb_typeof(last_upgrade) = 'object'),
  -- {version, path, package, sha, manifest (as text)}: what a rollback goes back to.
  ADD COLUMN previous      jsonb CHECK (jsonb_typeof(previous) = 'object');
