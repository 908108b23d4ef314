"""A pytest fixture for those who test code that appends and reads.

In ``conftest.py``::

    pytest_plugins = ["eventstore.testing.fixtures"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from uuid_utils.compat import uuid4

from eventstore.registry import drop_namespace, open_store
from eventstore.store import EventStore


@pytest.fixture
def eventstore_memory() -> Iterator[EventStore]:
    """A store in memory that no other test sees, and that is gone after this one.

    Code that opens its store by itself opens the same log by ``eventstore_memory.url``.
    """
    url = f"memory://{uuid4().hex}"
    try:
        with open_store(url) as store:
            yield store
    finally:
        drop_namespace(url)
