-- Removes a log with all it holds; what others keep in the schema stays, and the schema with it.
-- ("eventstore" stands for the namespace.) The tables in the order in which an append locks them.

DROP TABLE "eventstore".log, "eventstore".events;
DROP FUNCTION "eventstore".append_many;
DROP FUNCTION "eventstore".append_one;
DROP FUNCTION "eventstore".log_state;
DROP FUNCTION "eventstore".lock_log;
DROP FUNCTION "eventstore".refuse_change;

DO $$
BEGIN
    DROP SCHEMA "eventstore" RESTRICT;
EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    NULL;
END $$;
