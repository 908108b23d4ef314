"""The Redis adapter: ``redis://``, ``rediss://``, ``redis+cluster://`` and ``fakeredis://``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventstore_redis.backend import RedisBackend

if TYPE_CHECKING:
    from eventstore_redis.fake import FakeRedisBackend

__all__ = ["FakeRedisBackend", "RedisBackend"]


def __getattr__(name: str) -> Any:
    if name == "FakeRedisBackend":  # fakeredis is for tests: not imported unless asked for
        from eventstore_redis.fake import FakeRedisBackend  # noqa: PLC0415 - see above

        return FakeRedisBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
