"""The project's own benchmarks: claims, what is told of them, and the peers' protocol."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.contest import Claim, Duel, Effort, Finding, ratio
from benchmarks.peers.contenders import OURS, PEERS
from benchmarks.peers.environments import Worker
from benchmarks.peers.matches import Facts, Gathering, Match, Tail, findings
from benchmarks.raw_sqlite import RawSqlite
from benchmarks.results import Results, verdict, write
from eventstore import EventQuery, open_store
from eventstore.bench.measure import Comparison, Rates
from eventstore.bench.report import Report

CLAIM = Claim(engine="sqlite", what="batches", against="raw", mark=0.6)
REPORT = Report(
    made_at="2026-01-31T12:00:00+00:00",
    version="1.0",
    machine="a machine",
    load=0.5,
    event_bytes=225,
    quick=True,
    stores=[],
)
TINY = Effort(rounds=3, seconds=0.01, read=1000)


def comparison(ours: float) -> Comparison:
    return Comparison(reference=Rates((10.0, 10.0, 10.0)), ours=Rates((ours - 1, ours, ours + 1)))


@pytest.mark.parametrize(
    ("ours", "applies", "told"),
    [(6.0, True, "yes"), (5.0, True, "**no**"), (6.0, False, "does not apply")],
)
def test_a_claim_is_met_by_the_middle_round(ours: float, applies: bool, told: str) -> None:
    assert verdict(ratio(CLAIM, comparison(ours), applies=applies)) == told


def test_a_claim_of_at_most_is_met_from_below() -> None:
    claim = Claim(engine="redis", what="wake-up", against="", mark=2.0, kind="at most", unit="ms")
    assert verdict(Finding(claim=claim, figure=Rates((1.0, 2.0, 9.0)))) == "yes"
    assert verdict(Finding(claim=claim, figure=Rates((1.0, 2.1, 2.2)))) == "**no**"


def test_what_is_in_the_way_is_told_where_a_mark_is_missed(tmp_path: Path) -> None:
    claim = msgspec.structs.replace(CLAIM, obstacle="its disk is slow")
    for ours, times in ((5.0, 1), (6.0, 0)):
        finding = ratio(claim, comparison(ours))
        write(Results(report=REPORT, findings=[finding], gatherings=[]), tmp_path)
        assert (tmp_path / "RESULTS.md").read_text("utf-8").count("its disk is slow") == times


@pytest.mark.parametrize("at_once", [1, 10])
def test_the_raw_limit_of_sqlite_stores_what_the_store_does(tmp_path: Path, at_once: int) -> None:
    # Given a raw writer that wrote a batch, and single events after it
    raw = RawSqlite(tmp_path / "raw.db", at_once)
    for step in (raw.batch(1000), raw.single(), raw.single()):
        step()

    # When the store opens what it wrote, Then it finds a log as it would have written it
    with open_store(f"sqlite:///{tmp_path}/raw.db") as store:
        assert store.get_current_sequence() == 1002
        entity_type, entity_id, _ = raw.numbers.stretch.event(1001).entity
        found = store.get_events_for_entity(entity_type, entity_id)
        assert [event.version for event in found] == list(range(1, len(found) + 1))
        assert found[-1].sequence == 1002
        assert store.count_events(EventQuery(tags=["customer:7"])) == 2
        assert sum(1 for _ in store.get_events()) == raw.read_all()() == 1002
    raw.close()


def test_a_duel_reads_logs_of_the_same_length(tmp_path: Path) -> None:
    raw = RawSqlite(tmp_path / "raw.db")
    with open_store(f"sqlite:///{tmp_path}/ours.db") as store:
        found = Duel(store, raw, TINY).read_all()
        assert len(found.ratios.rounds) == TINY.rounds
        assert raw.read_all()() == store.get_current_sequence()
    raw.close()


def test_a_worker_does_what_it_is_told_in_a_process_of_its_own(tmp_path: Path) -> None:
    with Worker(OURS) as writer, Worker(OURS) as reader:
        # Given two processes over one log
        url = f"sqlite:///{tmp_path}/log.db"
        assert writer.open(url)["settings"] == "synchronous=FULL"
        reader.open(url)

        # When one writes while the other reads the tail
        reader.begin("tail", seconds=0.5)
        written = writer.ask("single", writers=2, seconds=0.3, batch=10)["done"]

        # Then the reader has seen it all
        assert written > 0
        assert reader.answer()["seen"] == written
        writer.ask("fill", events=200)
        assert writer.rate("streams", seconds=0.01) > 0
        assert writer.rate("read_all") > 0


def gathering() -> Gathering:
    """A meeting with a peer that is faster, and why."""
    peer = next(peer for peer in PEERS if peer.name == "stabilize")
    rates = {OURS.name: Rates((1.0, 2.0, 3.0)), peer.name: Rates((4.0, 4.0, 4.0))}
    return Gathering(
        engine="postgres",
        facts=[
            Facts(contender=each, version="1", python="3", settings="") for each in (OURS, peer)
        ],
        matches=[Match(workload="single appends, 8 writers", unit="events/s", rates=rates)],
        tails=[
            Tail(contender=OURS.name, stored=100, missed=0),
            Tail(contender=peer.name, stored=100, missed=75),
        ],
        absent={"logicblocks": "it needs Python 3.13"},
    )


def test_a_peer_that_loses_events_is_named_as_such() -> None:
    (finding,) = findings(gathering())
    assert finding.claim.against == "the best peer, stabilize"
    assert finding.figure.median == 0.5
    assert "weaker guarantee" in finding.note


def test_more_is_claimed_against_the_peer_with_as_strong_a_guarantee() -> None:
    # Given a meeting of ours with two peers, the faster of which guarantees less
    meeting = gathering()
    rates = {OURS.name: 6.0, "stabilize": 4.0, "eventsourcing": 2.0}
    meeting.matches[0] = Match(
        workload="batches of 100",
        unit="events/s",
        rates={name: Rates((each, each, each)) for name, each in rates.items()},
        busy=0.4,
    )

    # When the claims are judged
    best, rival = findings(meeting)

    # Then ours is to be ahead of the best, and twice as fast as the other, in one moment's load
    assert (best.claim.against, best.claim.mark) == ("the best peer, stabilize", 1.0)
    assert (rival.claim.against, rival.claim.mark) == ("eventsourcing", 2.0)
    assert (best.figure.median, rival.figure.median) == (1.5, 3.0)
    assert best.busy == rival.busy == 0.4


def test_figures_of_a_stand_in_are_told_as_its_own(tmp_path: Path) -> None:
    # Given figures of an engine whose protocol another product spoke
    claim = msgspec.structs.replace(CLAIM, engine="mongodb")
    found = [msgspec.structs.replace(ratio(claim, comparison(6.0)), busy=0.5)]
    server = "SecantusDB 0.5.3, announced as MongoDB 8.2.11"
    write(
        Results(report=REPORT, findings=found, gatherings=[], servers={"mongodb": server}), tmp_path
    )

    # Then the page and the chart name that product, and the load beside the figure
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert f"What is told of MongoDB was measured on {server}." in page
    assert "| MongoDB (SecantusDB) | batches |" in page
    assert "0.60 (0.50–0.70) ‡" in page
    assert "MongoDB (SecantusDB)" in (tmp_path / "charts" / "claims.svg").read_text("utf-8")


def test_results_are_written_with_their_charts(tmp_path: Path) -> None:
    found = [ratio(CLAIM, comparison(6.0)), *findings(gathering())]
    results = Results(report=REPORT, findings=found, gatherings=[gathering()])
    results.failures.append("Redis: no server")
    write(results, tmp_path)
    page = (tmp_path / "RESULTS.md").read_text("utf-8")
    assert "1 of 2 are met in this run." in page
    assert "| stabilize † |" in page
    assert "logicblocks did not take part: it needs Python 3.13" in page
    assert "**Not measured:** Redis: no server" in page
    assert {file.name for file in (tmp_path / "charts").iterdir()} == {
        "claims.svg",
        "peers-postgres.svg",
        "tail.svg",
    }
