"""What the author of an adapter imports: everything is here (docs/write-your-own-backend.md)."""

from eventstore._core.checks import MAX_INT64, shown
from eventstore._core.payloads import EPOCH, decode_object, from_microseconds, to_microseconds
from eventstore.backend.deadline import INSTANT, deadline, time_left
from eventstore.backend.draft import Draft
from eventstore.backend.durability import report_risk
from eventstore.backend.interface import Backend, Capability, Found, PageRequest
from eventstore.backend.opening import drop_log, open_log
from eventstore.backend.options import (
    Option,
    Options,
    as_choice,
    as_flag,
    as_given,
    as_integer,
    as_number,
)
from eventstore.backend.planner import (
    Accepted,
    Batch,
    Condition,
    EventKey,
    Identity,
    LogState,
    LogView,
    Outcome,
    Plan,
    Repeated,
    entities_of,
    judge_repeat,
    keys_of,
    plan,
    plan_over,
    position_beyond,
    state_of,
    twins_of,
)
from eventstore.backend.settings import Durability, Settings
from eventstore.backend.translation import Fault, Trouble, replaced, translated, translating

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
    "Fault",
    "Found",
    "Identity",
    "LogState",
    "LogView",
    "Option",
    "Options",
    "Outcome",
    "PageRequest",
    "Plan",
    "Repeated",
    "Settings",
    "Trouble",
    "as_choice",
    "as_flag",
    "as_given",
    "as_integer",
    "as_number",
    "deadline",
    "decode_object",
    "drop_log",
    "entities_of",
    "from_microseconds",
    "judge_repeat",
    "keys_of",
    "open_log",
    "plan",
    "plan_over",
    "position_beyond",
    "replaced",
    "report_risk",
    "shown",
    "state_of",
    "time_left",
    "to_microseconds",
    "translated",
    "translating",
    "twins_of",
]
