-- What was asked under an idempotency key is kept as a sealed digest: a request may hold a password, which could be guessed from a plain
-- one. Keys from before this are forgotten.
DELETE FROM bulkhead_internal.idempotent_calls;
COMMENT ON COLUMN bulkhead_internal.idempotent_calls.request IS 'SHA-256 of the request, sealed';
