"""A run over one store: its figures, and that nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from eventstore import ConfigurationError, Event, open_store
from eventstore.bench.machine import with_load
from eventstore.bench.report import Report, as_markdown, rows_of
from eventstore.bench.running import Effort, Result, StoreReport, report_on

TINY = Effort(seconds=0.02, calls=3, read=2000, sizes=(1000, 3000), rounds=3)
WHOLE = Report(
    made_at="2026-01-31T12:00:00+00:00",
    version="1.0",
    machine="a machine",
    load=0.5,
    event_bytes=225,
    quick=True,
    stores=[],
)


def nothing_told(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def sqlite_report(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoreReport, Path]:
    path = tmp_path_factory.mktemp("bench") / "bench.db"
    return report_on(f"sqlite:///{path}", "sqlite", TINY, nothing_told), path


def test_every_workload_has_a_figure(sqlite_report: tuple[StoreReport, Path]) -> None:
    report, _ = sqlite_report
    for result in report.results:
        assert result.rates or result.latencies or result.number, result.workload
        assert result.rates is None or len(result.rates.rounds) >= 3
    assert [r.events for r in report.results if r.events] == [1000, 1000, 3000, 3000]


def test_a_report_names_what_was_measured(sqlite_report: tuple[StoreReport, Path]) -> None:
    report, _ = sqlite_report
    assert report.server.startswith("SQLite ")
    assert report.durability == "synchronous=FULL"
    assert report.driver.startswith("sqlite3 ")


def test_a_file_that_the_run_made_is_gone(sqlite_report: tuple[StoreReport, Path]) -> None:
    _, path = sqlite_report
    assert list(path.parent.iterdir()) == []


def test_the_bytes_of_an_event_are_of_a_file_of_its_own(
    sqlite_report: tuple[StoreReport, Path],
) -> None:
    # Given a run whose log was written to, and whose write-ahead log is four times as long
    report, _ = sqlite_report
    (size,) = (result.number for result in report.results if result.unit == "bytes")

    # Then what is told is what events take, not what the run has left in its file
    assert size is not None
    assert 450 < size < 800


def test_a_server_that_is_another_product_is_named_beside_the_store(
    sqlite_report: tuple[StoreReport, Path],
) -> None:
    report, _ = sqlite_report
    for name, server, shown in (
        ("sqlite", "SQLite 3.40.1", "sqlite"),
        ("postgres 2", "PostgreSQL 18.4", "postgres 2"),
        ("memory", "none", "memory"),
        ("redis", "Valkey 9.1.2", "redis (Valkey)"),
        ("mongodb", "SecantusDB 0.5.3, announced as MongoDB 8.2.11", "mongodb (SecantusDB)"),
    ):
        assert msgspec.structs.replace(report, name=name, server=server).shown == shown


def test_a_figure_measured_under_load_says_so(sqlite_report: tuple[StoreReport, Path]) -> None:
    # Given one figure of a busy moment among those of a quiet machine
    report, _ = sqlite_report
    quiet = [msgspec.structs.replace(result, busy=0.05) for result in report.results]
    loaded = [msgspec.structs.replace(quiet[0], busy=0.6), *quiet[1:]]

    def page(results: list[Result]) -> str:
        store = msgspec.structs.replace(report, results=results)
        return as_markdown(msgspec.structs.replace(WHOLE, stores=[store]))

    # Then it carries a mark, and the mark is explained; else there is none
    assert page(loaded).count("‡") == 2
    assert f"Measured under load, 1 of {len(quiet)} figures: other work kept 60% to" in page(loaded)
    assert "‡" not in page(quiet)


def test_the_work_of_others_is_noticed() -> None:
    # Given a process that keeps a processor busy
    command = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()

        # When something is measured beside it
        ((_, busy),) = with_load(["a figure"])
        other.kill()

    # Then it is seen to take at least half a processor
    assert busy is not None
    assert busy > 0.5 / (os.cpu_count() or 1)


def test_a_log_for_one_process_says_so() -> None:
    report = report_on("memory://", "memory", TINY, nothing_told)
    notes = {result.workload: result.note for result in report.results if result.note}
    assert notes["single append, 4 processes"] == "for one process alone"


def test_a_namespace_that_holds_anything_is_refused_and_kept(tmp_path: Path) -> None:
    # Given a log with an event
    url = f"sqlite:///{tmp_path}/orders.db?namespace=orders"
    with open_store(url) as store:
        store.append(Event(event_type="OrderPlaced", entity_type="order", entity_id="o-1"))

    # When a run is pointed at it
    with pytest.raises(ConfigurationError, match="namespace: 'orders' holds events"):
        report_on(url, "sqlite", TINY, nothing_told)

    # Then it is as it was
    with open_store(url, create=False) as store:
        assert store.get_current_sequence() == 1


@pytest.mark.parametrize("moment", ["filling", "16 threads", "4 processes", "waiting reader"])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, moment: str) -> None:
    # Given someone who presses Ctrl-C at some moment of a run
    def tell(text: str) -> None:
        if moment in text:
            raise KeyboardInterrupt

    # When the run begins
    with pytest.raises(KeyboardInterrupt):
        report_on(f"sqlite:///{tmp_path}/bench.db", "sqlite", TINY, tell)

    # Then its log is gone, and its file
    assert list(tmp_path.iterdir()) == []


def test_other_logs_in_the_file_stay(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    with open_store(url) as store:
        store.append(Event(event_type="OrderPlaced", entity_type="order", entity_id="o-1"))
        report_on(url, "sqlite", TINY, nothing_told)
        assert store.get_current_sequence() == 1


def test_a_report_reads_back_and_shows_every_figure(
    sqlite_report: tuple[StoreReport, Path],
) -> None:
    # Given a report over two stores, one of which lacks a figure
    whole, _ = sqlite_report
    part = msgspec.structs.replace(whole, name="part", results=whole.results[1:])
    report = msgspec.structs.replace(WHOLE, stores=[whole, part])

    # When it is kept as JSON and shown as a page
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    page = as_markdown(report, [("Rates", "rates.svg")])

    # Then each workload is a row with a cell for each store
    first, *_ = rows_of(report.stores)
    assert first[1][1] == "–"
    for title, cells in rows_of(report.stores):
        assert f"| {title} | {' | '.join(cells)} |" in page
    assert "![Rates](rates.svg)" in page
