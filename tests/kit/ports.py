"""Free TCP ports for servers that may go down and come back on the same one."""

from __future__ import annotations

import secrets
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"

# Below the range that Linux and macOS take outgoing ports from: while a server is down, no client
# can be given its port, nor (what loopback allows there) end up connected to itself.
_LOWEST: Final = 10_240
_HIGHEST: Final = 22_000
_TRIES: Final = 200

BUS_OFFSET: Final = 10_000
"""A Redis Cluster node also listens on its port plus this."""


def free_port() -> int:
    """Return a port nobody listens on at 127.0.0.1, and neither on that plus ``BUS_OFFSET``."""
    for _ in range(_TRIES):
        # Not from `random`: test plug-ins seed it alike in all processes.
        port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
        if _is_free(port) and _is_free(port + BUS_OFFSET):
            return port
    raise OSError(f"no free port found at {LOOPBACK} in {_LOWEST}..{_HIGHEST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
