"""What a benchmark of a test run is spared."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def what_earlier_tests_left_is_not_looked_through() -> Iterator[None]:
    """A benchmark collects garbage before each round, over all that a long run has made."""
    gc.freeze()
    yield
    gc.unfreeze()
