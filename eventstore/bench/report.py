"""The figures of a run, as they are kept in ``results.json`` and shown to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from eventstore.bench.events import HEADLINE
from eventstore.bench.machine import LOADED
from eventstore.bench.measure import Latencies, Rates
from eventstore.bench.running import Result, StoreReport


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out about several stores in one run."""

    made_at: str
    version: str
    """Of this package."""
    machine: str
    load: float
    """The load average when it began: other work on the machine."""
    event_bytes: int
    """Of an event's data as JSON; names, tags, ids and metadata come on top."""
    quick: bool
    stores: list[StoreReport]


def title_of(result: Result) -> str:
    """Return what a row of a table is called."""
    at = "" if result.events is None else f", at {result.events:,} stored events"
    return result.workload + at


MARK: Final = "‡"
"""Beside a figure that was measured while other work went on."""


def mark_of(busy: float | None) -> str:
    """Return the mark for a figure, with a space before it; empty on a quiet machine."""
    return f" {MARK}" if busy is not None and busy > LOADED else ""


def load_told(busy: Sequence[float | None]) -> list[str]:
    """Return the lines that say which of the figures were measured under load, if any were."""
    known = [part for part in busy if part is not None]
    loaded = [part for part in known if part > LOADED]
    if not known:
        return ["This system does not say whether other work went on meanwhile."]
    if not loaded:
        return ["Other work kept at most a fifth of the processors busy throughout."]
    told = (
        f"{MARK} Measured under load, {len(loaded)} of {len(known)} figures: other work kept"
        f" {min(loaded):.0%} to {max(loaded):.0%} of the processors busy just before or after."
    )
    return [told]


def rows_of(stores: Sequence[StoreReport]) -> list[tuple[str, list[str]]]:
    """Return a row for each workload: its title and unit, and a cell for each store."""
    titles: dict[str, str] = {}
    for store in stores:
        for result in store.results:
            unit = "ms" if result.latencies else result.unit
            titles[title_of(result)] = f"{title_of(result)} ({_UNITS.get(unit, unit)})"
    cells = [
        {title_of(result): cell_of(result) + mark_of(result.busy) for result in store.results}
        for store in stores
    ]
    return [(shown, [of.get(title, "–") for of in cells]) for title, shown in titles.items()]


_UNITS: Final = {"ms": "ms: p50 / p99", "s": "ms: p50 / p99"}


def cell_of(result: Result) -> str:
    """Return a figure as text."""
    if result.rates is not None:
        return rate_text(result.rates)
    if result.latencies is not None:
        return latency_text(result.latencies)
    if result.number is not None:
        return f"{result.number:,.0f}"
    return result.note


def rate_text(rates: Rates) -> str:
    """Return median, least and most of a rate."""
    return f"{rates.median:,.0f} ({rates.least:,.0f}–{rates.most:,.0f})"


def latency_text(found: Latencies) -> str:
    """Return p50 and p99 in milliseconds."""
    return f"{found.p50 * 1000:.3g} / {found.p99 * 1000:.3g}"


def as_markdown(report: Report, charts: Sequence[tuple[str, str]] = ()) -> str:
    """Return the report as a page; ``charts`` are titles and file names."""
    lines = [
        f"# Benchmark of {report.made_at[:10]}",
        "",
        *description(report),
        "",
        "## Stores",
        "",
        *table(
            ["store", "server", "durability", "driver", "URL"],
            [[s.shown, s.server, s.durability, s.driver, f"`{s.url}`"] for s in report.stores],
        ),
        "",
        "## Figures",
        "",
        "Rates are the median of the rounds with the least and the most.",
        "",
        *figures(report),
    ]
    for title, file in charts:
        lines += ["", f"![{title}]({file})"]
    return "\n".join(lines) + "\n"


def description(report: Report) -> list[str]:
    """Return the lines that say where, when and with what it was measured."""
    return [
        f"eventstore-toolkit {report.version} on {report.machine}; load average"
        f" {report.load:.1f} at the beginning. An event's data is {report.event_bytes} bytes of"
        f" JSON; {HEADLINE}." + (" A quick run: a rough picture." if report.quick else "")
    ]


def figures(report: Report) -> list[str]:
    """Return the table of all figures."""
    head = ["workload", *(store.shown for store in report.stores)]
    busy = [result.busy for store in report.stores for result in store.results]
    return [
        *table(head, [[title, *cells] for title, cells in rows_of(report.stores)]),
        "",
        *load_told(busy),
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table, line by line."""
    return [
        f"| {' | '.join(head)} |",
        f"| {' | '.join('---' for _ in head)} |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
