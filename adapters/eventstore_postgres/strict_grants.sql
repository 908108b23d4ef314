-- What a role needs that reads and appends, and no more. It opens the log with
-- create=false and strict=true.
-- ("eventstore" stands for the namespace, "app" for the role.)

GRANT USAGE ON SCHEMA "eventstore" TO "app";
GRANT SELECT ON "eventstore".log, "eventstore".events TO "app";
GRANT EXECUTE ON FUNCTION
    "eventstore".log_state, "eventstore".append_one, "eventstore".append_many
    TO "app";
