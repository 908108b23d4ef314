"""``eventstore bench``: the same workloads against several stores."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from eventstore.backend.settings import split_url
from eventstore.bench.events import payload_bytes
from eventstore.bench.machine import describe_machine
from eventstore.bench.report import Report, as_markdown, load_told, rows_of
from eventstore.bench.running import FULL, QUICK, Effort, StoreReport, report_on
from eventstore.cli.errors import say
from eventstore.cli.files import told_of
from eventstore.cli.options import address_of, url_in
from eventstore.cli.output import print_table
from eventstore.errors import DurabilityWarning


def bench(
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL]…",
            show_default=False,
            help="Stores to compare, each an address of its own; without any, what the environment"
            " variable EVENTSTORE_URL holds.",
        ),
    ] = None,
    url_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="An environment variable that holds a URL more, which others on the machine cannot"
            " read; repeat it for several.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute for each URL: a rough picture.")
    ] = False,
    largest: Annotated[
        int | None,
        typer.Option(
            "--largest",
            metavar="N",
            min=1000,
            show_default=False,
            help="Let logs grow to N events at most (1,000,000; 10,000 with --quick).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            show_default=False,
            help="A folder for results.json, report.md and, with the extra 'bench', charts.",
        ),
    ] = None,
) -> None:
    """Measure stores: the same workloads against each URL.

    Each gets a namespace of its own, or the one its URL names if that is empty, and it is
    removed afterwards.
    """
    effort = _effort(QUICK if quick else FULL, largest)
    stores = [*(urls or ()), *map(url_in, url_env or ())] or [address_of().url]
    names = _names(stores)
    if out is not None:
        _check(out)  # now, and not after minutes of measuring
    load = os.getloadavg()[0]
    report = Report(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        version=version("eventstore-toolkit"),
        machine=describe_machine(),
        load=load,
        event_bytes=payload_bytes(),
        quick=quick,
        stores=_measured(stores, names, effort),
    )
    for store in report.stores:
        typer.echo(
            f"{store.shown}: {store.server}; {store.durability}; {store.driver}; {store.url}"
        )
    typer.echo(f"{report.machine}; load average {load:.1f}; events of {report.event_bytes} bytes\n")
    print_table(
        ["workload", *(store.shown for store in report.stores)],
        [(title, *cells) for title, cells in rows_of(report.stores)],
    )
    for line in load_told([result.busy for each in report.stores for result in each.results]):
        typer.echo(line)
    if out is not None:
        _write(report, out)
        typer.echo(f"\n{out / 'report.md'} has it all")


def _measured(urls: Sequence[str], names: Sequence[str], effort: Effort) -> list[StoreReport]:
    console = Console(stderr=True)
    reports = []
    with (
        Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[store]}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ) as bar,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always", DurabilityWarning)
        task = bar.add_task("", total=len(urls), store="")
        for url, name in zip(urls, names, strict=True):
            bar.update(task, store=name)
            reports.append(
                report_on(url, name, effort, lambda text: bar.update(task, description=text))
            )
            bar.advance(task)
    for message in dict.fromkeys(str(each.message) for each in caught):
        say(message, kind="warning: ")
    return reports


def _effort(effort: Effort, largest: int | None) -> Effort:
    if largest is None:
        return effort
    return msgspec.structs.replace(
        effort,
        read=min(effort.read, largest),
        sizes=(*(size for size in effort.sizes if size < largest), largest),
    )


def _names(urls: Sequence[str]) -> list[str]:
    """Return a short name for each store: its scheme, numbered where several have it."""
    schemes = [split_url(url)[0] for url in urls]
    return [
        scheme if schemes.count(scheme) == 1 else f"{scheme} {schemes[: place + 1].count(scheme)}"
        for place, scheme in enumerate(schemes)
    ]


def _check(out: Path) -> None:
    """Make the folder; OSError where no file can be made in it."""
    with told_of(out):
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass


def _write(report: Report, out: Path) -> None:
    (out / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    charts: list[tuple[str, str]] = []
    try:
        from eventstore.bench.charts import draw  # noqa: PLC0415 - an extra of its own
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        say("charts need matplotlib: pip install 'eventstore-toolkit[bench]'", kind="note: ")
    else:
        charts = draw(report, out)
    (out / "report.md").write_text(as_markdown(report, charts), "utf-8")
