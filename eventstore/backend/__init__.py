"""What the author of an adapter imports: everything is here (docs/write-your-own-backend.md)."""

from eventstore._core.checks import MAX_INT64, shown
from eventstore._core.payloads import EPOCH, decode_object, from_microseconds, to_microseconds
from eventstore.backend.deadline import INSTANT, deadline, time_left
from eventstore.backend.draft import Draft
from eventstore.backend.durability import report_risk
from eventstore.backend.interface import Backend, Capability, PageRequest
from eventstore.backend.planner import (
    Accepted,
    Batch,
    Condition,
    EventKey,
    Identity,
    LogState,
    Outcome,
    Plan,
    Repeated,
    entities_of,
    judge_repeat,
    keys_of,
    plan,
    position_beyond,
    twins_of,
)
from eventstore.backend.settings import (
    Durability,
    Settings,
    as_choice,
    as_flag,
    as_integer,
    as_number,
)

__all__ = [
    "EPOCH",
    "INSTANT",
    "MAX_INT64",
    "Accepted",
    "Backend",
    "Batch",
    "Capability",
    "Condition",
    "Draft",
    "Durability",
    "EventKey",
    "Identity",
    "LogState",
    "Outcome",
    "PageRequest",
    "Plan",
    "Repeated",
    "Settings",
    "as_choice",
    "as_flag",
    "as_integer",
    "as_number",
    "deadline",
    "decode_object",
    "entities_of",
    "from_microseconds",
    "judge_repeat",
    "keys_of",
    "plan",
    "position_beyond",
    "report_risk",
    "shown",
    "time_left",
    "to_microseconds",
    "twins_of",
]
