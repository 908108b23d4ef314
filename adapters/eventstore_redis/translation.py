"""What redis-py's errors mean here."""

from __future__ import annotations

import re
import socket
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from eventstore.backend import Fault, Trouble

DRIVER_ERRORS: Final = (RedisError, RedisClusterException, OSError, UnicodeError)
"""What a connection raises; the last where a host is no name."""

_REFUSALS: Final[tuple[tuple[tuple[type[Exception], ...], str, Trouble, str], ...]] = (
    (
        (AuthenticationError, AuthorizationError),
        r"\bWRONGPASS\b",
        Trouble.LASTING,
        "the server refuses this user or password",
    ),
    (
        (NoPermissionError,),
        r"\bNOPERM\b|\bACL failure\b|can't run this command",
        Trouble.MISFIT,
        "url: the server refuses this to its user",
    ),
    (
        (
            AskError,
            BusyLoadingError,
            ClusterDownError,
            NoScriptError,
            ReadOnlyError,
            TryAgainError,
        ),
        r"\b(BUSY|READONLY|NOREPLICAS|CLUSTERDOWN)\b",
        Trouble.PASSING,
        "the server cannot answer now",
    ),
    ((OutOfMemoryError,), r"\b(OOM|MISCONF|DB index)\b", Trouble.LASTING, "the server refuses"),
    ((), r"\b(CORRUPT|WRONGTYPE|XADD)\b", Trouble.CORRUPT, "the log is damaged"),
    ((), r"\bFOREIGN\b", Trouble.MISFIT, "namespace: choose another one, or another database"),
)
"""For the kinds of an error, or what its text holds, the meaning: redis-py knows few of the codes
that servers answer, and older servers wrap those from scripts. A script that is refused as a whole,
and each of these refusals is, has written nothing."""


def classify(error: BaseException) -> Fault | None:
    """Return what an error of the driver's, or of the server's behind it, means."""
    return fault_of(error) if isinstance(error, DRIVER_ERRORS) else None


def fault_of(error: BaseException) -> Fault:
    """Return what an error of the driver's means."""
    text = str(error) or type(error).__name__
    cause = error.__cause__ or error.__context__
    if isinstance(error, RedisClusterException) and "not enabled" in text:
        return Fault(
            Trouble.MISFIT, "url: this server is no node of a cluster: use redis:// or rediss://"
        )
    if isinstance(error, RedisClusterException) and isinstance(cause, DRIVER_ERRORS):
        return fault_of(cause)  # what befell the last node that was asked
    answered = isinstance(error, ResponseError)
    for kinds, codes, trouble, said in _REFUSALS:
        if isinstance(error, kinds) or (answered and re.search(codes, text)):
            return Fault(trouble, f"{said}: {text}")
    if answered:
        return Fault(Trouble.LASTING, f"the server refuses: {text}", settled=False)
    no_such_host = isinstance(error, UnicodeError) or (
        isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN
    )
    trouble = Trouble.LASTING if no_such_host else Trouble.PASSING
    return Fault(trouble, f"the server did not answer: {text}", settled=no_such_host)
