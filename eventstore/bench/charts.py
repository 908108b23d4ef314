"""Charts with matplotlib (extra ``bench``): readable in print, one colour a store throughout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from eventstore.bench.report import Report
from eventstore.bench.running import Result, StoreReport

Span = tuple[float, float, float]
"""A figure with the least and the most it was."""

COLOURS: Final = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7f7f7f", "#8c564b",
)  # fmt: skip
"""Told apart by the colour-blind too (Okabe and Ito)."""

_STYLE: Final[dict[Any, Any]] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "eventstore",  # the same figures give the same file
}


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each store."""
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def bars(
    path: Path,
    title: str,
    axis: str,
    groups: Mapping[str, Mapping[str, Span]],
    colours: Mapping[str, str],
    *,
    scale: Literal["log", "linear"] = "log",
    mark: float | None = None,
    legend: bool = True,
    labelled: Callable[[Span], str] | None = None,
) -> None:
    """Draw groups of horizontal bars, one for each store, with the span of each figure.

    ``labelled`` says what stands at the end of a span; the figure alone, unless given.
    """
    names = [name for name in colours if any(name in group for group in groups.values())]
    lines = sum(len(group) for group in groups.values()) + 0.8 * len(groups)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.5, 1.3 + 0.19 * lines), layout="constrained")
        axes = figure.add_subplot()
        places, labels, at = [], [], 0.0
        largest = max(most for group in groups.values() for _, _, most in group.values())
        for label, group in groups.items():
            shown = [name for name in names if name in group]
            places.append(at + (len(shown) - 1) / 2)
            labels.append(label)
            for name in shown:
                middle, least, most = group[name]
                axes.barh(
                    at,
                    middle,
                    height=0.85,
                    color=colours[name],
                    xerr=[[max(middle - least, 0)], [max(most - middle, 0)]],
                    error_kw={"elinewidth": 0.7, "ecolor": "#444444"},
                )
                axes.annotate(
                    labelled(group[name]) if labelled else _short(middle),
                    (max(most, middle), at),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                )
                at += 1
            at += 0.8
        axes.set_yticks(places, labels)
        axes.set_ylim(at - 0.8, -1.2)  # downwards, as one reads
        axes.set_xscale(scale)
        axes.set_xlabel(axis)
        if scale == "log":
            _plain_log_ticks(axes.xaxis)
            least_of_all = min(least for group in groups.values() for _, least, _ in group.values())
            axes.set_xlim(_decade_below(least_of_all), largest * (2.2 if labelled is None else 4))
        else:
            axes.set_xlim(0, max(largest, 1) * 1.12)
        if mark is not None:
            axes.axvline(mark, color="#444444", linewidth=0.8, linestyle="--")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
        if legend and len(names) > 1:
            handles = [mpl.patches.Patch(color=colours[name], label=name) for name in names]
            figure.legend(
                handles=handles,
                loc="outside lower center",
                ncols=min(len(names), 5),
                frameon=False,
            )
        figure.savefig(path, metadata=_undated(path))


def lines(
    path: Path,
    title: str,
    axes_titles: tuple[str, str],
    series: Mapping[str, Sequence[tuple[float, Span]]],
    colours: Mapping[str, str],
) -> None:
    """Draw a line for each store, both axes logarithmic, with the span of each point."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.5, 4), layout="constrained")
        axes = figure.add_subplot()
        for name, points in series.items():
            x = [place for place, _ in points]
            middle, least, most = zip(*(span for _, span in points), strict=True)
            axes.plot(x, middle, marker="o", markersize=4, color=colours[name], label=name)
            axes.fill_between(x, least, most, color=colours[name], alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_log_ticks(axes.xaxis)
        _plain_log_ticks(axes.yaxis)
        axes.set_xlabel(axes_titles[0])
        axes.set_ylabel(axes_titles[1])
        axes.grid(color="#dddddd", linewidth=0.6)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
        figure.legend(loc="outside right center", frameon=False)
        figure.savefig(path, metadata=_undated(path))


def draw(
    report: Report,
    directory: Path,
    kind: str = "svg",
    colours: Mapping[str, str] | None = None,
) -> list[tuple[str, str]]:
    """Draw the charts of a report; return their titles and file names."""
    stores = report.stores
    colours = colours or colours_of([store.shown for store in stores])
    made = []
    rates = _groups(stores, "events/s", _rate_span)
    if rates:
        title = "Appending and reading: events a second (more is better)"
        bars(directory / f"rates.{kind}", title, "events/s, logarithmic", rates, colours)
        made.append((title, f"rates.{kind}"))
    waits = _groups(stores, "s", _latency_span)
    if waits:
        title = "Single calls: p50 / p99, which is the end of the line (less is better)"
        bars(
            directory / f"latencies.{kind}",
            title,
            "ms, logarithmic",
            waits,
            colours,
            labelled=_p50_and_p99,
        )
        made.append((title, f"latencies.{kind}"))
    for file, unit, title, axis, span in (
        ("growth-appends", "events/s", "Appending as the log grows", "events/s", _rate_span),
        (
            "growth-reads",
            "s",
            "Reading one entity as the log grows",
            "ms, p50 to p99",
            _latency_span,
        ),
    ):
        series = {
            store.shown: points
            for store in stores
            if len(points := _points(store.results, unit, span)) > 1
        }
        if series:
            axes = ("events stored, logarithmic", f"{axis}, logarithmic")
            lines(directory / f"{file}.{kind}", title, axes, series, colours)
            made.append((title, f"{file}.{kind}"))
    return made


def _rate_span(result: Result) -> Span | None:
    rates = result.rates
    return None if rates is None else (rates.median, rates.least, rates.most)


def _latency_span(result: Result) -> Span | None:
    found = result.latencies
    return None if found is None else (found.p50 * 1000, found.p50 * 1000, found.p99 * 1000)


def _p50_and_p99(span: Span) -> str:
    p50, _, p99 = span
    return f"{_short(p50)} / {_short(p99)}"


def _groups(stores: Sequence[StoreReport], unit: str, span: Any) -> dict[str, dict[str, Span]]:
    groups: dict[str, dict[str, Span]] = {}
    for store in stores:
        for result in store.results:
            if result.events is None and result.unit == unit and (found := span(result)):
                groups.setdefault(result.workload, {})[store.shown] = found
    return groups


def _points(results: Sequence[Result], unit: str, span: Any) -> list[tuple[float, Span]]:
    return [
        (result.events, found)
        for result in results
        if result.events is not None and result.unit == unit and (found := span(result))
    ]


def _plain_log_ticks(axis: Any) -> None:
    axis.set_major_locator(LogLocator(base=10, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def _decade_below(value: float) -> float:
    """Return a power of ten well below: a bar needs some length to be seen."""
    return float(10.0 ** math.floor(math.log10(value / 2)))


def _short(value: float) -> str:
    """Return a number as people say it: three digits at most."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit * 0.9995:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _undated(path: Path) -> dict[str, None]:
    return {"Date": None} if path.suffix == ".svg" else {}
