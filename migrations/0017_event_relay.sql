-- Events through Redis: who relays the outbox into the stream, under which name, and how far it has come (supervisor/README.md, decision 10).
-- Unlogged on purpose: after a crash of the server, which may take away the last transactions and give their numbers out again, the row is gone, and
-- with it the name of a stream that was filled from a history which did not happen. The next relay begins a stream of another name.

CREATE UNLOGGED TABLE bulkhead_internal.event_relay (
  one         boolean PRIMARY KEY DEFAULT true CHECK (one),
  stream      text NOT NULL,               -- key in Redis
  reach       pg_snapshot NOT NULL,        -- what is visible in it, and was not when the stream began, has been relayed, or never will be
  number      bigint NOT NULL DEFAULT 0,   -- of the last entry
  fence       bigint NOT NULL DEFAULT 0,   -- grows with every claim: who comes with an old one changes nothing
  node        text,
  lease_until timestamptz
);
