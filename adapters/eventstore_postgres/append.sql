-- Appending: one call, one round trip. ("eventstore" stands for the namespace.)
--
--   lock_log       waits for the log's write lock, which the transaction then holds to its end
--                  (called by the others alone)
--   log_state      locks, and returns what a commit is judged by
--   append_one     appends one event
--   append_many    appends events of one or several batches
--
-- VOLATILE, and lock and reads are statements of their own: under READ COMMITTED each statement
-- sees what was committed before it began, so the head is read after the lock is there.
-- append_one and append_many write only where nothing stands against it; else they return NULLs,
-- and the client's planner judges in a transaction of its own. They run with their caller's
-- rights: SELECT on both tables and INSERT into events. SET search_path: so that nobody's path
-- decides which operators are meant.

-- Returns whether the lock is held, waiting at most _patience milliseconds. Its key is the
-- table's oid: it follows the table wherever it is renamed to.
CREATE FUNCTION "eventstore".lock_log(_patience bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _key CONSTANT bigint := (1702260588::bigint << 32) | '"eventstore".events'::regclass::oid::bigint;
    _lock_timeout text;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        -- Its snapshot may be older than the lock: it would read an old head.
        RAISE EXCEPTION 'an append needs READ COMMITTED, not %',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'serialization_failure';
    END IF;
    IF pg_try_advisory_xact_lock(_key) THEN
        RETURN true;
    END IF;
    _lock_timeout := current_setting('lock_timeout');
    BEGIN
        PERFORM set_config('lock_timeout', _patience::text, true);
        PERFORM pg_advisory_xact_lock(_key);
        PERFORM set_config('lock_timeout', _lock_timeout, true);
        RETURN true;
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
END $$;

-- head: 0 for an empty log, NULL where the lock was not had in time. versions: of the entities
-- given as three arrays, in their order. known: whether any of the ids is recorded.
CREATE FUNCTION "eventstore".log_state(
    _patience bigint, _notify boolean,
    _event_ids uuid[], _tenants text[],
    _entity_types text[], _entity_ids text[], _entity_tenants text[],
    OUT head bigint, OUT last_recorded_at timestamptz, OUT now timestamptz,
    OUT versions bigint[], OUT known boolean
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT "eventstore".lock_log(_patience) THEN
        RETURN;
    END IF;
    SELECT e.sequence, e.recorded_at INTO head, last_recorded_at
        FROM "eventstore".events e ORDER BY e.sequence DESC LIMIT 1;
    head := coalesce(head, 0);
    now := clock_timestamp();
    known := EXISTS (
        SELECT FROM unnest(_event_ids, _tenants) AS k (event_id, tenant_id)
        CROSS JOIN LATERAL (
            SELECT FROM "eventstore".events e
            WHERE e.event_id = k.event_id AND e.tenant_id || '' = k.tenant_id
            OFFSET 0
        ) twin
    );
    versions := ARRAY (
        SELECT coalesce((
            SELECT e.version FROM "eventstore".events e
            WHERE e.entity_id = k.entity_id AND e.entity_type = k.entity_type
                AND e.tenant_id = k.tenant_id
            ORDER BY e.version DESC LIMIT 1
        ), 0)
        FROM unnest(_entity_types, _entity_ids, _entity_tenants) WITH ORDINALITY
            AS k (entity_type, entity_id, tenant_id, position)
        ORDER BY k.position
    );
    IF _notify THEN
        PERFORM pg_notify('eventstore_' || '"eventstore".events'::regclass::oid, '');
    END IF;
END $$;

-- _expected: the entity's version, -2 for any but 0, NULL for any. _unmoved: the head up to
-- which a condition was checked, or NULL. first: the sequence assigned, 0 where the lock was not had.
CREATE FUNCTION "eventstore".append_one(
    _patience bigint, _notify boolean, _expected bigint, _unmoved bigint,
    _event_id uuid, _tenant_id text, _entity_type text, _entity_id text, _event_type text,
    _workflow_id text, _tags text[], _data json, _metadata json, _schema_version integer,
    _timestamp timestamptz,
    OUT first bigint, OUT assigned_version bigint, OUT assigned_at timestamptz
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    _head bigint;
    _known boolean;
BEGIN
    IF NOT "eventstore".lock_log(_patience) THEN
        first := 0;
        RETURN;
    END IF;
    SELECT coalesce(h.sequence, 0), h.recorded_at, coalesce((
            SELECT e.version FROM "eventstore".events e
            WHERE e.entity_id = _entity_id AND e.entity_type = _entity_type
                AND e.tenant_id = _tenant_id
            ORDER BY e.version DESC LIMIT 1
        ), 0), EXISTS (
            SELECT FROM "eventstore".events e
            WHERE e.event_id = _event_id AND e.tenant_id || '' = _tenant_id
        )
        INTO _head, assigned_at, assigned_version, _known
        FROM (SELECT) AS always LEFT JOIN LATERAL (
            SELECT e.sequence, e.recorded_at
            FROM "eventstore".events e ORDER BY e.sequence DESC LIMIT 1
        ) h ON true;
    IF _known OR _head <> _unmoved
        OR assigned_version <> _expected AND (_expected <> -2 OR assigned_version = 0)
    THEN
        RETURN;
    END IF;
    first := _head + 1;
    assigned_version := assigned_version + 1;
    -- The log's time stands still where the clock was set back.
    assigned_at := greatest(assigned_at, clock_timestamp());
    INSERT INTO "eventstore".events VALUES (
        first, assigned_version, first, assigned_at, _event_id, _tenant_id, _entity_type,
        _entity_id, _event_type, _workflow_id, _tags, _data, _metadata, _schema_version,
        _timestamp
    );
    IF _notify THEN
        PERFORM pg_notify('eventstore_' || '"eventstore".events'::regclass::oid, '');
    END IF;
END $$;

-- Arrays of one element an event, in order; but _entity_*, _expected: one an entity. _tags are
-- array literals, _entity the place of an event's entity in those, _nth its place among the
-- events of that entity here, _batch the place of its batch's first event, all from 1. _at: when
-- it is recorded, NULL for now.
CREATE FUNCTION "eventstore".append_many(
    _patience bigint, _notify boolean, _unmoved bigint, _at timestamptz,
    _entity_types text[], _entity_ids text[], _entity_tenants text[], _expected bigint[],
    _event_ids uuid[], _tenants text[], _event_types text[], _workflow_ids text[],
    _tags text[], _data json[], _metadata json[], _schema_versions integer[],
    _timestamps timestamptz[], _entity bigint[], _nth bigint[], _batch bigint[],
    OUT first bigint, OUT base_versions bigint[], OUT assigned_at timestamptz
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    _log record;
BEGIN
    _log := "eventstore".log_state(
        _patience, _notify, '{}', '{}', _entity_types, _entity_ids, _entity_tenants
    );
    IF _log.head IS NULL THEN
        first := 0;
        RETURN;
    END IF;
    IF _log.head <> _unmoved OR EXISTS (
        SELECT FROM unnest(_expected, _log.versions) AS k (expected, actual)
        WHERE k.actual <> k.expected AND (k.expected <> -2 OR k.actual = 0)
    ) THEN
        RETURN;
    END IF;
    first := _log.head + 1;
    base_versions := _log.versions;
    assigned_at := greatest(_log.last_recorded_at, coalesce(_at, _log.now));
    -- Cheaper than to look up every id before.
    INSERT INTO "eventstore".events
        SELECT _log.head + k.position, base_versions[k.entity] + k.nth, _log.head + k.batch,
            assigned_at, k.event_id, k.tenant_id, _entity_types[k.entity], _entity_ids[k.entity],
            k.event_type, k.workflow_id, k.tags::text[], k.data, k.metadata, k.schema_version,
            k.timestamp
        FROM unnest(
            _event_ids, _tenants, _event_types, _workflow_ids, _tags, _data, _metadata,
            _schema_versions, _timestamps, _entity, _nth, _batch
        ) WITH ORDINALITY AS k (
            event_id, tenant_id, event_type, workflow_id, tags, data, metadata,
            schema_version, "timestamp", entity, nth, batch, position
        );
EXCEPTION WHEN unique_violation THEN
    -- An id is recorded already. The lock is given back with the rest.
    first := NULL;
END $$;
