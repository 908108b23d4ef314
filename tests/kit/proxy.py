"""A TCP proxy that fails on purpose, at an exact point of the conversation.

with Proxy("127.0.0.1", server.port) as proxy:
    store = open_store(server.url_at(proxy.host, proxy.port))
    cut = proxy.cut_before_answer(b"COMMIT")   # the server commits, the client never hears
    store.append(event)
    assert cut.wait(5)
"""

from __future__ import annotations

import os
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Self, TypeVar

from tests.kit.ports import LOOPBACK, free_port

_CHUNK: Final = 65536
_SECONDS_TO_CONNECT: Final = 5.0
_SECONDS_TO_OBEY: Final = 10.0

_Answer = TypeVar("_Answer")


class Cut:
    """A cut that was asked for: it happens once, to one connection."""

    def __init__(self, pattern: bytes | None, remaining: int) -> None:
        self._pattern = pattern
        self._remaining = remaining
        self._seen: dict[_Connection, bytes] = {}
        self._happened = threading.Event()
        self.at: int | None = None
        """When it happened, by ``time.monotonic_ns``; None until then."""

    def _happens(self) -> None:
        self.at = time.monotonic_ns()
        self._happened.set()

    def wait(self, timeout: float) -> bool:
        """Wait until it has happened; return whether it has."""
        return self._happened.wait(timeout)

    def _finds_pattern(self, pattern: bytes, connection: _Connection, data: bytes) -> bool:
        seen = self._seen.get(connection, b"") + data
        # It may come in pieces: keep the last bytes, too few to hold it.
        self._seen[connection] = seen[max(0, len(seen) - len(pattern) + 1) :]
        return pattern in seen


class _Connection:
    """Two sockets, and what is on its way between them."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.peers = {client: server, server: client}
        self.unsent = {client: b"", server: b""}
        """Bytes still to be written, by the socket they go to."""
        self.ended: set[socket.socket] = set()
        """Sockets that have sent all they will."""
        self.cut_when_sent: Cut | None = None
        self.cut_when_answered: Cut | None = None
        for side in self.peers:
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wanted(self, side: socket.socket) -> int:
        """Return what to poll a side for."""
        wanted = select.POLLOUT if self.unsent[side] else 0
        # Read only what can be passed on, so that nothing piles up here.
        if side not in self.ended and not self.unsent[self.peers[side]] and not self.cut_when_sent:
            wanted |= select.POLLIN
        return wanted

    def reset(self) -> None:
        """Close both sides with RST."""
        for side in self.peers:
            _reset(side)


def _reset(side: socket.socket) -> None:
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


class Proxy:
    """Forwards connections to ``target_host:target_port`` until told otherwise.

    Its methods may be called by any thread, and have taken effect when they return. One thread
    of its own does the work; ``close()`` ends it and every connection. (A process forked
    meanwhile holds the sockets too, and no reset is sent before it ends: use spawn.)
    """

    def __init__(self, target_host: str, target_port: int) -> None:
        self.host: Final = LOOPBACK
        self.port: Final = free_port()
        self._target = (target_host, target_port)
        self._connections: list[_Connection] = []
        self._cuts: list[Cut] = []
        self._stranded: list[socket.socket] = []
        """Sides whose peer is gone without a word."""
        self._paused = False
        self._ending = False
        self._closed = False
        self._orders: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._woken, self._wake = os.pipe()
        self._listener: socket.socket | None = self._listening()
        self._thread = threading.Thread(target=self._work, name=f"proxy:{self.port}", daemon=True)
        self._thread.start()

    # --- Faults

    def cut_after(self, count: int) -> Cut:
        """Forward ``count`` more bytes from clients, then reset that connection on both sides.

        Not one byte more, and nothing that the server answers from there on, is forwarded; with
        0 the next request never arrives.
        """
        return self._order(lambda: self._add(Cut(None, count)))

    def cut_before_answer(self, pattern: bytes) -> Cut:
        """Let the next request that contains ``pattern`` arrive, but not its answer.

        The request is forwarded; when the server begins to answer, that answer is dropped and
        the connection reset on both sides. Meant for clients that wait for each answer before
        they go on: whatever comes first from the server counts as the answer.
        """
        if not pattern:
            raise ValueError("pattern: must not be empty")
        return self._order(lambda: self._add(Cut(pattern, 0)))

    def pause(self) -> None:
        """Be a black hole: connections stand and can be made, but no byte moves."""
        self._order(self._pause)

    def refuse(self) -> None:
        """Refuse new connections; those that stand go on (see ``reset``)."""
        self._order(self._stop_listening)

    def reset(self) -> int:
        """Reset every connection that stands; return how many."""
        return self._order(self._reset_all)

    def strand_clients(self) -> int:
        """Leave every connection half open: the server sees a reset, the client nothing, then or
        later. Return how many. New connections are forwarded."""
        return self._order(lambda: self._strand(clients=True))

    def strand_server(self) -> int:
        """The same with the sides changed: clients see a reset, the server nothing."""
        return self._order(lambda: self._strand(clients=False))

    def resume(self) -> None:
        """Forward, and take connections, again. Cuts that have not happened are forgotten, and
        what was left half open is reset."""
        self._order(self._resume)

    @property
    def connections(self) -> int:
        """How many connections stand."""
        return self._order(lambda: len(self._connections))

    def close(self) -> None:
        """Reset every connection and end. Idempotent."""
        if not self._closed:
            self._order(self._end)
            self._closed = True
            self._thread.join(_SECONDS_TO_OBEY)
            os.close(self._wake)
            os.close(self._woken)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _order(self, what: Callable[[], _Answer]) -> _Answer:
        """Have something done by the proxy's thread, where no lock is needed."""
        if self._closed:
            raise RuntimeError("the proxy is closed")
        done: Future[_Answer] = Future()
        self._orders.put((what, done))
        os.write(self._wake, b"!")
        return done.result(_SECONDS_TO_OBEY)

    # --- All below runs on the proxy's own thread

    def _work(self) -> None:
        try:
            while not self._ending:
                self._turn()
        finally:
            self._reset_all()
            self._reset_stranded()
            self._stop_listening()

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        sides: dict[int, tuple[_Connection, socket.socket]] = {}
        if not self._paused:
            if self._listener:
                poll.register(self._listener, select.POLLIN)
            for connection in self._connections:
                for side in connection.peers:
                    if wanted := connection.wanted(side):
                        poll.register(side, wanted)
                        sides[side.fileno()] = connection, side
        ready = dict(poll.poll())
        if self._woken in ready:
            os.read(self._woken, 1)
            self._obey()
            return  # what was ready is to be seen anew
        if self._listener and self._listener.fileno() in ready:
            self._accept(self._listener)
        for number, events in ready.items():
            if number in sides:
                self._move(*sides[number], events)

    def _obey(self) -> None:
        what, done = self._orders.get()
        try:
            done.set_result(what())
        except Exception as error:  # noqa: BLE001  # it is raised in the thread that ordered
            done.set_exception(error)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(self._target, timeout=_SECONDS_TO_CONNECT)
        except OSError:
            _reset(client)
        else:
            self._connections.append(_Connection(client, server))

    def _move(self, connection: _Connection, side: socket.socket, events: int) -> None:
        if connection not in self._connections:
            return  # gone in this turn
        try:
            if events & select.POLLOUT:
                self._send(connection, side)
            else:
                self._receive(connection, side)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)

    def _receive(self, connection: _Connection, side: socket.socket) -> None:
        peer = connection.peers[side]
        data = side.recv(_CHUNK)
        if not data:
            connection.ended.add(side)
            peer.shutdown(socket.SHUT_WR)
            if peer in connection.ended:
                self._drop(connection)
            return
        if side is connection.client:
            data = self._judged(connection, data)
        elif connection.cut_when_answered:
            self._drop(connection, connection.cut_when_answered)
            return
        connection.unsent[peer] = data
        self._send(connection, peer)

    def _send(self, connection: _Connection, side: socket.socket) -> None:
        if connection.unsent[side]:
            sent = side.send(connection.unsent[side])
            connection.unsent[side] = connection.unsent[side][sent:]
        if connection.cut_when_sent and not connection.unsent[connection.server]:
            self._drop(connection, connection.cut_when_sent)

    def _judged(self, connection: _Connection, data: bytes) -> bytes:
        """Return what of the client's bytes is to be forwarded, and note cuts that are due."""
        for cut in self._cuts.copy():
            if cut._pattern is not None:
                if cut._finds_pattern(cut._pattern, connection, data):
                    connection.cut_when_answered = cut
                    self._cuts.remove(cut)
            elif len(data) >= cut._remaining:
                connection.cut_when_sent = cut
                self._cuts.remove(cut)
                return data[: cut._remaining]
            else:
                cut._remaining -= len(data)
        return data

    def _drop(self, connection: _Connection, cut: Cut | None = None) -> None:
        connection.reset()
        self._connections.remove(connection)
        if cut:
            cut._happens()

    def _reset_all(self) -> int:
        count = len(self._connections)
        for connection in self._connections.copy():
            self._drop(connection)
        return count

    def _strand(self, *, clients: bool) -> int:
        count = len(self._connections)
        for connection in self._connections:
            gone, left = connection.server, connection.client
            if not clients:
                gone, left = left, gone
            _reset(gone)
            self._stranded.append(left)
        self._connections.clear()
        return count

    def _reset_stranded(self) -> None:
        for side in self._stranded:
            _reset(side)
        self._stranded.clear()

    def _add(self, cut: Cut) -> Cut:
        self._cuts.append(cut)
        return cut

    def _pause(self) -> None:
        self._paused = True

    def _resume(self) -> None:
        self._paused = False
        self._cuts.clear()
        self._reset_stranded()
        if self._listener is None:
            self._listener = self._listening()

    def _stop_listening(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None

    def _end(self) -> None:
        self._ending = True

    def _listening(self) -> socket.socket:
        return socket.create_server((self.host, self.port), backlog=128)
