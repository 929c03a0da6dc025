-- Many events are published by one statement, where a call of bulkhead.publish() for each costs several times as much as its row. What is wrong with
-- an event that was refused is looked for afterwards, slowly, only to be said.

ALTER FUNCTION bulkhead_internal.schema_fault(jsonb, jsonb, text) STABLE;

-- Whether an event is small enough. Written so that the planner puts it in place of its calls.
CREATE FUNCTION bulkhead_internal.event_fits(key text, payload jsonb) RETURNS boolean
LANGUAGE sql STABLE
AS $$ SELECT COALESCE(pg_catalog.octet_length(key), 0) <= 512 AND COALESCE(pg_catalog.pg_column_size(payload), 0) <= 262144 $$;

-- The first thing that is against this event, NULL when nothing.
CREATE FUNCTION bulkhead_internal.event_fault(source text, topic text, key text, payload jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  wanted jsonb;
  fault text;
BEGIN
  SELECT t.schema INTO wanted FROM bulkhead_internal.event_topics t WHERE t.module = event_fault.source AND t.topic = event_fault.topic;
  IF NOT FOUND THEN
    RETURN format('the manifest of %s does not declare the event "%s" under capabilities.events.publishes', source, left(topic, 128));
  ELSIF octet_length(key) > 512 THEN
    RETURN format('the key of an event has at most 512 bytes, not %s', octet_length(key));
  ELSIF pg_column_size(payload) > 262144 THEN
    RETURN format('the payload of an event has at most 262144 bytes, not %s', pg_column_size(payload));
  END IF;
  fault := bulkhead_internal.schema_fault(wanted, payload, '');
  RETURN format('the payload of "%s" is not what its schema wants: ', topic) || fault;
END
$$;

-- NULL: by now there is nothing against it, because the manifest has changed since; the transaction may be tried again.
CREATE FUNCTION bulkhead_internal.refuse_event(fault text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
  IF fault IS NULL THEN
    RAISE EXCEPTION 'the manifest has changed while an event was published; try again' USING ERRCODE = 'serialization_failure';
  END IF;
  RAISE EXCEPTION '%', fault USING ERRCODE = 'invalid_parameter_value';
END
$$;

-- One event of `source`, which is checked. Faults of what was given are class 22.
CREATE OR REPLACE FUNCTION bulkhead_internal.append_event(source text, topic text, key text, payload jsonb)
RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
  -- Before the number is taken: what has a number then has a transaction that every later snapshot knows.
  own xid8 := pg_catalog.pg_current_xact_id();
  made bigint;
  asleep boolean;
BEGIN
  payload := COALESCE(payload, 'null');
  INSERT INTO bulkhead_internal.events (xid, topic, key, payload, source, at)
    SELECT own, t.topic, COALESCE(append_event.key, ''), append_event.payload, t.module, pg_catalog.clock_timestamp()
    FROM bulkhead_internal.event_topics t
    WHERE t.module = append_event.source AND t.topic = append_event.topic AND bulkhead_internal.event_fits(append_event.key, append_event.payload)
      AND (t.schema IS NULL OR bulkhead_internal.schema_fault(t.schema, append_event.payload, '') IS NULL)
    RETURNING id, EXISTS (SELECT FROM bulkhead_internal.event_sleepers) INTO made, asleep;
  IF made IS NULL THEN
    PERFORM bulkhead_internal.refuse_event(bulkhead_internal.event_fault(source, topic, key, payload));
  END IF;
  IF asleep THEN
    PERFORM pg_catalog.pg_notify('bulkhead_events', '');
  END IF;
  RETURN made;
END
$$;

-- Many events at once, in one statement. One that is refused refuses all, and the error names the first such. The numbers are in the order of what was
-- given.
CREATE FUNCTION bulkhead_internal.append_many(sources text[], topics text[], keys text[], payloads jsonb[])
RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  own xid8 := pg_current_xact_id();  -- first, as above
  given integer := cardinality(topics);
  made bigint[];
  asleep boolean;
  fault text;
BEGIN
  -- Nothing is joined to the events, so they keep their order. One look at all topics that take any payload is cheaper than one for each event.
  WITH added AS (
    INSERT INTO bulkhead_internal.events (xid, topic, key, payload, source, at)
    SELECT own, e.topic, COALESCE(e.key, ''), COALESCE(e.payload, 'null'), e.source, clock_timestamp()
    FROM unnest(sources, topics, keys, payloads) AS e(source, topic, key, payload)
    WHERE bulkhead_internal.event_fits(e.key, e.payload)
      AND ((e.source, e.topic) IN (SELECT t.module, t.topic FROM bulkhead_internal.event_topics t WHERE t.schema IS NULL)
           OR (SELECT bulkhead_internal.schema_fault(t.schema, COALESCE(e.payload, 'null'), '') IS NULL
               FROM bulkhead_internal.event_topics t WHERE t.module = e.source AND t.topic = e.topic))
    RETURNING id
  )
  SELECT array_agg(a.id), EXISTS (SELECT FROM bulkhead_internal.event_sleepers) INTO made, asleep FROM added a;
  IF COALESCE(cardinality(made), 0) < given THEN
    SELECT CASE WHEN given > 1 THEN format('event %s of %s: ', e.n, given) ELSE '' END || e.fault INTO fault
      FROM (SELECT u.n, bulkhead_internal.event_fault(u.source, u.topic, u.key, COALESCE(u.payload, 'null')) AS fault
            FROM unnest(sources, topics, keys, payloads) WITH ORDINALITY AS u(source, topic, key, payload, n)) AS e
      WHERE e.fault IS NOT NULL ORDER BY e.n LIMIT 1;
    PERFORM bulkhead_internal.refuse_event(fault);
  END IF;
  IF asleep THEN
    PERFORM pg_notify('bulkhead_events', '');
  END IF;
  RETURN COALESCE(made, '{}');
END
$$;

-- The same for what comes to a supervisor, which has payloads as text.
CREATE OR REPLACE FUNCTION bulkhead_internal.append_events(sources text[], topics text[], keys text[], payloads text[])
RETURNS SETOF bigint
LANGUAGE plpgsql
AS $$
BEGIN
  RETURN QUERY SELECT pg_catalog.unnest(bulkhead_internal.append_many(sources, topics, keys, payloads::jsonb[]));
END
$$;

-- Publishes many events of the calling module, with the transaction that it is called in: the arrays have one element for each. Their numbers, in
-- that order. All are published or none is; the error names the first that is refused by its place, from 1. At most 10,000.
CREATE FUNCTION bulkhead.publish_many(topics text[], keys text[], payloads jsonb[])
RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  caller text := bulkhead_internal.calling_module();
  given integer := COALESCE(cardinality(topics), 0);
BEGIN
  IF COALESCE(cardinality(keys), 0) <> given OR COALESCE(cardinality(payloads), 0) <> given THEN
    RAISE EXCEPTION 'there are % topics, % keys and % payloads; give one of each for every event', given, COALESCE(cardinality(keys), 0),
      COALESCE(cardinality(payloads), 0) USING ERRCODE = 'invalid_parameter_value';
  ELSIF given > 10000 THEN
    RAISE EXCEPTION 'at most 10000 events are published at once, not %; give them in parts', given USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN bulkhead_internal.append_many(array_fill(caller, ARRAY[given]), topics, keys, payloads);
END
$$;

REVOKE ALL ON FUNCTION bulkhead_internal.event_fits(text, jsonb), bulkhead_internal.event_fault(text, text, text, jsonb),
  bulkhead_internal.refuse_event(text), bulkhead_internal.append_many(text[], text[], text[], jsonb[]),
  bulkhead.publish_many(text[], text[], jsonb[]) FROM PUBLIC;
