"""``tail --follow`` while its server is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eventstore import Event, open_store
from tests.kit.servers.redis import start_redis


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def test_a_restart_longer_than_the_timeout_is_ridden_through_and_told_once(tmp_path: Path) -> None:
    # Given: a follower whose calls give up after half a second
    complaints = tmp_path / "complaints"
    event = Event(event_type="E", entity_type="t", entity_id="1")
    with start_redis() as server:
        with open_store(server.url, durability="relaxed") as store:
            store.append(event)
        with (
            complaints.open("wb") as told,
            subprocess.Popen(
                [sys.executable, "-m", "eventstore", "tail", "--follow"],
                env=os.environ | {"EVENTSTORE_URL": f"{server.url}?timeout=0.5&durability=relaxed"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=told,
            ) as follower,
        ):
            try:
                assert follower.stdout is not None
                assert json.loads(follower.stdout.readline())["sequence"] == 1

                # When: the server is away until that was noticed, and for several tries more
                server.stop()
                wait_until(lambda: complaints.stat().st_size > 0)
                time.sleep(1.5)
                server.start()
                with open_store(server.url, durability="relaxed") as store:
                    store.append(event.as_new())

                # Then
                assert json.loads(follower.stdout.readline())["sequence"] == 2
                follower.send_signal(signal.SIGINT)
                assert follower.wait(timeout=60) == 130
            finally:
                follower.kill()
    note, interrupted = complaints.read_text().splitlines()
    assert note.startswith("eventstore: ")
    assert note.endswith("waiting for it to come back")
    assert interrupted == "eventstore: interrupted"
