-- Notifications that modules send to people and to other programs: each is a run of the module's queue, of the pseudo-module "bulkhead.notifications" (no
-- module can have a name with a dot) and a job for each channel, so it waits, is retried, cancelled and looked at as runs are. What it says is here and
-- not in the run's payload, which everybody sees who may look at runs.
CREATE TABLE bulkhead_internal.notifications (
  run_id  uuid PRIMARY KEY REFERENCES bulkhead_internal.runs (id) ON DELETE CASCADE,
  module  text NOT NULL,
  channel text NOT NULL,
  message jsonb NOT NULL,
  at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX notifications_of_module ON bulkhead_internal.notifications (module, at);

-- The channels that modules may use: kept by the row of the module itself, so never older or newer than it.
CREATE TABLE bulkhead_internal.module_channels (
  module  text NOT NULL REFERENCES bulkhead_internal.modules (name) ON UPDATE CASCADE ON DELETE CASCADE,
  channel text NOT NULL,
  PRIMARY KEY (module, channel)
);

CREATE FUNCTION bulkhead_internal.keep_module_channels() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  channels jsonb;
BEGIN
  BEGIN
    channels := NEW.manifest::jsonb->'capabilities'->'notifications';
  EXCEPTION WHEN data_exception THEN
    channels := NULL;  -- a manifest with a text that jsonb can't hold
  END;
  IF jsonb_typeof(channels) IS DISTINCT FROM 'array' THEN channels := '[]'; END IF;
  DELETE FROM bulkhead_internal.module_channels c WHERE c.module = NEW.name;
  INSERT INTO bulkhead_internal.module_channels (module, channel) SELECT DISTINCT NEW.name, t FROM jsonb_array_elements_text(channels) AS t;
  RETURN NULL;
END
$$;
CREATE TRIGGER keep_module_channels AFTER INSERT OR UPDATE OF manifest ON bulkhead_internal.modules FOR EACH ROW
  EXECUTE FUNCTION bulkhead_internal.keep_module_channels();

-- Queues a notification of the module `caller`; the id of its run. Not for modules: the supervisor's own and notify()'s. At most 262144 bytes as JSON, 100 a
-- minute of a module (of transactions that are open at once each counts its own and what is committed), 10000 waiting of a channel.
CREATE FUNCTION bulkhead_internal.queue_notification(caller text, channel text, message jsonb) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  wanted text := queue_notification.channel;
  said jsonb := coalesce(queue_notification.message, '{}');
  receivers jsonb;
  fault text;
  run uuid;
BEGIN
  IF NOT EXISTS (SELECT FROM bulkhead_internal.module_channels c WHERE c.module = caller AND c.channel = wanted) THEN
    RAISE EXCEPTION 'the manifest of "%" does not name the channel "%" in capabilities.notifications', caller, left(wanted, 80)
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  receivers := CASE jsonb_typeof(said->'to') WHEN 'string' THEN jsonb_build_array(said->'to') WHEN 'array' THEN said->'to' ELSE '[]' END;
  fault := CASE
    WHEN jsonb_typeof(said) <> 'object' THEN 'the message is no object'
    WHEN octet_length(said::text) > 262144 THEN 'the message has more than 262144 bytes as JSON'
    WHEN EXISTS (SELECT FROM jsonb_object_keys(said) k WHERE k NOT IN ('to', 'subject', 'text', 'html', 'data'))
      THEN 'the message has another field than to, subject, text, html and data'
    WHEN EXISTS (SELECT FROM jsonb_each(said) e WHERE e.key IN ('subject', 'text', 'html') AND jsonb_typeof(e.value) NOT IN ('string', 'null'))
      THEN 'subject, text and html are texts'
    WHEN (said->>'subject') ~ '[\x01-\x1f\x7f]' THEN 'the subject has a line break or another control character'
    WHEN octet_length(said->>'subject') > 998 THEN 'the subject has more than 998 bytes'
    WHEN wanted = 'smtp' AND jsonb_array_length(receivers) NOT BETWEEN 1 AND 50 THEN 'a mail goes to 1 to 50 addresses'
    WHEN wanted = 'smtp' AND EXISTS (SELECT FROM jsonb_array_elements(receivers) r WHERE jsonb_typeof(r) <> 'string' OR octet_length(r#>>'{}') > 254
           OR (r#>>'{}') !~ '^[A-Za-z0-9!#$%&''*+/=?^_`{|}~.-]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$')
      THEN 'an address is no plain name@host in ASCII'
    WHEN wanted = 'smtp' AND coalesce(said->>'text', '') = '' AND coalesce(said->>'html', '') = '' THEN 'a mail needs text or html'
    WHEN wanted = 'smtp' AND said ? 'data' AND jsonb_typeof(said->'data') <> 'null' THEN 'data is for webhooks'
    WHEN wanted <> 'smtp' AND said ? 'to' THEN 'to is for mails; a webhook goes where the operator has said'
  END;
  IF fault IS NOT NULL THEN
    RAISE EXCEPTION '%', fault USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF (SELECT count(*) FROM bulkhead_internal.notifications n WHERE n.module = caller AND n.at > clock_timestamp() - interval '1 minute') >= 100 THEN
    RAISE EXCEPTION 'the module has sent 100 notifications in the last minute; wait' USING ERRCODE = 'configuration_limit_exceeded';
  END IF;
  IF (SELECT count(*) FROM (SELECT FROM bulkhead_internal.runs r WHERE r.module = 'bulkhead.notifications' AND r.job = wanted AND r.status = 'QUEUED'
                            LIMIT 10000) AS w) >= 10000 THEN
    RAISE EXCEPTION '10000 notifications of the channel "%" are waiting already', wanted USING ERRCODE = 'configuration_limit_exceeded';
  END IF;
  INSERT INTO bulkhead_internal.runs (module, job, max_attempts, trigger, payload, queued_at, not_before)
    VALUES ('bulkhead.notifications', wanted, 200, 'enqueue', jsonb_strip_nulls(jsonb_build_object('module', caller, 'to', nullif(receivers, '[]'))),
            clock_timestamp(), clock_timestamp())
    RETURNING id INTO run;
  INSERT INTO bulkhead_internal.notifications (run_id, module, channel, message) VALUES (run, caller, wanted, said);
  PERFORM pg_notify('bulkhead_runs', '');
  RETURN run;
END
$$;

-- Sends a notification when the transaction that it is called in has been committed, and never when it is rolled back. The id of its run.
CREATE FUNCTION bulkhead.notify(channel text, message jsonb) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  caller text := bulkhead_internal.calling_module();
BEGIN
  RETURN bulkhead_internal.queue_notification(caller, notify.channel, notify.message);
END
$$;

REVOKE ALL ON FUNCTION bulkhead_internal.keep_module_channels(), bulkhead_internal.queue_notification(text, text, jsonb), bulkhead.notify(text, jsonb)
FROM PUBLIC;
