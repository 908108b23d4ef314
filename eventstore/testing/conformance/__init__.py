"""The conformance suite: what every backend must do, as tests that anyone may run on theirs.

::

    import pytest
    from eventstore.testing.conformance import ConformanceSuite, Harness

    @pytest.fixture(scope="session")
    def harness(tmp_path_factory):
        return Harness(url=f"toy://{tmp_path_factory.mktemp('toy')}/log")

    class TestToy(ConformanceSuite):
        pass

docs/testing-a-backend.md tells the rest.
"""

from __future__ import annotations

import pkgutil

import pytest

_modules = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)]
pytest.register_assert_rewrite(*_modules)

from eventstore.testing.conformance.harness import Harness, Joins  # noqa: E402 - rewritten first
from eventstore.testing.conformance.suite import ConformanceSuite  # noqa: E402

__all__ = ["ConformanceSuite", "Harness", "Joins"]
