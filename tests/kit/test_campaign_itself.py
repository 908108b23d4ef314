"""What a campaign of faults must keep itself: its schedule, its limits, its manners."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from eventstore import open_store
from eventstore.testing.builders import an_event
from tests.campaign.grounds import Ground, ground_of
from tests.campaign.kinds import KINDS, schedule
from tests.campaign.running import run_campaign

WAIT = 60.0


def test_the_same_seed_gives_the_same_faults() -> None:
    ground = Ground(url="sqlite:///log.db", direct="sqlite:///log.db")
    assert schedule(ground, 50, seed=1) == schedule(ground, 50, seed=1)
    assert schedule(ground, 50, seed=1)[:20] == schedule(ground, 20, seed=1)
    assert schedule(ground, 50, seed=1) != schedule(ground, 50, seed=2)


def test_every_kind_that_a_ground_allows_strikes_before_any_comes_again() -> None:
    with ground_of("sqlite") as ground:
        drawn = {name for name, _ in schedule(ground, 6, seed=3)}
    assert drawn == {
        name for name, kind in KINDS.items() if kind.weight_on_file and kind.needs in ("", "file")
    }


def test_on_a_url_of_somebody_else_only_workers_and_connections_are_harmed() -> None:
    with ground_of("redis://user:word@127.0.0.1:6379/3?socket_timeout=1") as ground:
        assert ground.proxy is not None
        assert ground.url == f"redis://user:word@127.0.0.1:{ground.proxy.port}/3?socket_timeout=1"
        needed = {KINDS[name].needs for name, _ in schedule(ground, 100, seed=4)}
    assert needed == {"", "proxy"}


def test_a_target_that_cannot_be_harmed_is_refused() -> None:
    with pytest.raises(SystemExit, match="must be one of"), ground_of("memory://"):
        pass


def test_nothing_of_it_is_left_at_a_url_of_somebody_else(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with open_store(url) as store:
        store.append(an_event())
        run_campaign(url, faults=2, seed=5, workers=1)
        assert store.get_current_sequence() == 1
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    assert names
    assert not [name for name in names if name.startswith("campaign")]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_campaign_leaves_nothing_behind(
    tmp_path: Path, ending: signal.Signals
) -> None:
    # Given a campaign in the middle of its work
    campaign = subprocess.Popen(
        [sys.executable, "-m", "tests.campaign", "sqlite", "--faults", "1000"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + WAIT
        while not any(path.stat().st_size for path in tmp_path.glob("*/worker-*.jsonl")):
            assert campaign.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline, "no worker recorded anything"
            time.sleep(0.05)
        # When it is told to end
        campaign.send_signal(ending)
        campaign.wait(WAIT)
        # Then its files are gone, and its workers too
        assert list(tmp_path.iterdir()) == []
        while _some_live(campaign.pid):
            assert time.monotonic() < deadline, "a worker lives on"
            time.sleep(0.05)
    finally:
        if _some_live(campaign.pid):
            os.killpg(campaign.pid, signal.SIGKILL)
        campaign.wait()


def _some_live(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
