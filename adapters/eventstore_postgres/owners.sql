-- What of a log (its schema, tables, functions, and the functions that its triggers run) belongs to
-- a role that this one has no reason to trust: neither itself, nor one that it is a member of, nor
-- the database's owner, a superuser, or the one named. ("eventstore" stands for the namespace.)
-- Parameters: the functions' names; the owner named, or NULL.

WITH RECURSIVE mine (role) AS (
    SELECT r.oid FROM pg_roles r WHERE r.rolname IN (current_user, session_user)
    UNION
    -- Not by pg_has_role: a superuser is called a member of every role there.
    SELECT m.roleid FROM pg_auth_members m JOIN mine ON m.member = mine.role
), trusted (role) AS (
    SELECT role FROM mine
    UNION SELECT d.datdba FROM pg_database d WHERE d.datname = current_database()
    UNION SELECT r.oid FROM pg_roles r
        WHERE r.rolsuper OR r.rolname IN ('pg_database_owner', %(owner)s::text)
), owned (what, owner) AS (
    SELECT 'schema', n.nspowner FROM pg_namespace n WHERE n.oid = to_regnamespace('"eventstore"')
    UNION ALL
    SELECT 'table ' || c.relname, c.relowner FROM pg_class c
    WHERE c.relnamespace = to_regnamespace('"eventstore"') AND c.relname IN ('log', 'events')
    UNION ALL
    SELECT 'function ' || p.proname, p.proowner FROM pg_proc p
    WHERE p.pronamespace = to_regnamespace('"eventstore"') AND p.proname = ANY (%(functions)s)
    UNION ALL
    SELECT 'trigger ' || t.tgname, p.proowner
    FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal
        AND t.tgrelid IN (to_regclass('"eventstore".log'), to_regclass('"eventstore".events'))
)
SELECT DISTINCT o.what, coalesce(r.rolname::text, o.owner::text)
FROM owned o LEFT JOIN pg_roles r ON r.oid = o.owner
WHERE o.owner NOT IN (SELECT role FROM trusted)
ORDER BY 1
