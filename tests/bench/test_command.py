"""``eventstore bench``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eventstore.bench.running import Effort
from eventstore.cli import bench
from eventstore.cli.app import app


@pytest.fixture(autouse=True)
def a_tiny_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Effort(seconds=0.01, calls=3, read=1000, sizes=(1000, 2000), rounds=3)
    monkeypatch.setattr(bench, "QUICK", tiny)


def test_two_stores_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "out"
    urls = ["memory://", f"sqlite:///{tmp_path}/bench.db"]
    result = CliRunner().invoke(
        app, ["bench", "--quick", *urls, "--out", str(out)], env={"COLUMNS": "160"}
    )
    assert result.exit_code == 0, result.output
    assert "SQLite 3" in result.output
    assert "read all (events/s)" in result.output

    names = [store["name"] for store in json.loads((out / "results.json").read_text())["stores"]]
    assert names == ["memory", "sqlite"]
    page = (out / "report.md").read_text()
    for chart in ("rates.svg", "latencies.svg", "growth-appends.svg", "growth-reads.svg"):
        assert f"({chart})" in page
        assert (out / chart).read_text().startswith("<?xml")
    assert not (tmp_path / "bench.db").exists()


def test_latencies_are_labelled_with_p50_and_p99(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "--quick", "memory://", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output

    (store,) = json.loads((tmp_path / "results.json").read_text())["stores"]
    wanted = [
        (each["latencies"]["p50"] * 1000, each["latencies"]["p99"] * 1000)
        for each in store["results"]
        if each["latencies"] and each["events"] is None
    ]
    labels = re.findall(r">([\d.]+) / ([\d.]+)<", (tmp_path / "latencies.svg").read_text())
    assert [(float(p50), float(p99)) for p50, p99 in labels] == [
        pytest.approx(pair, rel=0.01) for pair in wanted
    ]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(bench, "report_on", lambda *_: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    out = tmp_path / place

    result = CliRunner().invoke(app, ["bench", "--quick", "memory://", "--out", str(out)])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"eventstore: {out}: ")
    assert result.stderr.count("\n") == 1


def test_urls_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_URL", "memory://")
    monkeypatch.setenv("EVENTSTORE_URL", "memory://")

    both = CliRunner().invoke(app, ["bench", "--quick", "memory://", "--url-env", "ONE_URL"])
    default = CliRunner().invoke(app, ["bench", "--quick"])

    assert "memory 2: none" in both.output
    assert "memory: none" in default.output


def test_stores_of_one_kind_are_numbered() -> None:
    result = CliRunner().invoke(app, ["bench", "--quick", "memory://", "memory://"])
    assert "memory 1: none" in result.output
    assert "memory 2: none" in result.output


def test_a_url_that_is_none_is_one_sentence() -> None:
    result = CliRunner().invoke(app, ["bench", "--quick", "orders.db"])
    assert result.exit_code == 2
    assert "has no scheme" in result.output
