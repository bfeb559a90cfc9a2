-- Version 1 of the schema, second part: what the store calls. One call is one statement, and so one transaction.

CREATE FUNCTION {now_v1}() RETURNS bigint LANGUAGE sql VOLATILE AS $body$
  SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$body$;

-- What each write begins with.
CREATE FUNCTION {begin_v1}() RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
  -- Each statement must see what was committed before it got its locks.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'transactions must be READ COMMITTED here' USING ERRCODE = 'TU001';
  END IF;
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
END
$body$;

CREATE FUNCTION {read_v1}() RETURNS void LANGUAGE plpgsql STABLE AS $body$
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'this server is a standby' USING ERRCODE = '25006';
  END IF;
END
$body$;

CREATE FUNCTION {stamp_v1}(u {uploads}, moment bigint, wake text, wait bigint)
RETURNS {uploads} LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN
  IF u.state = 'assembled' THEN
    u.published_at := coalesce(u.published_at, moment);
  END IF;
  CASE wake
    WHEN 'keep' THEN NULL;
    WHEN 'never' THEN u.due_at := NULL;
    WHEN 'after' THEN u.due_at := moment + wait;
    WHEN 'expiry' THEN
      u.expires_at := moment + u.expire_after;
      IF NOT u.waits OR u.due_at IS NULL THEN
        u.due_at := u.expires_at;
      END IF;
  END CASE;
  IF u.state <> 'open' THEN
    u.expires_at := NULL;
  ELSE
    u.expires_at := coalesce(u.expires_at, moment + u.expire_after);
    u.due_at := least(u.due_at, u.expires_at);
  END IF;
  RETURN u;
END
$body$;

CREATE FUNCTION {reserved_v1}(u {uploads}) RETURNS bigint LANGUAGE sql IMMUTABLE AS $body$
  SELECT CASE WHEN (u).state IN ('open', 'assembling') THEN greatest(coalesce((u).size, 0), (u).bytes) ELSE 0 END
$body$;

CREATE FUNCTION {unfinished_v1}(u {uploads}) RETURNS bigint LANGUAGE sql IMMUTABLE AS $body$
  SELECT CASE WHEN (u).state IN ('open', 'assembling') THEN 1 ELSE 0 END
$body$;

-- The bound that an owner would pass, if any. Who asks goes on alone among those of that owner who ask.
CREATE FUNCTION {over_v1}(who text, uploads_bound numeric, bytes_bound numeric, more_uploads bigint, more_bytes numeric)
RETURNS text LANGUAGE plpgsql VOLATILE AS $body$
DECLARE
  used_uploads numeric;
  used_bytes numeric;
BEGIN
  IF uploads_bound IS NULL AND bytes_bound IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM pg_advisory_xact_lock('{usage}'::regclass::oid::integer, hashtext(who));
  SELECT coalesce(sum(t.uploads), 0), coalesce(sum(t.bytes), 0) INTO used_uploads, used_bytes
    FROM {usage} t WHERE t.owner = who;
  IF used_uploads + more_uploads > uploads_bound THEN
    RETURN 'uploads';
  ELSIF least(used_bytes + more_bytes, 18446744073709551615) > bytes_bound THEN
    RETURN 'bytes';
  END IF;
  RETURN NULL;
END
$body$;

-- The last lock that any write takes.
CREATE FUNCTION {charge_v1}(who text, place bigint, more_uploads bigint, more_bytes numeric)
RETURNS void LANGUAGE plpgsql VOLATILE AS $body$
BEGIN
  IF more_uploads = 0 AND more_bytes = 0 THEN
    RETURN;
  END IF;
  INSERT INTO {usage} AS t (owner, slot, uploads, bytes) VALUES (who, place % 16, more_uploads, more_bytes)
    ON CONFLICT (owner, slot) DO UPDATE SET uploads = t.uploads + excluded.uploads, bytes = t.bytes + excluded.bytes;
  IF more_uploads < 0 OR more_bytes < 0 THEN
    DELETE FROM {usage} t WHERE t.owner = who AND t.slot = place % 16 AND t.uploads = 0 AND t.bytes = 0;
  END IF;
END
$body$;

CREATE FUNCTION {create_v1}(arg jsonb) RETURNS json LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' SET enable_seqscan = off AS $body$
DECLARE
  u {uploads} := jsonb_populate_record(NULL::{uploads}, arg -> 'upload');
  holder {uploads};
  newest bigint;
  bound text;
BEGIN
  PERFORM {begin_v1}();
  u.record := (arg -> 'upload' ->> 'record')::json;
  u.created_at := {now_v1}();
  u := {stamp_v1}(u, u.created_at, arg ->> 'wake', (arg ->> 'wait')::bigint);
  FOR round IN 1 .. 100 LOOP
    u.sequence := nextval('{sequence}');
    INSERT INTO {uploads} SELECT u.* ON CONFLICT DO NOTHING;
    EXIT WHEN FOUND;
    IF u.named AND u.state IN ('open', 'assembling', 'assembled') THEN
      SELECT * INTO holder FROM {uploads} t
        WHERE t.named AND t.state IN ('open', 'assembling', 'assembled')
          AND t.owner = u.owner AND coalesce(t.target, '') = coalesce(u.target, '') AND t.file_name = u.file_name;
      IF FOUND THEN
        RETURN json_build_object('answer', 'name', 'upload', to_json(holder));
      END IF;
    END IF;
    PERFORM 1 FROM {uploads} t WHERE t.id = u.id OR (u.key_held AND t.key_held AND t.key = u.key);
    IF FOUND THEN
      RETURN json_build_object('answer', 'key');
    END IF;
    PERFORM 1 FROM {uploads} t WHERE t.sequence = u.sequence;
    IF FOUND THEN
      -- The table came here without its sequence (logical replication, a dump of some tables). Nobody waits here who holds anything.
      PERFORM pg_advisory_xact_lock('{sequence}'::regclass::oid::integer, 0);
      SELECT max(t.sequence) INTO newest FROM {uploads} t;
      IF nextval('{sequence}') < newest THEN
        PERFORM setval('{sequence}', newest);
      END IF;
    END IF;
    -- Who was in the way is gone.
    IF round = 100 THEN
      RAISE EXCEPTION 'the upload was not created in % rounds', round USING ERRCODE = '40001';
    END IF;
  END LOOP;
  bound := {over_v1}(u.owner, (arg ->> 'quota_uploads')::numeric, (arg ->> 'quota_bytes')::numeric,
    {unfinished_v1}(u), {reserved_v1}(u));
  IF bound IS NOT NULL THEN
    DELETE FROM {uploads} t WHERE t.sequence = u.sequence;
    RETURN json_build_object('answer', 'quota', 'bound', bound);
  END IF;
  INSERT INTO {parts} (upload, number, len, crc64, receipt)
    SELECT u.sequence, p.number, p.len, p.crc64, p.receipt
    FROM jsonb_to_recordset(arg -> 'parts') AS p (number bigint, len bigint, crc64 bigint, receipt text);
  PERFORM {charge_v1}(u.owner, u.sequence, {unfinished_v1}(u), {reserved_v1}(u));
  RETURN json_build_object('answer', 'new', 'upload', to_json(u));
END
$body$;

CREATE FUNCTION {load_v1}(arg jsonb) RETURNS json LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $body$
DECLARE
  u {uploads};
BEGIN
  PERFORM {read_v1}();
  IF arg ->> 'id' IS NOT NULL THEN
    SELECT * INTO u FROM {uploads} t WHERE t.id = arg ->> 'id';
  ELSE
    SELECT * INTO u FROM {uploads} t
      WHERE t.named AND t.state IN ('open', 'assembling', 'assembled')
        AND t.owner = arg ->> 'owner' AND coalesce(t.target, '') = coalesce(arg ->> 'target', '')
        AND t.file_name = arg ->> 'file_name';
  END IF;
  IF NOT FOUND THEN
    RETURN json_build_object('answer', 'none');
  END IF;
  RETURN json_build_object('answer', 'upload', 'upload', to_json(u), 'parts', (
    SELECT coalesce(json_agg(json_build_object('number', p.number, 'len', p.len, 'crc64', p.crc64, 'receipt', p.receipt)), '[]')
    FROM (SELECT * FROM {parts} t
      WHERE t.upload = u.sequence AND t.number >= (arg ->> 'start')::bigint AND t.number < (arg ->> 'end')::bigint
      ORDER BY t.number) p));
END
$body$;

CREATE FUNCTION {commit_v1}(arg jsonb) RETURNS json LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' SET enable_seqscan = off AS $body$
DECLARE
  old {uploads};
  u {uploads};
  present {parts};
  pin bigint := (arg ->> 'pin')::bigint;
  whole bigint := (arg ->> 'size')::bigint;
  seal bigint := (arg ->> 'seal')::bigint;
  moment bigint;
  more numeric;
  bound text;
BEGIN
  PERFORM {begin_v1}();
  SELECT * INTO old FROM {uploads} t WHERE t.id = arg ->> 'id' FOR UPDATE;
  IF NOT FOUND THEN
    RETURN json_build_object('answer', 'unknown');
  END IF;
  IF old.state <> 'open' OR old.epoch <> (arg ->> 'epoch')::bigint
    OR coalesce(old.bytes <> (arg ->> 'end')::bigint, false) THEN
    RETURN json_build_object('answer', 'refused', 'upload', to_json(old));
  END IF;
  -- One look-up for each, however many there are already: LIMIT keeps it from becoming a join with all of them.
  SELECT found_part.* INTO present
    FROM jsonb_array_elements(arg -> 'parts') WITH ORDINALITY AS given (part, place)
    CROSS JOIN LATERAL (
      SELECT * FROM {parts} t
      WHERE t.upload = old.sequence AND t.number = (given.part ->> 'number')::bigint LIMIT 1
    ) AS found_part
    ORDER BY given.place LIMIT 1;
  IF FOUND THEN
    RETURN json_build_object('answer', 'present', 'part', to_json(present));
  END IF;
  IF old.chunk_size <> pin OR old.size <> whole THEN
    RETURN json_build_object('answer', 'refused', 'upload', to_json(old));
  END IF;

  u := old;
  u.chunk_size := coalesce(old.chunk_size, pin);
  u.size := coalesce(old.size, whole);
  IF arg ->> 'hash_end' IS NOT NULL THEN
    u.hash_end := (arg ->> 'hash_end')::bigint;
    u.hash_state := arg ->> 'hash_state';
  END IF;
  u.parts := old.parts + (arg ->> 'added_parts')::bigint;
  u.bytes := old.bytes + (arg ->> 'added_bytes')::bigint;
  u.revision := old.revision + 1;
  moment := {now_v1}();
  IF seal IS NOT NULL THEN
    u.state := 'assembling';
    u.attempts := 0;
    u := {stamp_v1}(u, moment, 'after', seal);
  ELSIF moment + old.expire_after - old.expires_at > old.expire_after / 16 THEN
    u := {stamp_v1}(u, moment, 'expiry', NULL);
  END IF;
  IF (u.chunk_size, u.size, u.hash_end, u.hash_state, u.state, u.attempts, u.expires_at, u.due_at)
    IS DISTINCT FROM
    (old.chunk_size, old.size, old.hash_end, old.hash_state, old.state, old.attempts, old.expires_at, old.due_at) THEN
    u.version := old.version + 1;
  END IF;

  more := {reserved_v1}(u) - {reserved_v1}(old);
  IF more > 0 THEN
    bound := {over_v1}(old.owner, NULL, (arg ->> 'quota_bytes')::numeric, 0, more);
    IF bound IS NOT NULL THEN
      RETURN json_build_object('answer', 'quota', 'bound', bound);
    END IF;
  END IF;
  INSERT INTO {parts} (upload, number, len, crc64, receipt)
    SELECT old.sequence, p.number, p.len, p.crc64, p.receipt
    FROM jsonb_to_recordset(arg -> 'parts') AS p (number bigint, len bigint, crc64 bigint, receipt text);
  UPDATE {uploads} t SET
    version = u.version, revision = u.revision, parts = u.parts, bytes = u.bytes, state = u.state, size = u.size,
    chunk_size = u.chunk_size, hash_end = u.hash_end, hash_state = u.hash_state, attempts = u.attempts,
    expires_at = u.expires_at, due_at = u.due_at
    WHERE t.sequence = old.sequence;
  PERFORM {charge_v1}(old.owner, old.sequence, 0, more);
  RETURN json_build_object('answer', 'done', 'parts', u.parts, 'bytes', u.bytes, 'revision', u.revision);
END
$body$;

CREATE FUNCTION {update_v1}(arg jsonb) RETURNS json LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' SET enable_seqscan = off AS $body$
DECLARE
  u {uploads} := jsonb_populate_record(NULL::{uploads}, arg -> 'upload');
  old {uploads};
  gone_parts bigint := 0;
  gone_bytes numeric := 0;
BEGIN
  PERFORM {begin_v1}();
  SELECT * INTO old FROM {uploads} t WHERE t.id = u.id FOR UPDATE;
  IF NOT FOUND OR old.version <> u.version THEN
    RETURN json_build_object('answer', 'stale');
  END IF;
  PERFORM 1 FROM {uploads} t WHERE t.sequence <> old.sequence AND u.named AND u.state IN ('open', 'assembling', 'assembled')
    AND t.named AND t.state IN ('open', 'assembling', 'assembled')
    AND t.owner = u.owner AND coalesce(t.target, '') = coalesce(u.target, '') AND t.file_name = u.file_name;
  IF FOUND THEN
    RETURN json_build_object('answer', 'key');
  END IF;
  PERFORM 1 FROM {uploads} t WHERE t.sequence <> old.sequence AND u.key_held AND t.key_held AND t.key = u.key;
  IF FOUND THEN
    RETURN json_build_object('answer', 'key');
  END IF;

  u.record := (arg -> 'upload' ->> 'record')::json;
  u.sequence := old.sequence;
  u.created_at := old.created_at;
  u.version := old.version + 1;
  u.revision := old.revision + 1;
  u := {stamp_v1}(u, {now_v1}(), arg ->> 'wake', (arg ->> 'wait')::bigint);
  IF (arg ->> 'clear')::boolean THEN
    DELETE FROM {parts} t WHERE t.upload = old.sequence;
    gone_parts := old.parts;
    gone_bytes := old.bytes;
  ELSIF arg -> 'remove' <> '[]'::jsonb THEN
    WITH gone AS (
      DELETE FROM {parts} t WHERE t.upload = old.sequence
        AND t.number = ANY (ARRAY(SELECT n::bigint FROM jsonb_array_elements_text(arg -> 'remove') AS n))
      RETURNING t.len
    )
    SELECT count(*), coalesce(sum(gone.len), 0) INTO gone_parts, gone_bytes FROM gone;
  END IF;
  u.parts := old.parts - gone_parts;
  u.bytes := old.bytes - gone_bytes;
  -- A name or key that was taken this very moment is error 23505, which undoes all.
  UPDATE {uploads} t SET
    version = u.version, revision = u.revision, parts = u.parts, bytes = u.bytes, state = u.state, owner = u.owner,
    target = u.target, file_name = u.file_name, named = u.named, key = u.key, key_held = u.key_held, size = u.size,
    chunk_size = u.chunk_size, epoch = u.epoch, hash_end = u.hash_end, hash_state = u.hash_state,
    attempts = u.attempts, waits = u.waits, expire_after = u.expire_after, published_at = u.published_at,
    expires_at = u.expires_at,
    due_at = u.due_at, format = u.format, record = u.record
    WHERE t.sequence = old.sequence;
  IF u.owner = old.owner THEN
    PERFORM {charge_v1}(u.owner, old.sequence,
      {unfinished_v1}(u) - {unfinished_v1}(old), {reserved_v1}(u) - {reserved_v1}(old));
  ELSIF u.owner > old.owner THEN
    PERFORM {charge_v1}(old.owner, old.sequence, -{unfinished_v1}(old), -{reserved_v1}(old));
    PERFORM {charge_v1}(u.owner, old.sequence, {unfinished_v1}(u), {reserved_v1}(u));
  ELSE
    PERFORM {charge_v1}(u.owner, old.sequence, {unfinished_v1}(u), {reserved_v1}(u));
    PERFORM {charge_v1}(old.owner, old.sequence, -{unfinished_v1}(old), -{reserved_v1}(old));
  END IF;
  RETURN json_build_object('answer', 'updated', 'upload', to_json(u));
END
$body$;

CREATE FUNCTION {due_v1}(arg jsonb) RETURNS json LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $body$
DECLARE
  moment bigint;
  answer json;
BEGIN
  PERFORM {begin_v1}();
  moment := {now_v1}();
  WITH come AS MATERIALIZED (
    SELECT t.sequence, t.due_at FROM {uploads} t WHERE t.due_at <= moment
    ORDER BY t.due_at, t.id LIMIT (arg ->> 'limit')::bigint FOR UPDATE SKIP LOCKED
  ), taken AS (
    UPDATE {uploads} t
    SET due_at = moment + (arg ->> 'lease')::bigint, version = t.version + 1, revision = t.revision + 1
    FROM come WHERE t.sequence = come.sequence
    RETURNING to_json(t) AS upload, come.due_at AS came, t.id
  )
  SELECT json_build_object('uploads', coalesce(json_agg(taken.upload ORDER BY taken.came, taken.id), '[]'))
    INTO answer FROM taken;
  RETURN answer;
END
$body$;

CREATE FUNCTION {list_v1}(arg jsonb) RETURNS json LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $body$
BEGIN
  PERFORM {read_v1}();
  IF arg ->> 'owner' IS NOT NULL THEN
    RETURN (
      SELECT json_build_object('uploads', coalesce(json_agg(to_json(page) ORDER BY page.created_at DESC, page.sequence DESC), '[]'))
      FROM (SELECT * FROM {uploads} t WHERE t.owner = arg ->> 'owner'
        ORDER BY t.created_at DESC, t.sequence DESC
        OFFSET (arg ->> 'skip')::bigint LIMIT (arg ->> 'limit')::bigint) page);
  END IF;
  RETURN (
    SELECT json_build_object('uploads', coalesce(json_agg(to_json(page) ORDER BY page.sequence DESC), '[]'))
    FROM (SELECT * FROM {uploads} t ORDER BY t.sequence DESC
      OFFSET (arg ->> 'skip')::bigint LIMIT (arg ->> 'limit')::bigint) page);
END
$body$;

CREATE FUNCTION {remove_v1}(arg jsonb) RETURNS json LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' SET enable_seqscan = off AS $body$
DECLARE
  old {uploads};
BEGIN
  PERFORM {begin_v1}();
  SELECT * INTO old FROM {uploads} t WHERE t.id = arg ->> 'id' FOR UPDATE;
  IF NOT FOUND OR old.version <> (arg ->> 'version')::bigint THEN
    RETURN json_build_object('removed', false);
  END IF;
  DELETE FROM {parts} t WHERE t.upload = old.sequence;
  DELETE FROM {uploads} t WHERE t.sequence = old.sequence;
  PERFORM {charge_v1}(old.owner, old.sequence, -{unfinished_v1}(old), -{reserved_v1}(old));
  RETURN json_build_object('removed', true);
END
$body$;
