"""SQLite: the embedded default. Many threads and many processes share one file.

``sqlite:///orders.db`` is relative to the working directory, ``sqlite:////var/lib/orders.db``
absolute, ``sqlite:///:memory:`` private to its store. See docs/sqlite.md.
"""

from eventstore_sqlite.backend import SqliteBackend

__all__ = ["SqliteBackend"]
