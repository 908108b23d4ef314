"""A history checker: do everything at once for a while, record it, prove the guarantees.

    history = run_history("sqlite:///trial.db", seconds=60)
    assert check(history) == []

On the command line: ``python -m eventstore.testing.history URL --seconds 60 --workers 6``.
A history with faults in it is a ``Campaign``; ``judge`` tells what that showed.
"""

from eventstore.testing.history.checker import check
from eventstore.testing.history.faults import Campaign, Fault, Restore
from eventstore.testing.history.recording import History
from eventstore.testing.history.running import run_history
from eventstore.testing.history.verdict import Verdict, judge, report
from eventstore.testing.history.violations import Rule, Violation

__all__ = [
    "Campaign",
    "Fault",
    "History",
    "Restore",
    "Rule",
    "Verdict",
    "Violation",
    "check",
    "judge",
    "report",
    "run_history",
]
