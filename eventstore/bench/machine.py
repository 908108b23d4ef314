"""Where it was measured, and by which software."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Final

from eventstore.registry import GROUP
from eventstore.url import split_url

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
