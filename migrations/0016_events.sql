-- Events: the outbox, what each module declares and has received, what is tried again, and what was given up.
-- Numbers are given out in another order than transactions commit, so a subscriber's place is a pg_snapshot: what is not visible in the last
-- one and visible in this one is new. A transaction that stays open delays its own events and no others.

CREATE TABLE bulkhead_internal.events (
  id      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  xid     xid8 NOT NULL,               -- of the transaction that published it
  topic   text NOT NULL,
  key     text NOT NULL,               -- events with one key are delivered in order; empty: in any order
  payload jsonb NOT NULL,
  source  text NOT NULL,               -- module
  at      timestamptz NOT NULL
);
CREATE INDEX events_xid ON bulkhead_internal.events (xid, id);
CREATE INDEX events_at ON bulkhead_internal.events USING brin (at) WITH (pages_per_range = 16);

-- What a module may publish, from its manifest.
CREATE TABLE bulkhead_internal.event_topics (
  module text NOT NULL,
  topic  text NOT NULL,
  schema jsonb,                        -- of the payload; NULL: any
  PRIMARY KEY (module, topic)
);

-- How far a module has come. All that is visible in `done` is settled. While `reach` is there, of what is not visible in `done` and visible in
-- `reach` that is settled whose id is at most `position`. "Settled" is: acknowledged, in event_deliveries, or in event_dead_letters.
CREATE TABLE bulkhead_internal.event_subscriptions (
  module      text PRIMARY KEY,
  topics      text[] NOT NULL,
  done        pg_snapshot NOT NULL,
  reach       pg_snapshot,
  position    bigint NOT NULL DEFAULT 0,
  fence       bigint NOT NULL DEFAULT 0,   -- grows with every claim, and when somebody moves the place: who comes with an old one changes nothing
  node        text,
  lease_until timestamptz,
  created_at  timestamptz NOT NULL DEFAULT now(),
  delivered_at timestamptz
);

-- Events behind the place of their subscriber that are not acknowledged: failed ones that wait for their next attempt, those of the same key
-- behind them, and what was taken back from the dead letters.
CREATE TABLE bulkhead_internal.event_deliveries (
  module     text NOT NULL REFERENCES bulkhead_internal.event_subscriptions (module) ON DELETE CASCADE,
  event_id   bigint NOT NULL,
  attempt    integer NOT NULL DEFAULT 0,   -- that have failed
  losses     integer NOT NULL DEFAULT 0,   -- workers that died with it
  not_before timestamptz NOT NULL DEFAULT now(),
  error      text NOT NULL DEFAULT '',
  fresh      boolean NOT NULL DEFAULT false,  -- put here by somebody else than the node that delivers
  PRIMARY KEY (module, event_id)
);
CREATE INDEX event_deliveries_event ON bulkhead_internal.event_deliveries (event_id);
CREATE INDEX event_deliveries_fresh ON bulkhead_internal.event_deliveries (module) WHERE fresh;

-- With everything of the event, which may be gone from the outbox by then.
CREATE TABLE bulkhead_internal.event_dead_letters (
  id           bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  module       text NOT NULL,
  event_id     bigint NOT NULL,
  topic        text NOT NULL,
  key          text NOT NULL,
  payload      jsonb NOT NULL,
  source       text NOT NULL,
  published_at timestamptz NOT NULL,
  attempts     integer NOT NULL,
  error        text NOT NULL,
  died_at      timestamptz NOT NULL DEFAULT now(),
  UNIQUE (module, event_id)
);

-- What a module has done, written in the transaction that did it.
CREATE TABLE bulkhead_internal.event_inbox (
  module   text NOT NULL,
  event_id bigint NOT NULL,
  PRIMARY KEY (module, event_id)
);

-- Nodes that look for events now and then only: who publishes wakes them. All others look all the time, and a NOTIFY, which makes commits wait
-- for each other, is spared.
CREATE TABLE bulkhead_internal.event_sleepers (
  node  text PRIMARY KEY,
  since timestamptz NOT NULL DEFAULT now()
);

-- The first thing that `given` has against `schema`, NULL when nothing. Of JSON Schema what supervisor/manifest/README.md lists.
CREATE FUNCTION bulkhead_internal.schema_fault(schema jsonb, given jsonb, place text)
RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  kind text := jsonb_typeof(given);
  shown text := CASE WHEN place = '' THEN 'the payload' ELSE place END;
  number numeric;
  member record;
  fault text;
BEGIN
  IF jsonb_typeof(schema) = 'boolean' THEN
    RETURN CASE WHEN schema = 'false' THEN shown || ' must not be there' END;
  END IF;
  IF schema ? 'type' AND NOT EXISTS (
    SELECT FROM jsonb_array_elements_text(CASE jsonb_typeof(schema->'type') WHEN 'array' THEN schema->'type'
                                          ELSE jsonb_build_array(schema->'type') END) AS allowed
    WHERE allowed = kind OR (allowed = 'integer' AND kind = 'number' AND given::numeric = trunc(given::numeric))) THEN
    RETURN format('%s must be of type %s', shown, schema->'type');
  END IF;
  IF schema ? 'enum' AND NOT EXISTS (SELECT FROM jsonb_array_elements(schema->'enum') AS allowed WHERE allowed = given) THEN
    RETURN format('%s must be one of %s', shown, schema->'enum');
  END IF;
  IF schema ? 'const' AND schema->'const' <> given THEN
    RETURN format('%s must be %s', shown, schema->'const');
  END IF;
  IF kind = 'number' THEN
    number := given::numeric;
    IF number < (schema->>'minimum')::numeric THEN RETURN format('%s must be at least %s', shown, schema->>'minimum'); END IF;
    IF number > (schema->>'maximum')::numeric THEN RETURN format('%s must be at most %s', shown, schema->>'maximum'); END IF;
    IF number <= (schema->>'exclusiveMinimum')::numeric THEN RETURN format('%s must be above %s', shown, schema->>'exclusiveMinimum'); END IF;
    IF number >= (schema->>'exclusiveMaximum')::numeric THEN RETURN format('%s must be below %s', shown, schema->>'exclusiveMaximum'); END IF;
  ELSIF kind = 'string' THEN
    IF length(given #>> '{}') < (schema->>'minLength')::integer THEN
      RETURN format('%s must have at least %s characters', shown, schema->>'minLength');
    END IF;
    IF length(given #>> '{}') > (schema->>'maxLength')::integer THEN
      RETURN format('%s must have at most %s characters', shown, schema->>'maxLength');
    END IF;
  ELSIF kind = 'array' THEN
    IF jsonb_array_length(given) < (schema->>'minItems')::integer THEN
      RETURN format('%s must have at least %s items', shown, schema->>'minItems');
    END IF;
    IF jsonb_array_length(given) > (schema->>'maxItems')::integer THEN
      RETURN format('%s must have at most %s items', shown, schema->>'maxItems');
    END IF;
    IF schema ? 'items' THEN
      FOR member IN SELECT item, n FROM jsonb_array_elements(given) WITH ORDINALITY AS t(item, n) LOOP
        fault := bulkhead_internal.schema_fault(schema->'items', member.item, place || '/' || (member.n - 1));
        IF fault IS NOT NULL THEN RETURN fault; END IF;
      END LOOP;
    END IF;
  ELSIF kind = 'object' THEN
    IF schema ? 'required' THEN
      FOR member IN SELECT name FROM jsonb_array_elements_text(schema->'required') AS name LOOP
        IF NOT given ? member.name THEN RETURN format('%s must have "%s"', shown, member.name); END IF;
      END LOOP;
    END IF;
    IF schema ? 'properties' OR schema ? 'additionalProperties' THEN
      FOR member IN SELECT name, item FROM jsonb_each(given) AS t(name, item) LOOP
        IF schema->'properties' ? member.name THEN
          fault := bulkhead_internal.schema_fault(schema->'properties'->member.name, member.item, place || '/' || member.name);
        ELSIF schema ? 'additionalProperties' THEN
          fault := bulkhead_internal.schema_fault(schema->'additionalProperties', member.item, place || '/' || member.name);
        END IF;
        IF fault IS NOT NULL THEN RETURN fault; END IF;
      END LOOP;
    END IF;
  END IF;
  RETURN NULL;
END
$$;

-- One event of `source`, which is checked. Faults of what was given are class 22.
CREATE FUNCTION bulkhead_internal.append_event(source text, topic text, key text, payload jsonb)
RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
  -- Before the number is taken: what has a number then has a transaction that every later snapshot knows.
  own xid8 := pg_catalog.pg_current_xact_id();
  wanted jsonb;
  fault text;
  made bigint;
BEGIN
  SELECT t.schema INTO wanted FROM bulkhead_internal.event_topics t WHERE t.module = append_event.source AND t.topic = append_event.topic;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the manifest of % does not declare the event "%" under capabilities.events.publishes', source, pg_catalog.left(topic, 128)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF pg_catalog.octet_length(key) > 512 THEN
    RAISE EXCEPTION 'the key of an event has at most 512 bytes, not %', pg_catalog.octet_length(key) USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF pg_catalog.pg_column_size(payload) > 262144 THEN
    RAISE EXCEPTION 'the payload of an event has at most 262144 bytes, not %', pg_catalog.pg_column_size(payload)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF wanted IS NOT NULL THEN
    fault := bulkhead_internal.schema_fault(wanted, COALESCE(payload, 'null'), '');
    IF fault IS NOT NULL THEN
      RAISE EXCEPTION 'the payload of "%" is not what its schema wants: %', topic, fault USING ERRCODE = 'invalid_parameter_value';
    END IF;
  END IF;
  INSERT INTO bulkhead_internal.events (xid, topic, key, payload, source, at)
    VALUES (own, topic, COALESCE(key, ''), COALESCE(payload, 'null'), source, pg_catalog.clock_timestamp()) RETURNING id INTO made;
  IF EXISTS (SELECT FROM bulkhead_internal.event_sleepers) THEN
    PERFORM pg_catalog.pg_notify('bulkhead_events', '');
  END IF;
  RETURN made;
END
$$;

-- Many events at once, which costs a fifth each. One that is refused refuses all. The numbers are in the order of what was given.
CREATE FUNCTION bulkhead_internal.append_events(sources text[], topics text[], keys text[], payloads text[])
RETURNS SETOF bigint
LANGUAGE plpgsql
AS $$
DECLARE
  own xid8 := pg_catalog.pg_current_xact_id();  -- first, as above
BEGIN
  IF EXISTS (SELECT FROM ROWS FROM (pg_catalog.unnest(sources), pg_catalog.unnest(topics), pg_catalog.unnest(keys), pg_catalog.unnest(payloads))
        AS e(source, topic, key, payload)
             LEFT JOIN bulkhead_internal.event_topics t ON t.module = e.source AND t.topic = e.topic
             WHERE t.topic IS NULL OR t.schema IS NOT NULL OR pg_catalog.octet_length(e.key) > 512
                OR pg_catalog.octet_length(e.payload) > 131072) THEN  -- as jsonb it may be longer than as text
    RETURN QUERY SELECT bulkhead_internal.append_event(e.source, e.topic, e.key, e.payload::jsonb)
      FROM ROWS FROM (pg_catalog.unnest(sources), pg_catalog.unnest(topics), pg_catalog.unnest(keys), pg_catalog.unnest(payloads))
        AS e(source, topic, key, payload);
    RETURN;
  END IF;
  RETURN QUERY INSERT INTO bulkhead_internal.events (xid, topic, key, payload, source, at)
    SELECT own, e.topic, e.key, e.payload::jsonb, e.source, pg_catalog.clock_timestamp()
    FROM ROWS FROM (pg_catalog.unnest(sources), pg_catalog.unnest(topics), pg_catalog.unnest(keys), pg_catalog.unnest(payloads))
        AS e(source, topic, key, payload) RETURNING events.id;
  IF EXISTS (SELECT FROM bulkhead_internal.event_sleepers) THEN
    PERFORM pg_catalog.pg_notify('bulkhead_events', '');
  END IF;
END
$$;

-- Publishes an event of the calling module, with the transaction that it is called in. Its number.
CREATE FUNCTION bulkhead.publish(topic text, key text, payload jsonb)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  caller text := bulkhead_internal.calling_module();
BEGIN
  RETURN bulkhead_internal.append_event(caller, topic, key, payload);
END
$$;

-- Whether the calling module does this event for the first time. It is said with the transaction that it is called in: who rolls back has not
-- done it, and of two at once the second waits for the first.
CREATE FUNCTION bulkhead.once(event text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  caller text := bulkhead_internal.calling_module();
BEGIN
  INSERT INTO bulkhead_internal.event_inbox (module, event_id) VALUES (caller, event::bigint) ON CONFLICT DO NOTHING;
  RETURN FOUND;
END
$$;

-- Keeps topics and subscriptions as the manifest in force says. A subscription begins when its module is first enabled; from then on it stays,
-- with its place, whatever becomes of the module, until that is purged.
CREATE FUNCTION bulkhead_internal.follow_manifest_events() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  events jsonb;
  wanted text[];
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM bulkhead_internal.event_topics t WHERE t.module = OLD.name;
    RETURN NULL;
  END IF;
  BEGIN
    events := NEW.manifest->'capabilities'->'events';
  EXCEPTION WHEN data_exception THEN  -- a text with U+0000 somewhere
    RAISE WARNING 'the manifest of % can''t be searched for events', NEW.name;
  END;
  IF jsonb_typeof(events) IS DISTINCT FROM 'object' THEN events := '{}'; END IF;
  DELETE FROM bulkhead_internal.event_topics t WHERE t.module = NEW.name;
  INSERT INTO bulkhead_internal.event_topics (module, topic, schema)
    SELECT DISTINCT ON (topic) NEW.name, topic, events->'schemas'->topic
    FROM jsonb_array_elements_text(CASE WHEN jsonb_typeof(events->'publishes') = 'array' THEN events->'publishes' ELSE '[]' END) AS topic;
  wanted := ARRAY(SELECT DISTINCT t FROM jsonb_array_elements_text(
    CASE WHEN jsonb_typeof(events->'subscribes') = 'array' THEN events->'subscribes' ELSE '[]' END) AS t ORDER BY t);
  IF NEW.status IN ('ENABLED', 'UPDATING') AND cardinality(wanted) > 0 THEN
    INSERT INTO bulkhead_internal.event_subscriptions AS s (module, topics, done) VALUES (NEW.name, wanted, pg_current_snapshot())
      ON CONFLICT (module) DO UPDATE SET topics = excluded.topics, fence = s.fence + 1 WHERE s.topics <> excluded.topics;
  ELSE
    UPDATE bulkhead_internal.event_subscriptions s SET topics = wanted, fence = s.fence + 1 WHERE s.module = NEW.name AND s.topics <> wanted;
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER manifest_events AFTER INSERT OR DELETE OR UPDATE OF manifest, status ON bulkhead_internal.modules
  FOR EACH ROW EXECUTE FUNCTION bulkhead_internal.follow_manifest_events();
UPDATE bulkhead_internal.modules SET status = status;

REVOKE ALL ON FUNCTION bulkhead_internal.schema_fault(jsonb, jsonb, text), bulkhead_internal.append_event(text, text, text, jsonb),
  bulkhead_internal.append_events(text[], text[], text[], text[]), bulkhead_internal.follow_manifest_events(),
  bulkhead.publish(text, text, jsonb), bulkhead.once(text) FROM PUBLIC;
