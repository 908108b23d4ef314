-- Makes a log one that is appended to by its functions alone: they run with the rights of a role
-- that cannot log in and owns everything, and no other role needs INSERT.
-- ("eventstore" stands for the namespace.)

DO $$
BEGIN
    CREATE ROLE "eventstore_owner" NOLOGIN;
EXCEPTION WHEN duplicate_object THEN
    NULL;  -- it owns other logs
END $$;
ALTER ROLE "eventstore_owner" NOLOGIN;

ALTER SCHEMA "eventstore" OWNER TO "eventstore_owner";
ALTER TABLE "eventstore".log OWNER TO "eventstore_owner";
ALTER TABLE "eventstore".events OWNER TO "eventstore_owner";
ALTER FUNCTION "eventstore".refuse_change OWNER TO "eventstore_owner";
ALTER FUNCTION "eventstore".lock_log OWNER TO "eventstore_owner";
ALTER FUNCTION "eventstore".log_state OWNER TO "eventstore_owner";
ALTER FUNCTION "eventstore".append_one OWNER TO "eventstore_owner";
ALTER FUNCTION "eventstore".append_many OWNER TO "eventstore_owner";

ALTER FUNCTION "eventstore".log_state SECURITY DEFINER;
ALTER FUNCTION "eventstore".append_one SECURITY DEFINER;
ALTER FUNCTION "eventstore".append_many SECURITY DEFINER;

REVOKE EXECUTE ON FUNCTION
    "eventstore".refuse_change, "eventstore".lock_log, "eventstore".log_state,
    "eventstore".append_one, "eventstore".append_many
    FROM PUBLIC;
