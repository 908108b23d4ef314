-- One log: a schema with two tables. ("eventstore" stands for the namespace.)
--
--   log      its identity, and the formats that programs must understand
--   events   one row an event; only ever inserted into
--
-- Every index below serves a field of EventQuery. "cost" is its part of the server's CPU time for a
-- commit of 1,000 events on PostgreSQL 18: what was saved without it (docs/postgresql.md).

CREATE SCHEMA IF NOT EXISTS "eventstore";

CREATE TABLE "eventstore".log (
    -- One row: the primary key takes one value alone.
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    log_id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- A program of format n may read where least_reader <= n, and write where least_writer <= n.
    least_reader integer NOT NULL,
    least_writer integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

INSERT INTO "eventstore".log (least_reader, least_writer) VALUES (1, 1);

CREATE TABLE "eventstore".events (
    -- 1, 2, 3 … without a gap: assigned under the log's lock, not by a database sequence, which
    -- would hand out numbers in another order than commits become visible in.
    sequence bigint NOT NULL,
    version bigint NOT NULL,
    batch_sequence bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    event_id uuid NOT NULL,
    -- COLLATE "C": names compare and sort by their bytes, whatever the database's locale.
    tenant_id text COLLATE "C" NOT NULL,
    entity_type text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C",
    tags text[] COLLATE "C" NOT NULL,
    -- json, not jsonb: kept as it was written; jsonb turns 1e22 into an integer and refuses NUL.
    data json NOT NULL,
    metadata json NOT NULL,
    schema_version integer NOT NULL,
    "timestamp" timestamptz NOT NULL,

    -- from_sequence, to_sequence, the head, iteration
    CONSTRAINT events_sequence PRIMARY KEY (sequence),
    -- get_event_by_id, repeats. cost: 5 % (ids that grow with time, such as UUIDv7)
    CONSTRAINT events_id UNIQUE (event_id, tenant_id),
    -- entity_id, one entity in order, its version
    CONSTRAINT events_version UNIQUE (entity_id, entity_type, tenant_id, version)
);

-- entity_type. cost: 5 %
CREATE INDEX events_entity_type ON "eventstore".events (entity_type, sequence);
-- event_types. cost: 10 %
CREATE INDEX events_event_type ON "eventstore".events (event_type, sequence);
-- tenant_id. cost: 5 %
CREATE INDEX events_tenant ON "eventstore".events (tenant_id, sequence);
-- from_timestamp, to_timestamp, order_by="timestamp". cost: 7 %
CREATE INDEX events_timestamp ON "eventstore".events ("timestamp", sequence);
-- workflow_id. cost: 7 % for events that have one, else nothing
CREATE INDEX events_workflow ON "eventstore".events (workflow_id, sequence)
    WHERE workflow_id IS NOT NULL;
-- tags. cost: 5 % for events with two, else nothing
CREATE INDEX events_tags ON "eventstore".events USING gin (tags) WHERE tags <> '{}';
-- list_entities. cost: 5 % where every fifth event is an entity's first
CREATE INDEX events_first ON "eventstore".events (sequence) WHERE version = 1;

-- What is recorded stays: refused to the owner and to superusers too, until one drops the trigger.

CREATE FUNCTION "eventstore".refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of %.% is refused: a log is only appended to',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON "eventstore".events
    FOR EACH STATEMENT EXECUTE FUNCTION "eventstore".refuse_change();

-- Also where session_replication_role would silence an ordinary trigger.
ALTER TABLE "eventstore".events ENABLE ALWAYS TRIGGER append_only;
