-- One log in an SQLite database. {namespace} is its name; many logs may share a file.
--
--   {namespace}_log       one row: who this log is, and which versions of this package it suits
--   {namespace}_events    the events; the sequence is the rowid, so new ones go to the end
--   {namespace}_entities  one row per entity: where its chain of events ends
--   {namespace}_tags      which events carry a tag, in segments of the log
--   {namespace}_segments  the numbers of those segments
--
-- What an append costs must not grow with the log, so nothing here makes it write to pages all
-- over the file, as an index over entities or tags would (docs/sqlite.md has figures):
--
--   An entity's events are a chain: each points to the one before. Every 256th is indexed, so that
--   a page in the middle of a long chain is found without walking all of it.
--
--   Tags are indexed in segments of 16,384 events, so new entries go to the newest segment's
--   pages. A query for a tag looks into one segment after the other.
--
-- Times are microseconds since 1970-01-01 UTC; to read them:
--   SELECT sequence, datetime(timestamp / 1000000, 'unixepoch'), event_type, data FROM …_events;

CREATE TABLE {namespace}_log (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    log_id       TEXT NOT NULL,     -- random, made with the log
    least_reader INTEGER NOT NULL,  -- the least format that may read it
    least_writer INTEGER NOT NULL   -- the least format that may append to it
);

CREATE TABLE {namespace}_events (
    sequence       INTEGER PRIMARY KEY,
    previous       INTEGER NOT NULL,  -- the sequence of its entity's event before; 0: none
    batch_sequence INTEGER NOT NULL,  -- the sequence of the first event of its batch
    event_id       BLOB NOT NULL,     -- 16 bytes
    tenant_id      TEXT NOT NULL,     -- empty: none
    entity_type    TEXT NOT NULL,
    entity_id      TEXT NOT NULL,
    version        INTEGER NOT NULL,
    event_type     TEXT NOT NULL,
    workflow_id    TEXT,
    schema_version INTEGER NOT NULL,
    timestamp      INTEGER NOT NULL,
    recorded_at    INTEGER NOT NULL,
    tags           TEXT NOT NULL,     -- a JSON array, as given
    data           TEXT NOT NULL,     -- a JSON object, verbatim
    metadata       TEXT NOT NULL      -- a JSON object, verbatim
);

CREATE TABLE {namespace}_entities (
    first_sequence INTEGER PRIMARY KEY,
    entity_id      TEXT NOT NULL,
    entity_type    TEXT NOT NULL,
    tenant_id      TEXT NOT NULL,
    version        INTEGER NOT NULL,  -- of its last event
    last_sequence  INTEGER NOT NULL
);

CREATE TABLE {namespace}_tags (
    segment  INTEGER NOT NULL,  -- sequence >> 14
    tag      TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (segment, tag, sequence)
) WITHOUT ROWID;

CREATE TABLE {namespace}_segments (
    segment INTEGER PRIMARY KEY
);

-- Every index ends with the sequence, so equal keys come in the order of the log.
CREATE UNIQUE INDEX {namespace}_by_event_id ON {namespace}_events (event_id, tenant_id);
CREATE INDEX {namespace}_by_event_type ON {namespace}_events (event_type);
CREATE INDEX {namespace}_by_entity_type ON {namespace}_events (entity_type);
CREATE INDEX {namespace}_by_timestamp ON {namespace}_events (timestamp);
CREATE INDEX {namespace}_by_workflow ON {namespace}_events (workflow_id)
    WHERE workflow_id IS NOT NULL;
CREATE INDEX {namespace}_by_tenant ON {namespace}_events (tenant_id) WHERE tenant_id <> '';
CREATE INDEX {namespace}_by_milestone
    ON {namespace}_events (entity_id, entity_type, tenant_id, version) WHERE version % 256 = 0;
CREATE UNIQUE INDEX {namespace}_by_entity
    ON {namespace}_entities (entity_id, entity_type, tenant_id);
CREATE INDEX {namespace}_by_type_of_entity ON {namespace}_entities (entity_type);
CREATE INDEX {namespace}_by_tenant_of_entity ON {namespace}_entities (tenant_id)
    WHERE tenant_id <> '';

-- What is recorded stays as it is.
CREATE TRIGGER {namespace}_events_no_update BEFORE UPDATE ON {namespace}_events
    BEGIN SELECT RAISE(ABORT, 'recorded events are never changed'); END;
CREATE TRIGGER {namespace}_events_no_delete BEFORE DELETE ON {namespace}_events
    BEGIN SELECT RAISE(ABORT, 'recorded events are never deleted'); END;
CREATE TRIGGER {namespace}_tags_no_update BEFORE UPDATE ON {namespace}_tags
    BEGIN SELECT RAISE(ABORT, 'recorded events are never changed'); END;
CREATE TRIGGER {namespace}_tags_no_delete BEFORE DELETE ON {namespace}_tags
    BEGIN SELECT RAISE(ABORT, 'recorded events are never deleted'); END;

-- Format 1, for readers and writers.
INSERT INTO {namespace}_log VALUES (1, lower(hex(randomblob(16))), 1, 1);
