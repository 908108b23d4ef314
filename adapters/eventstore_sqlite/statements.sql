-- The statements of one log, each under its name. {namespace} is the log's name, {columns} what
-- records.py reads; what else stands in braces is put in for each query.
-- Tables are qualified, so that no temporary table hides one.

-- name: has_log
SELECT 1 FROM main.sqlite_master WHERE name = '{namespace}_log';

-- name: read_log
SELECT log_id, least_reader, least_writer FROM main.{namespace}_log;

-- name: lock
-- Takes the write lock in a transaction that began without it.
UPDATE main.{namespace}_log SET id = id WHERE 0;

-- name: head
-- The log's id, its highest sequence and when that was recorded. (The id with it: whoever asks how
-- far a log goes must know which log it is.)
SELECT l.log_id, e.sequence, e.recorded_at FROM main.{namespace}_log l
LEFT JOIN main.{namespace}_events e
    ON e.sequence = (SELECT max(sequence) FROM main.{namespace}_events);

-- name: chains
-- Where the chains of some entities begin and end, and their versions.
WITH k(entity_type, entity_id, tenant_id) AS (VALUES {rows})
SELECT n.entity_type, n.entity_id, n.tenant_id, n.first_sequence, n.last_sequence, n.version
FROM k CROSS JOIN main.{namespace}_entities n
    ON n.entity_id = k.entity_id AND n.entity_type = k.entity_type AND n.tenant_id = k.tenant_id;

-- name: insert_events
-- OR FAIL: what went wrong is undone by who began; undoing it here would take SQLite a journal for
-- every statement.
INSERT OR FAIL INTO main.{namespace}_events VALUES {rows};

-- name: insert_entities
INSERT OR FAIL INTO main.{namespace}_entities VALUES {rows};

-- name: insert_tags
INSERT OR FAIL INTO main.{namespace}_tags VALUES {rows};

-- name: insert_segment
INSERT OR IGNORE INTO main.{namespace}_segments VALUES (?);

-- name: update_entity
UPDATE main.{namespace}_entities SET version = ?, last_sequence = ? WHERE first_sequence = ?;

-- name: find
-- The events of some tenants and ids.
WITH k(tenant_id, event_id) AS (VALUES {rows})
SELECT {columns} FROM k CROSS JOIN main.{namespace}_events e
    ON e.event_id = k.event_id AND e.tenant_id = k.tenant_id;

-- name: list_entities
-- Entities, newest first.
SELECT e.entity_type, e.entity_id, e.tenant_id FROM main.{namespace}_entities e
WHERE {where} ORDER BY e.first_sequence DESC LIMIT ? OFFSET ?;

-- name: along_chain
-- A term that follows an entity's chain backwards. It begins at the first milestone (one in 256
-- events is one) that has a version and a sequence from those given on, or so many milestones
-- further on; where there is none, at the chain's end.
e.sequence IN (
    WITH RECURSIVE chain(sequence, version) AS (
        SELECT coalesce(m.sequence, n.last_sequence), coalesce(m.version, n.version)
        FROM main.{namespace}_entities n LEFT JOIN main.{namespace}_events m ON m.sequence = (
            SELECT x.sequence FROM main.{namespace}_events x
            WHERE x.entity_id = n.entity_id AND x.entity_type = n.entity_type
                AND x.tenant_id = n.tenant_id AND x.version % 256 = 0
                AND x.version >= ? AND +x.sequence > ?
            ORDER BY x.version LIMIT 1 OFFSET ?)
        WHERE {entity}
        UNION ALL
        SELECT p.previous, chain.version - 1
        FROM chain CROSS JOIN main.{namespace}_events p ON p.sequence = chain.sequence
        WHERE p.previous > ? AND chain.version - 1 > ?
        LIMIT ?)
    SELECT sequence FROM chain);

-- name: along_tag
-- A source of events: the index over tags, one segment after the other.
main.{namespace}_segments s CROSS JOIN main.{namespace}_tags t ON t.segment = s.segment
CROSS JOIN main.{namespace}_events e ON e.sequence = t.sequence;

-- name: has_tag
-- A term: the event has a tag.
EXISTS (
    SELECT 1 FROM main.{namespace}_tags x
    WHERE x.segment = e.sequence >> 14 AND x.tag = {tag} AND x.sequence = e.sequence);
