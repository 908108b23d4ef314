-- What a session of the store depends on, whatever the role's or the database's defaults.
-- Parameters: patience in milliseconds, half of it, the longest statement; whether for the
-- transaction alone; relaxed durability. Every name is qualified: no path is settled yet.

SELECT pg_catalog.set_config(name, value, %(local)s::pg_catalog.bool)
FROM (VALUES
    ('default_transaction_isolation'::pg_catalog.text, 'read committed'::pg_catalog.text),
    ('default_transaction_read_only', 'off'),
    ('default_transaction_deferrable', 'off'),
    ('search_path', 'pg_catalog, pg_temp'),
    ('TimeZone', 'UTC'),
    ('jit', 'off'),
    -- The plan that looks at the fewest rows: reads take a page, and one that walks the log in
    -- order and filters is cheap only where matches are spread evenly; a type of event that came
    -- into use late would have the whole log read first.
    ('seq_page_cost', '0.01'),
    ('random_page_cost', '0.01'),
    -- Never lowered from remote_apply.
    ('synchronous_commit', CASE
        WHEN %(relaxed)s::pg_catalog.bool THEN 'off'
        WHEN pg_catalog.current_setting('synchronous_commit')
            OPERATOR(pg_catalog.=) 'remote_apply' THEN 'remote_apply'
        ELSE 'on' END),
    -- A client that is stopped, or whose host is gone, while it holds the log's lock: freed
    -- within half the time that others wait for it.
    ('idle_in_transaction_session_timeout', %(half)s::pg_catalog.text),
    ('statement_timeout', %(statement)s::pg_catalog.text),
    ('lock_timeout', %(patience)s::pg_catalog.text),
    ('tcp_keepalives_idle', '5'),
    ('tcp_keepalives_interval', '2'),
    ('tcp_keepalives_count', '3'),
    ('tcp_user_timeout', %(patience)s::pg_catalog.text)
) AS setting (name, value);
