"""A server that greets as PostgreSQL's protocol has it, and knows hardly more."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.kit.ports import LOOPBACK
from tests.postgres.work import WAIT


@contextmanager
def server_that_says(
    version: str, announced: str, **parameters: str
) -> Iterator[tuple[str, list[str]]]:
    """Serve PostgreSQL's protocol as far as the first questions; yield a URL, and what was asked.

    ``announced`` is its ``server_version``; it has other ``parameters`` that it announces too.

    Whatever else is asked is refused, as by an engine that does not know it.
    """
    asked: list[str] = []
    utf8 = {"server_encoding": "UTF8", "client_encoding": "UTF8"}
    status = {"server_version": announced, **utf8, **parameters}
    listener = socket.create_server((LOOPBACK, 0))
    ending = False

    def serve() -> None:
        while not ending:
            client, _ = listener.accept()
            with client, client.makefile("rb") as stream:
                _converse(client, stream, version, status, asked)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"postgresql://app@{LOOPBACK}:{listener.getsockname()[1]}/shop", asked
    finally:
        ending = True
        socket.create_connection(listener.getsockname()).close()
        thread.join(WAIT)
        listener.close()


def _converse(
    client: socket.socket,
    stream: Any,
    version: str,
    status: Mapping[str, str],
    asked: list[str],
) -> None:
    ready = _message(b"Z", b"I")
    refusal = _message(b"E", b"SERROR\0C42704\0Mno such thing\0\0")
    answers = {"version()": version, "transaction_read_only": "off", "pg_is_in_recovery": "f"}
    while size := stream.read(4):
        (code,) = struct.unpack("!i", stream.read(struct.unpack("!i", size)[0] - 4)[:4])
        if code == 3 << 16:
            break
        client.sendall(b"N")  # neither TLS nor GSS
    else:
        return
    told = [_message(b"S", f"{name}\0{value}\0".encode()) for name, value in status.items()]
    client.sendall(_message(b"R", struct.pack("!i", 0)) + b"".join(told) + ready)
    while (kind := stream.read(1)) and kind != b"X":
        body = stream.read(struct.unpack("!i", stream.read(4))[0] - 4)
        if kind == b"S":  # the end of a statement with parameters
            client.sendall(refusal + ready)
        if kind != b"Q":
            continue
        asked.append(body.rstrip(b"\0").decode())
        answer = next((said for word, said in answers.items() if word in asked[-1]), None)
        if answer is None:
            client.sendall(refusal + ready)
            continue
        column = b"answer\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
        row = struct.pack("!hi", 1, len(answer)) + answer.encode()
        client.sendall(
            _message(b"T", struct.pack("!h", 1) + column)
            + _message(b"D", row)
            + _message(b"C", b"SELECT 1\0")
            + ready
        )


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
