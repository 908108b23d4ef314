"""All areas in one class."""

from __future__ import annotations

from eventstore.testing.conformance.appending import AppendTests
from eventstore.testing.conformance.bad_events import BadEventTests
from eventstore.testing.conformance.bad_queries import BadQueryTests
from eventstore.testing.conformance.checkpoints import CheckpointTests
from eventstore.testing.conformance.concurrency import ConcurrencyTests
from eventstore.testing.conformance.conditions import ConditionTests
from eventstore.testing.conformance.empty_batches import EmptyBatchTests
from eventstore.testing.conformance.entities import EntityTests
from eventstore.testing.conformance.fidelity import FidelityTests
from eventstore.testing.conformance.formats import FormatTests
from eventstore.testing.conformance.group_commit import GroupCommitTests
from eventstore.testing.conformance.idempotence import IdempotenceTests
from eventstore.testing.conformance.iteration import IterationTests
from eventstore.testing.conformance.joining import JoiningTests
from eventstore.testing.conformance.lifecycle import LifecycleTests
from eventstore.testing.conformance.names_and_times import NameAndTimeTests
from eventstore.testing.conformance.options import OptionTests
from eventstore.testing.conformance.queries import QueryTests
from eventstore.testing.conformance.randomly import RandomTests
from eventstore.testing.conformance.recorded_times import RecordedTimeTests
from eventstore.testing.conformance.tailing import TailTests
from eventstore.testing.conformance.tenants import TenantTests
from eventstore.testing.conformance.versions import VersionTests
from eventstore.testing.conformance.waiting import WaitTests


class ConformanceSuite(
    # pytest runs the last base first: from the simple to the random.
    RandomTests,
    BadQueryTests,
    BadEventTests,
    OptionTests,
    LifecycleTests,
    FormatTests,
    GroupCommitTests,
    JoiningTests,
    ConcurrencyTests,
    CheckpointTests,
    WaitTests,
    TailTests,
    TenantTests,
    EntityTests,
    IterationTests,
    RecordedTimeTests,
    QueryTests,
    NameAndTimeTests,
    FidelityTests,
    IdempotenceTests,
    EmptyBatchTests,
    ConditionTests,
    VersionTests,
    AppendTests,
):
    """Every area. Each is a class of its own, in a module of its own, and may be adopted alone."""
