-- What a role needs that reads and appends, and no more (a database hands EXECUTE on functions to
-- all roles by itself; advisory locks and NOTIFY need no right).
-- ("eventstore" stands for the namespace, "app" for the role.)

GRANT USAGE ON SCHEMA "eventstore" TO "app";
GRANT SELECT ON "eventstore".log, "eventstore".events TO "app";
GRANT INSERT ON "eventstore".events TO "app";
GRANT EXECUTE ON FUNCTION
    "eventstore".lock_log, "eventstore".log_state, "eventstore".append_one,
    "eventstore".append_many
    TO "app";
