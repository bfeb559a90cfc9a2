-- Version 1 of the schema. Names in braces are filled in with schema and prefix; {.name} is without the schema.
--
-- What a commit checks or changes and what is looked up by are columns; the rest of a record is in `record`.
-- All times are milliseconds since 1970 by this server's clock, all sizes are bytes.
-- Functions end in the version that made them, so that releases on different versions can run side by side.

CREATE SEQUENCE {sequence};

CREATE TABLE {uploads} (
  sequence     bigint  PRIMARY KEY,
  id           text    COLLATE "C" NOT NULL,
  version      bigint  NOT NULL,
  revision     bigint  NOT NULL,
  parts        bigint  NOT NULL,
  bytes        bigint  NOT NULL,
  state        text    COLLATE "C" NOT NULL,
  owner        text    COLLATE "C" NOT NULL,
  target       text    COLLATE "C",
  file_name    text    COLLATE "C" NOT NULL,
  named        boolean NOT NULL,
  key          text    COLLATE "C" NOT NULL,
  key_held     boolean NOT NULL,
  size         bigint,
  chunk_size   bigint,
  epoch        bigint  NOT NULL,
  hash_end     bigint,
  hash_state   text    COLLATE "C",
  attempts     bigint  NOT NULL,
  waits        boolean NOT NULL,
  expire_after bigint,
  created_at   bigint  NOT NULL,
  published_at bigint,
  expires_at   bigint,
  due_at       bigint,
  format       integer NOT NULL,
  record       json    NOT NULL
) WITH (fillfactor = 70);

-- The order of creation is the order in which a row's entries are checked: the same for all who write.
CREATE UNIQUE INDEX {.uploads_name} ON {uploads} (owner, coalesce(target, ''), file_name)
  WHERE named AND state IN ('open', 'assembling', 'assembled');
CREATE UNIQUE INDEX {.uploads_key} ON {uploads} (key) WHERE key_held;
CREATE UNIQUE INDEX {.uploads_id} ON {uploads} (id);
CREATE INDEX {.uploads_due} ON {uploads} (due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX {.uploads_owner} ON {uploads} (owner, created_at, sequence);

CREATE TABLE {parts} (
  upload  bigint NOT NULL,
  number  bigint NOT NULL,
  len     bigint NOT NULL,
  crc64   bigint NOT NULL,
  receipt text   COLLATE "C" NOT NULL,
  PRIMARY KEY (upload, number)
);

CREATE TABLE {usage} (
  owner   text     COLLATE "C" NOT NULL,
  slot    smallint NOT NULL,
  uploads bigint   NOT NULL,
  bytes   numeric  NOT NULL,
  PRIMARY KEY (owner, slot)
) WITH (fillfactor = 50);

COMMENT ON TABLE {uploads} IS 'Uploads, one row each; see the view "overview" for times that can be read. Changed by the functions beside it only.';
COMMENT ON COLUMN {uploads}.version IS 'Changes of the record; an update names the one it was made from';
COMMENT ON COLUMN {uploads}.revision IS 'Changes of the record and of the parts';
COMMENT ON COLUMN {uploads}.parts IS 'How many parts are committed';
COMMENT ON COLUMN {uploads}.bytes IS 'How many bytes are committed';
COMMENT ON COLUMN {uploads}.named IS 'Whether (owner, target, file name) names this upload alone while it is open, assembling or assembled';
COMMENT ON COLUMN {uploads}.key IS 'Where the finished blob lies in the blob store';
COMMENT ON COLUMN {uploads}.key_held IS 'Whether no other upload may have this key';
COMMENT ON COLUMN {uploads}.size IS 'Size of the whole file, once it is known';
COMMENT ON COLUMN {uploads}.chunk_size IS 'Size of every chunk but the last, once it is known';
COMMENT ON COLUMN {uploads}.epoch IS 'Who may write: a commit under another one is refused. 64 random bits, as a signed number';
COMMENT ON COLUMN {uploads}.hash_end IS 'How many bytes went into the running hash';
COMMENT ON COLUMN {uploads}.hash_state IS 'The running hash, base64';
COMMENT ON COLUMN {uploads}.attempts IS 'How often its assembly was tried';
COMMENT ON COLUMN {uploads}.waits IS 'Whether events are untold or other uploads are joined to it: then activity does not move due_at';
COMMENT ON COLUMN {uploads}.expire_after IS 'How long it lives without activity, in milliseconds';
COMMENT ON COLUMN {uploads}.published_at IS 'When its blob was published';
COMMENT ON COLUMN {uploads}.due_at IS 'When the driver looks at it next';
COMMENT ON COLUMN {uploads}.format IS 'Format of the column "record"';
COMMENT ON COLUMN {uploads}.record IS 'What no statement checks: the rest of the record';
COMMENT ON TABLE {parts} IS 'Committed parts; "upload" is the sequence of the upload';
COMMENT ON COLUMN {parts}.crc64 IS 'CRC-64/NVME, as a signed number; to_hex() shows it';
COMMENT ON COLUMN {parts}.receipt IS 'What the blob store needs back';
COMMENT ON TABLE {usage} IS 'Unfinished uploads and the bytes they reserve, by owner: the sum over its slots. Slots keep commits from waiting for one another';

CREATE VIEW {overview} AS
SELECT id, state, owner, target, file_name, key, parts, bytes, size, revision,
  to_timestamp(created_at / 1000.0) AS created,
  to_timestamp(published_at / 1000.0) AS published,
  to_timestamp(CASE WHEN expires_at < 253402300800000 THEN expires_at / 1000.0 WHEN expires_at IS NOT NULL THEN 'Infinity'::float8 END) AS expires,
  to_timestamp(CASE WHEN due_at < 253402300800000 THEN due_at / 1000.0 WHEN due_at IS NOT NULL THEN 'Infinity'::float8 END) AS due
FROM {uploads};

