-- What the store asks and tells the server, by name. "eventstore" stands for the namespace, $columns
-- for the columns of an event (records.py), $where for an EventQuery's terms. Every name is
-- qualified, operators and types too: selecting.py says why.

-- name: page
SELECT $columns FROM "eventstore".events WHERE $where ORDER BY $order LIMIT %b OFFSET %b

-- name: count
SELECT pg_catalog.count(*) FROM "eventstore".events WHERE $where

-- name: version
SELECT coalesce(pg_catalog.max(version), 0) FROM "eventstore".events WHERE $where

-- name: first_match
SELECT coalesce(pg_catalog.min(sequence), 0) FROM "eventstore".events WHERE $where

-- name: entities
SELECT entity_type, entity_id, tenant_id FROM "eventstore".events
WHERE version OPERATOR(pg_catalog.=) 1 AND $where ORDER BY sequence DESC LIMIT %b OFFSET %b

-- No row: the log is another than was opened.
-- name: head
SELECT coalesce((SELECT pg_catalog.max(sequence) FROM "eventstore".events), 0)
FROM "eventstore".log WHERE log_id OPERATOR(pg_catalog.=) %b

-- By two arrays, of ids and of their tenants. (tenant_id || '' and OFFSET 0: see append.sql.)
-- name: find
SELECT e.* FROM ROWS FROM (
    pg_catalog.unnest(%b::pg_catalog.uuid[]), pg_catalog.unnest(%b::pg_catalog.text[])
) AS k (event_id, tenant_id)
CROSS JOIN LATERAL (
    SELECT $columns FROM "eventstore".events e
    WHERE e.event_id OPERATOR(pg_catalog.=) k.event_id
        AND (e.tenant_id OPERATOR(pg_catalog.||) '') OPERATOR(pg_catalog.=) k.tenant_id
    OFFSET 0
) e

-- The next three call the functions of append.sql. No row, and no call: the log is another than was
-- opened, or $witness is not met. That the table is read also keeps it from being dropped until
-- the transaction ends. (OFFSET 0: else the function ran once a column.) The types say which
-- function is meant, so that none that fits less well ever is.

-- name: append_one
SELECT (made.answer).* FROM (
    SELECT "eventstore".append_one(
        %b::pg_catalog.int8, %b::pg_catalog.bool, %b::pg_catalog.int8, %b::pg_catalog.int8,
        %b::pg_catalog.uuid, %b::pg_catalog.text, %b::pg_catalog.text, %b::pg_catalog.text,
        %b::pg_catalog.text, %b::pg_catalog.text, %b::pg_catalog.text[], %b::pg_catalog.json,
        %b::pg_catalog.json, %b::pg_catalog.int4, %b::pg_catalog.timestamptz
    ) AS answer
    FROM "eventstore".log WHERE log_id OPERATOR(pg_catalog.=) %b $witness OFFSET 0
) made

-- name: append_many
SELECT (made.answer).* FROM (
    SELECT "eventstore".append_many(
        %b::pg_catalog.int8, %b::pg_catalog.bool, %b::pg_catalog.int8, %b::pg_catalog.timestamptz,
        %b::pg_catalog.text[], %b::pg_catalog.text[], %b::pg_catalog.text[], %b::pg_catalog.int8[],
        %b::pg_catalog.uuid[], %b::pg_catalog.text[], %b::pg_catalog.text[], %b::pg_catalog.text[],
        %b::pg_catalog.text[], %b::pg_catalog.json[], %b::pg_catalog.json[], %b::pg_catalog.int4[],
        %b::pg_catalog.timestamptz[], %b::pg_catalog.int8[], %b::pg_catalog.int8[],
        %b::pg_catalog.int8[]
    ) AS answer
    FROM "eventstore".log WHERE log_id OPERATOR(pg_catalog.=) %b $witness OFFSET 0
) made

-- name: log_state
SELECT (made.answer).* FROM (
    SELECT "eventstore".log_state(
        %b::pg_catalog.int8, %b::pg_catalog.bool, %b::pg_catalog.uuid[], %b::pg_catalog.text[],
        %b::pg_catalog.text[], %b::pg_catalog.text[], %b::pg_catalog.text[]
    ) AS answer
    FROM "eventstore".log WHERE log_id OPERATOR(pg_catalog.=) %b OFFSET 0
) made

-- Whether an event stands where it stood: a condition's.
-- name: witness
AND EXISTS (
    SELECT FROM "eventstore".events e
    WHERE e.sequence OPERATOR(pg_catalog.=) %b AND e.event_id OPERATOR(pg_catalog.=) %b
        AND e.tenant_id OPERATOR(pg_catalog.=) %b
)

-- The sessions that hold the log's lock, or whether this one does. Its key (see append.sql) has
-- 1702260588 in its upper half and the table's oid in its lower.
-- name: holders
SELECT l.pid::pg_catalog.text, coalesce(a.usename::pg_catalog.text, '?'),
    coalesce(a.application_name, ''), coalesce(a.state, '?')
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) l.pid
WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted
    AND l.objsubid OPERATOR(pg_catalog.=) 1::pg_catalog.int2
    AND l.classid OPERATOR(pg_catalog.=) 1702260588::pg_catalog.oid
    AND l.objid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('"eventstore".events')
    AND l.pid OPERATOR(pg_catalog.$compared) pg_catalog.pg_backend_pid()

-- What tells this log's table from all others, on all servers.
-- name: place
SELECT pg_catalog.current_database()::pg_catalog.text,
    pg_catalog.pg_postmaster_start_time(),
    pg_catalog.to_regclass('"eventstore".events')::pg_catalog.oid::pg_catalog.int8

-- name: transaction
SELECT pg_catalog.current_setting('transaction_isolation'),
    pg_catalog.current_setting('synchronous_commit'),
    pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''

-- name: risks
SELECT pg_catalog.current_setting('fsync'), relpersistence::pg_catalog.text
FROM pg_catalog.pg_class
WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('"eventstore".events')

-- name: info
SELECT pg_catalog.current_setting('server_version'),
    pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('fsync'),
    pg_catalog.pg_total_relation_size(pg_catalog.to_regclass('"eventstore".events'))

-- As a log is opened, by a session whose search path is settled.

-- name: tables
SELECT c.relname::text, array_agg(a.attname::text)
FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = to_regnamespace('"eventstore"') AND c.relname IN ('log', 'events')
GROUP BY c.oid, c.relname

-- name: functions
SELECT p.proname::text FROM pg_proc p WHERE p.pronamespace = to_regnamespace('"eventstore"')

-- name: log
SELECT log_id::text, least_reader, least_writer FROM "eventstore".log
