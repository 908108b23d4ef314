"""The table of faults. Each breaks something, mends it, and returns what it did and when.

A fault draws whatever it leaves open (how long, which worker, after how many bytes) from the
random numbers that it is given, which are its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from eventstore import open_store
from eventstore.testing.history import Fault, Restore
from eventstore.testing.history.recording import Failure, LogEntry
from eventstore.testing.history.running import read_log
from tests.kit.proxy import Cut, Proxy

from .crew import Crew
from .grounds import Ground, PrivateFile, PrivateServer
from .worker import ENDING, Order

_MARK: Final = b"actor_id"
"""In the metadata of every event that workers append, and in no other request."""
_SECONDS_TO_CUT: Final = 3.0
_now = time.monotonic_ns


class Field(msgspec.Struct):
    """What a fault may lay hands on."""

    ground: Ground
    crew: Crew
    namespace: str
    timeout: float
    failures: list[Failure] = []
    """Logs that could not be read."""
    old_files: dict[int, str] = {}
    """URLs of files that were replaced, by when."""

    @property
    def proxy(self) -> Proxy:
        assert self.ground.proxy is not None
        return self.ground.proxy

    @property
    def server(self) -> PrivateServer:
        assert self.ground.server is not None
        return self.ground.server

    @property
    def file(self) -> PrivateFile:
        assert self.ground.file is not None
        return self.ground.file

    def log_at(self, url: str) -> list[LogEntry]:
        """Return the whole log, as far as it can be read."""
        with open_store(url, namespace=self.namespace) as store:
            log, failures = read_log(store)
        self.failures += failures
        return log

    def head(self) -> int:
        with open_store(self.ground.direct, namespace=self.namespace) as store:
            return store.get_current_sequence()


# --- The server


def server_killed(field: Field, random: Random) -> Fault:
    struck = _now()
    field.server.kill()
    _pause(random, 0.5)
    field.server.start()
    return Fault(kind="server killed", struck=struck, ended=_now(), outage=True)


def server_restarted(field: Field, random: Random) -> Fault:
    struck = _now()
    field.server.stop(at_once=random.random() < 0.5)
    _pause(random, 0.5)
    field.server.start()
    return Fault(kind="server restarted", struck=struck, ended=_now(), outage=True)


def server_frozen(field: Field, random: Random) -> Fault:
    struck = _now()
    field.server.freeze()
    try:
        _pause(random, _about(field.timeout, random))
    finally:
        field.server.thaw()
    return Fault(kind="server frozen", struck=struck, ended=_now())


def server_restored(field: Field, random: Random) -> Fault:
    """Copy the data of a killed server, let work go on, and put the copy back."""
    copied = _now()
    field.server.kill()
    field.server.copy()
    field.server.start()
    up = _now()
    field.crew.wait_for_acknowledgement(up, ENDING)
    _pause(random, 1.0)
    struck = _now()
    field.proxy.refuse()
    field.proxy.reset()
    field.server.kill()
    field.server.start()
    log = field.log_at(field.ground.direct)
    field.server.stop()
    field.server.put_back()
    field.server.start()
    head = field.head()
    ended = _now()
    field.proxy.resume()
    return Restore(
        kind="server restored",
        struck=struck,
        ended=ended,
        outage=True,
        copied=copied,
        log=log,
        head=head,
    )


# --- The file


def file_restored(field: Field, random: Random) -> Fault:
    """Copy the file, let work go on, and put the copy in its place under all that use it."""
    copied = _now()
    field.file.copy()
    field.crew.wait_for_acknowledgement(_now(), ENDING)
    _pause(random, 0.5)
    struck = _now()
    with field.crew.frozen():
        # A commit under way still ends in the old file: its log is read when all are done.
        old = field.file.put_back()
        head = field.head()
        ended = _now()
    field.old_files[ended] = old
    return Restore(
        kind="file restored",
        struck=struck,
        ended=ended,
        copied=copied,
        log=[],
        head=head,
    )


# --- The network


def connections_reset(field: Field, random: Random) -> Fault:
    struck = _now()
    field.proxy.reset()
    return Fault(kind="connections reset", struck=struck, ended=_now())


def connections_refused(field: Field, random: Random) -> Fault:
    struck = _now()
    field.proxy.refuse()
    field.proxy.reset()
    _pause(random, 1.0)
    field.proxy.resume()
    return Fault(kind="connections refused", struck=struck, ended=_now(), outage=True)


def connections_stalled(field: Field, random: Random) -> Fault:
    struck = _now()
    field.proxy.pause()
    _pause(random, _about(field.timeout, random))
    field.proxy.resume()
    return Fault(kind="connections stalled", struck=struck, ended=_now())


def clients_left_half_open(field: Field, random: Random) -> Fault:
    struck = _now()
    field.proxy.strand_clients()
    _pause(random, _about(field.timeout, random))
    field.proxy.resume()
    return Fault(kind="half open: server gone", struck=struck, ended=_now())


def server_left_half_open(field: Field, random: Random) -> Fault:
    struck = _now()
    field.proxy.strand_server()
    _pause(random, 1.0)
    field.proxy.resume()
    return Fault(kind="half open: client gone", struck=struck, ended=_now())


def request_cut(field: Field, random: Random) -> Fault:
    return _cut("request cut", field.proxy, field.proxy.cut_after(random.randrange(4000)))


def reply_swallowed(field: Field, random: Random) -> Fault:
    return _cut("reply swallowed", field.proxy, field.proxy.cut_before_answer(_MARK))


def _cut(kind: str, proxy: Proxy, cut: Cut) -> Fault:
    cut.wait(_SECONDS_TO_CUT)
    ended = _now()
    proxy.resume()
    return Fault(kind=kind, struck=cut.at or ended, ended=ended)


# --- The workers


def worker_killed(field: Field, random: Random) -> Fault:
    worker = field.crew.any(random)
    struck = _now()
    worker.kill()
    return Fault(
        kind="worker killed", struck=struck, ended=_now(), workers=worker.numbers, kills=True
    )


def worker_frozen(field: Field, random: Random) -> Fault:
    worker = field.crew.any(random)
    struck = _now()
    worker.freeze()
    try:
        _pause(random, _about(field.timeout, random))
    finally:
        worker.thaw()
    return Fault(kind="worker frozen", struck=struck, ended=_now(), workers=worker.numbers)


def worker_closed(field: Field, random: Random) -> Fault:
    worker = field.crew.any(random)
    struck = _now()
    field.crew.close(worker)
    return Fault(
        kind="store closed", struck=struck, ended=_now(), workers=worker.numbers, closes=True
    )


def worker_forked(field: Field, random: Random) -> Fault:
    return _fork("forked", Order.FORK, field, random)


def worker_forked_and_opened(field: Field, random: Random) -> Fault:
    return _fork("forked, store of its own", Order.FORK_AND_OPEN, field, random)


def _fork(kind: str, order: Order, field: Field, random: Random) -> Fault:
    worker, struck = field.crew.fork(random, order)
    return Fault(kind=kind, struck=struck, ended=_now(), workers=worker.numbers)


# --- The table


class Kind(msgspec.Struct, frozen=True):
    """A row."""

    strike: Callable[[Field, Random], Fault]
    weight: int
    """How often it comes, against the others."""
    weight_on_file: int
    """The same on SQLite, where forks are what is dangerous."""
    needs: str = ""
    """What of a ground it lays hands on."""


KINDS: Final = {
    kind.strike.__name__: kind
    for kind in (
        Kind(server_killed, 3, 0, "server"),
        Kind(server_restarted, 2, 0, "server"),
        Kind(server_frozen, 2, 0, "server"),
        Kind(server_restored, 1, 0, "server"),
        Kind(file_restored, 0, 1, "file"),
        Kind(connections_reset, 3, 0, "proxy"),
        Kind(connections_refused, 2, 0, "proxy"),
        Kind(connections_stalled, 2, 0, "proxy"),
        Kind(clients_left_half_open, 2, 0, "proxy"),
        Kind(server_left_half_open, 1, 0, "proxy"),
        Kind(request_cut, 3, 0, "proxy"),
        Kind(reply_swallowed, 4, 0, "proxy"),
        Kind(worker_killed, 2, 2),
        Kind(worker_frozen, 1, 2),
        Kind(worker_closed, 1, 2),
        Kind(worker_forked, 1, 10),
        Kind(worker_forked_and_opened, 1, 8),
    )
}


def schedule(ground: Ground, faults: int, seed: int) -> list[tuple[str, int]]:
    """Return which faults strike, in order, each with the seed of its own random numbers.

    The same ground and seed give the same faults: each kind once, as far as they go, then by
    weight.
    """
    random = Random(seed)
    on_file = ground.proxy is None
    weights = {
        name: kind.weight_on_file if on_file else kind.weight
        for name, kind in KINDS.items()
        if not kind.needs or getattr(ground, kind.needs) is not None
    }
    bag = [name for name, weight in weights.items() if weight]
    drawn: list[tuple[str, int]] = []
    while len(drawn) < faults:
        drawn += [(name, random.getrandbits(32)) for name in random.sample(bag, len(bag))]
        bag = [name for name, weight in weights.items() for _ in range(weight)]
    return drawn[:faults]


def _pause(random: Random, most: float) -> None:
    time.sleep(random.uniform(0, most))


def _about(timeout: float, random: Random) -> float:
    """Return a time to hold things up for at most: mostly short, at times beyond the timeout."""
    return timeout * (1.5 if random.random() < 0.15 else 0.25)
