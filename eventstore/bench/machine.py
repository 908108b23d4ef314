"""Where it was measured, and by which software."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points, version
from pathlib import Path
from time import sleep
from typing import Final, TypeVar

from eventstore.backend.settings import split_url
from eventstore.registry import GROUP

_DRIVERS: Final[Mapping[str, str]] = {
    "fakeredis": "fakeredis",
    "mongodb": "pymongo",
    "mongodb+srv": "pymongo",
    "mongomock": "mongomock",
    "postgresql": "psycopg",
    "redis": "redis",
    "redis+cluster": "redis",
    "rediss": "redis",
}


def describe_machine() -> str:
    """Return processor, cores, memory, system and interpreter in one line."""
    parts = [
        _processor(),
        f"{os.cpu_count()} cores",
        f"{_memory() / 2**30:.0f} GB of memory",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
    ]
    return ", ".join(part for part in parts if part)


def describe_driver(url: str) -> str:
    """Return name and version of what speaks to the engine of ``url``."""
    scheme = split_url(url)[0]
    if scheme in _DRIVERS:
        return f"{_DRIVERS[scheme]} {version(_DRIVERS[scheme])}"
    if scheme == "sqlite":
        return f"sqlite3 of Python {platform.python_version()}"
    for entry in entry_points(group=GROUP, name=scheme):
        if entry.dist is not None:
            return f"{entry.dist.name} {entry.dist.version}"
    return ""


LOADED: Final = 0.2
"""The part of the processors that other work may keep busy on a machine called quiet."""

_WATCHED: Final = 0.1
"""Seconds."""

T = TypeVar("T")


def busy_part() -> float | None:
    """Return which part of the processors is busy while this process only watches; None where the
    system does not say."""
    before = _ticks()
    sleep(_WATCHED)
    after = _ticks()
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def with_load(measured: Iterable[T]) -> Iterator[tuple[T, float | None]]:
    """Yield what is measured, one by one, and which part of the processors other work kept busy
    just before or just after, whichever was more."""
    before = busy_part()
    for each in measured:
        after = busy_part()
        known = [part for part in (before, after) if part is not None]
        yield each, max(known, default=None)
        before = after


def _ticks() -> tuple[int, int] | None:
    """Return for how long the processors were busy, and how long altogether, in ticks."""
    try:
        first = Path("/proc/stat").read_text("utf-8").partition("\n")[0]
    except OSError:
        return None
    # cpu user nice system idle iowait irq softirq steal …: stolen time is others' work too.
    ticks = [int(word) for word in first.split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
