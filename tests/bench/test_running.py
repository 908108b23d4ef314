"""A run over one store: its figures, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from eventstore import ConfigurationError, Event, open_store
from eventstore.bench.report import Report, as_markdown, rows_of
from eventstore.bench.running import Effort, StoreReport, report_on

TINY = Effort(seconds=0.02, calls=3, read=2000, sizes=(1000, 3000), rounds=3)


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
    report = Report(
        made_at="2026-01-31T12:00:00+00:00",
        version="1.0",
        machine="a machine",
        load=0.5,
        event_bytes=225,
        quick=True,
        stores=[whole, part],
    )

    # When it is kept as JSON and shown as a page
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    page = as_markdown(report, [("Rates", "rates.svg")])

    # Then each workload is a row with a cell for each store
    first, *_ = rows_of(report.stores)
    assert first[1][1] == "–"
    for title, cells in rows_of(report.stores):
        assert f"| {title} | {' | '.join(cells)} |" in page
    assert "![Rates](rates.svg)" in page
