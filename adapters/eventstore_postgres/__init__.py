"""``postgresql://``: a log in a schema of a PostgreSQL database, by way of psycopg 3."""

from eventstore_postgres.backend import PostgresBackend

__all__ = ["PostgresBackend"]
