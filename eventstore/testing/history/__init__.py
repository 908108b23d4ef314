"""A history checker: do everything at once for a while, record it, prove the guarantees.

    history = run_history("sqlite:///trial.db", seconds=60)
    assert check(history) == []

On the command line: ``python -m eventstore.testing.history URL --seconds 60 --workers 6``.
"""

from eventstore.testing.history.checker import check
from eventstore.testing.history.recording import History
from eventstore.testing.history.running import run_history
from eventstore.testing.history.violations import Rule, Violation

__all__ = ["History", "Rule", "Violation", "check", "run_history"]
