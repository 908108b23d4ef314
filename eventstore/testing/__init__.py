"""What others may use to test a backend or a program: suite, generators, servers."""

import contextlib

with contextlib.suppress(ModuleNotFoundError):  # builders and servers do without pytest
    import pytest

    pytest.register_assert_rewrite("eventstore.testing.state_machine")
