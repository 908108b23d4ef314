"""Proves the guarantees G1–G7 from a history, or names what breaks them.

The final log is the one order that everything must agree with. Each call is held against it
and against what was known when it began (see ``Evidence``): by G3 and G4 a later read shows
all up to there, and a later append stands above.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from eventstore.testing.history.answer_checks import check_answer
from eventstore.testing.history.evidence import Evidence
from eventstore.testing.history.log_checks import check_batches_in_log, check_log
from eventstore.testing.history.read_checks import check_failure, check_lookup, check_read
from eventstore.testing.history.recording import History
from eventstore.testing.history.violations import Rule, Violation

MOST_PER_RULE: Final = 20


def check(history: History) -> list[Violation]:
    """Return what the history breaks, at most twenty of a rule; nothing, if all is well."""
    return the_first_of_each(_violations(Evidence(history)))


def the_first_of_each(violations: Iterable[Violation]) -> list[Violation]:
    """Return at most twenty violations of a rule."""
    seen: Counter[Rule] = Counter()
    kept = []
    for violation in violations:
        seen[violation.rule] += 1
        if seen[violation.rule] <= MOST_PER_RULE:
            kept.append(violation)
    return kept


def _violations(evidence: Evidence) -> Iterator[Violation]:
    yield from check_log(evidence)
    yield from check_batches_in_log(evidence)
    for append in evidence.appends:
        yield from check_answer(evidence, append)
    for read in evidence.reads:
        yield from check_read(evidence, read)
    for lookup in evidence.lookups:
        yield from check_lookup(evidence, lookup)
    for failure in evidence.failures:
        yield from check_failure(evidence, failure)
