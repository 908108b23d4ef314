"""The proxy that cuts connections at an exact point."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.kit.ports import free_port
from tests.kit.proxy import Proxy


class LineServer:
    """Answers each line with ``got <line>``, and keeps what it received."""

    def __init__(self) -> None:
        self.received = b""
        self.endings: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.port: int = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            if not self.listener_open:
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self.threads.append(thread)
            thread.start()

    listener_open = True

    def _serve(self, connection: socket.socket) -> None:
        line = b""
        with connection:
            try:
                while data := connection.recv(65536):
                    self.received += data
                    *lines, line = (line + data).split(b"\n")
                    for each in lines:
                        connection.sendall(b"got " + each + b"\n")
            except ConnectionError:
                self.endings.append("reset")
            else:
                self.endings.append("end")

    def close(self) -> None:
        self.listener_open = False
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self.threads:
            thread.join(10)
        self.listener.close()


@pytest.fixture
def server() -> Iterator[LineServer]:
    server = LineServer()
    yield server
    server.close()


@pytest.fixture
def proxy(server: LineServer) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", server.port) as proxy:
        yield proxy


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=10)


def asked(connection: socket.socket, line: bytes) -> bytes:
    connection.sendall(line)
    return connection.recv(65536)


def until(wanted: object, found: object) -> None:
    """Await that a callable returns what is wanted."""
    assert callable(found)
    deadline = time.monotonic() + 10
    while found() != wanted:
        assert time.monotonic() < deadline, f"{found()!r}, not {wanted!r}"
        time.sleep(0.002)


def test_forwards_both_ways_and_both_ends(proxy: Proxy, server: LineServer) -> None:
    with connected(proxy) as client:
        assert asked(client, b"one\n") == b"got one\n"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    until(0, lambda: proxy.connections)
    assert server.endings == ["end"]


def test_forwards_what_is_larger_than_any_buffer(proxy: Proxy) -> None:
    line = b"x" * 4_000_000
    with connected(proxy) as client, client.makefile("rb") as answers:
        client.sendall(line + b"\n")
        assert answers.readline() == b"got " + line + b"\n"


def test_cuts_after_a_count_of_bytes(proxy: Proxy, server: LineServer) -> None:
    with connected(proxy) as client:
        assert asked(client, b"one\n") == b"got one\n"
        # When the next request is cut in its middle
        cut = proxy.cut_after(3)
        with pytest.raises(ConnectionResetError):
            asked(client, b"two\nthree\n")
    # Then the server has so much of it, and lost its client too
    assert cut.wait(10)
    until(["reset"], lambda: server.endings)
    assert server.received == b"one\ntwo"
    # And others go on
    with connected(proxy) as client:
        assert asked(client, b"four\n") == b"got four\n"


def test_cuts_before_a_request_arrives(proxy: Proxy, server: LineServer) -> None:
    with connected(proxy) as client:
        cut = proxy.cut_after(0)
        assert not cut.wait(0)
        with pytest.raises(ConnectionResetError):
            asked(client, b"one\n")
        assert cut.wait(10)
    assert server.received == b""


def test_cuts_between_a_request_and_its_answer(proxy: Proxy, server: LineServer) -> None:
    with connected(proxy) as bystander, connected(proxy) as client:
        began = time.monotonic_ns()
        cut = proxy.cut_before_answer(b"COMMIT")
        # Given a request without the pattern: answered
        assert asked(client, b"INSERT\n") == b"got INSERT\n"
        # When one with it arrives, in pieces
        client.sendall(b"1;COM")
        until(b"INSERT\n1;COM", lambda: server.received)
        with pytest.raises(ConnectionResetError):
            asked(client, b"MIT;2\n")
        # Then the server got it whole, and only the answer is lost
        assert cut.wait(10)
        assert cut.at is not None
        assert began <= cut.at <= time.monotonic_ns()
        assert server.received == b"INSERT\n1;COMMIT;2\n"
        # Once, and for that connection alone
        assert asked(bystander, b"COMMIT\n") == b"got COMMIT\n"


def test_is_a_black_hole_while_paused(proxy: Proxy, server: LineServer) -> None:
    with connected(proxy) as client:
        assert asked(client, b"one\n") == b"got one\n"
        proxy.pause()
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            asked(client, b"two\n")
        assert server.received == b"one\n"
        with connected(proxy):
            pass
        proxy.resume()
        client.settimeout(10)
        assert client.recv(100) == b"got two\n"


def test_refuses_and_takes_connections_again(proxy: Proxy) -> None:
    with connected(proxy) as client:
        assert asked(client, b"one\n") == b"got one\n"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connected(proxy)
        assert asked(client, b"two\n") == b"got two\n"
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        proxy.resume()
        with connected(proxy) as another:
            assert asked(another, b"three\n") == b"got three\n"


def test_resets_clients_where_the_server_is_down() -> None:
    # The reset may come before connecting is done, or after
    with (
        Proxy("127.0.0.1", free_port()) as proxy,
        pytest.raises(ConnectionResetError),
        connected(proxy) as client,
    ):
        asked(client, b"one\n")


def test_forgets_cuts_when_resumed(proxy: Proxy) -> None:
    cut = proxy.cut_after(0)
    proxy.resume()
    with connected(proxy) as client:
        assert asked(client, b"one\n") == b"got one\n"
    assert not cut.wait(0)


def test_leaves_clients_half_open(proxy: Proxy, server: LineServer) -> None:
    with connected(proxy) as client:
        assert asked(client, b"one\n") == b"got one\n"
        # When the server sees a reset
        assert proxy.strand_clients() == 1
        until(["reset"], lambda: server.endings)
        # Then the client sees nothing, and whoever connects anew is served
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            asked(client, b"two\n")
        with connected(proxy) as another:
            assert asked(another, b"three\n") == b"got three\n"
        assert server.received == b"one\nthree\n"
        # Until it is resumed
        proxy.resume()
        client.settimeout(10)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_leaves_the_server_half_open(proxy: Proxy, server: LineServer) -> None:
    with connected(proxy) as client:
        assert asked(client, b"one\n") == b"got one\n"
        assert proxy.strand_server() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connected(proxy) as another:
        assert asked(another, b"two\n") == b"got two\n"
        assert server.endings == []
        proxy.resume()
        until(["reset"], lambda: server.endings)


def test_leaves_no_thread(server: LineServer) -> None:
    before = threading.active_count()
    proxy = Proxy("127.0.0.1", server.port)
    with connected(proxy) as client:
        assert asked(client, b"one\n") == b"got one\n"
        server_threads = len([thread for thread in server.threads if thread.is_alive()])
        proxy.pause()
        proxy.close()
        proxy.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    until(["reset"], lambda: server.endings)
    assert server_threads >= 1
    until(before, threading.active_count)
    with pytest.raises(RuntimeError, match="closed"):
        proxy.pause()
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)


def test_refuses_an_empty_pattern(proxy: Proxy) -> None:
    with pytest.raises(ValueError, match="pattern"):
        proxy.cut_before_answer(b"")
