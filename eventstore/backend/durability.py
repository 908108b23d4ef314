"""What may be lost, as ``?durability=`` has it told (G8): one rule for a server, a connection and
a transaction of the caller's."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from eventstore.backend.settings import Durability
from eventstore.errors import ConfigurationError, DurabilityWarning


def report_risk(risk: str, durability: Durability) -> None:
    """Accept, tell of or refuse that acknowledged events may be lost.

    Raises ConfigurationError where ``strict`` is asked for; else warns at the caller's line, or is
    silent where ``relaxed`` is.
    """
    if durability is Durability.STRICT:
        raise ConfigurationError(f"durability: strict is asked for, but {risk}")
    if durability is Durability.STANDARD:
        warnings.warn(risk, DurabilityWarning, stacklevel=_level_of_the_caller())


def _level_of_the_caller() -> int:
    """Return the level, for ``warnings.warn`` in the function that asks, of the first frame that
    is neither of this package nor of an adapter."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        frame, level = frame.f_back, level + 1
    return level


def _is_ours(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package.startswith("eventstore") or package in ("contextlib", "functools", "tenacity")
