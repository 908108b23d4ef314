-- Removes a log with all it holds; what others keep in the schema stays, and the schema with it.
-- ("eventstore" stands for the namespace.) The tables in the order in which an append locks them.

DROP TABLE "eventstore".log, "eventstore".events;
DO $$
DECLARE
    _function regprocedure;
BEGIN
    FOR _function IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = '"eventstore"'::regnamespace AND p.proname IN (
            'append_many', 'append_one', 'lock_log', 'log_state', 'refuse_change'
        )
    LOOP
        EXECUTE format('DROP FUNCTION %s', _function);
    END LOOP;
END $$;

DO $$
BEGIN
    DROP SCHEMA "eventstore" RESTRICT;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    NULL;
END $$;
