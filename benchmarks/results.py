"""RESULTS.md and the charts beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.contest import Finding
from benchmarks.peers.contenders import OURS, PEERS
from benchmarks.peers.matches import Gathering, Match
from eventstore.bench.charts import bars, colours_of, draw
from eventstore.bench.measure import Rates
from eventstore.bench.report import (
    Report,
    description,
    figures,
    load_told,
    mark_of,
    rate_text,
    table,
)

ENGINES: Final = {
    "memory": "Memory",
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "redis": "Redis",
    "mongodb": "MongoDB",
}


class Results(msgspec.Struct, kw_only=True):
    """Everything that one run found."""

    report: Report
    """Our stores beside each other, as ``eventstore bench`` reports them."""
    findings: list[Finding]
    gatherings: list[Gathering]
    failures: list[str] = msgspec.field(default_factory=list)
    """What could not be measured, and why."""
    minutes: float = 0.0
    servers: dict[str, str] = {}
    """What each engine's server was found to be."""

    def shown(self, engine: str) -> str:
        """Return what an engine is called: with its server, where that is another product."""
        name = ENGINES[engine]
        product = self.servers.get(engine, name).partition(" ")[0]
        return name if product in ("none", name) else f"{name} ({product})"


def write(results: Results, directory: Path, kind: str = "svg") -> None:
    """Write ``results.json``, the charts and ``RESULTS.md``."""
    charts = directory / "charts"
    charts.mkdir(parents=True, exist_ok=True)
    for old in charts.glob(f"*.{kind}"):
        old.unlink()
    encoded = msgspec.json.format(msgspec.json.encode(results))
    (directory / "results.json").write_bytes(encoded + b"\n")
    lines = [
        "# Results",
        "",
        (
            f"Made by `python -m benchmarks` on {results.report.made_at[:10]}, in"
            f" {results.minutes:.0f} minutes."
        ),
        *description(results.report),
        "",
        *_stand_ins(results),
        (
            "Everything is measured in turn in one run: a round of the reference, a round of ours,"
            " and so on; figures are the median of the rounds with the least and the most. "
            "[README.md](README.md) tells how, and how to run it."
        ),
        "",
        *(f"**Not measured:** {failure}" for failure in results.failures),
        *_claims(results, charts, kind),
        *_peers(results, charts, kind),
        *_tails(results, charts, kind),
        *_stores(results.report, charts, kind),
    ]
    (directory / "RESULTS.md").write_text("\n".join(lines) + "\n", "utf-8")


# --- Claims


def _stand_ins(results: Results) -> list[str]:
    """Return what is said where a server is another product than its engine's name says."""
    told = [
        f"What is told of {ENGINES[engine]} was measured on {server}."
        for engine, server in results.servers.items()
        if results.shown(engine) != ENGINES[engine]
    ]
    return [*told, ""] if told else []


def _claims(results: Results, charts: Path, kind: str) -> list[str]:
    findings = results.findings
    if not findings:
        return []
    counted = [finding for finding in findings if finding.applies]
    met = sum(finding.met for finding in counted)
    lines = ["## Claims", "", f"{met} of {len(counted)} are met in this run.", ""]
    rows = [
        [
            results.shown(finding.claim.engine),
            finding.claim.what,
            finding.claim.against or "–",
            (
                f"{'≥' if finding.claim.kind == 'at least' else '≤'}"
                f" {finding.claim.mark:.3g} {finding.claim.unit}"
            ),
            (
                f"{_number(finding.figure.median)}"
                f" ({_number(finding.figure.least)}–{_number(finding.figure.most)})"
                f"{mark_of(finding.busy)}"
            ),
            verdict(finding),
            _detail(finding),
        ]
        for finding in findings
    ]
    head = ["engine", "what", "against", "mark", "found", "met", "detail"]
    busy = [finding.busy for finding in findings]
    lines += [*table(head, rows), "", *load_told(busy), ""]
    _draw_claims(results, charts / f"claims.{kind}")
    return [*lines, f"![How far each claim is from its mark](charts/claims.{kind})", ""]


def verdict(finding: Finding) -> str:
    """Return in a word whether a claim is met."""
    if not finding.applies:
        return "does not apply"
    return "yes" if finding.met else "**no**"


def _detail(finding: Finding) -> str:
    parts = []
    if finding.ours is not None and finding.reference is not None:
        parts.append(f"{finding.ours.median:,.0f}/s to {finding.reference.median:,.0f}/s")
    if finding.note:
        parts.append(finding.note)
    if finding.applies and not finding.met and finding.claim.obstacle:
        parts.append(finding.claim.obstacle)
    return "; ".join(parts)


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _draw_claims(results: Results, path: Path) -> None:
    findings = results.findings
    names = {engine: results.shown(engine) for engine in ENGINES}
    groups: dict[str, dict[str, tuple[float, float, float]]] = {}
    for finding in findings:
        if not finding.applies:
            continue
        claim, figure = finding.claim, finding.figure
        spans = (figure.median, figure.least, figure.most)
        if claim.kind == "at least":
            middle, least, most = (value / claim.mark for value in spans)
        else:
            middle, most, least = (claim.mark / value for value in spans)
        label = f"{claim.what} / {claim.against}" if claim.against else claim.what
        groups[f"{names[claim.engine]}: {label}"] = {names[claim.engine]: (middle, least, most)}
    bars(
        path,
        "How far each claim is from its mark (1: just met; more is better)",
        "part of the mark, logarithmic",
        groups,
        colours_of(list(names.values())),
        mark=1.0,
    )


# --- Peers


def _peers(results: Results, charts: Path, kind: str) -> list[str]:
    gatherings = results.gatherings
    if not any(gathering.matches for gathering in gatherings):
        return []
    lines = ["## Peers", "", "On the same servers, with the same durability, in the same run.", ""]
    rows: dict[str, list[str]] = {}
    for gathering in gatherings:
        for facts in gathering.facts:
            set_to = f"{ENGINES[gathering.engine]}: {facts.settings}" if facts.settings else ""
            row = rows.setdefault(
                facts.contender.name,
                [facts.contender.name, facts.version, facts.python, facts.contender.note, ""],
            )
            row[4] = "; ".join(part for part in (row[4], set_to) if part)
    head = ["store", "version", "Python", "what it guarantees, how it is used", "found set to"]
    lines += [*table(head, list(rows.values())), ""]
    for gathering in gatherings:
        if not gathering.matches:
            continue
        name = results.shown(gathering.engine)
        contenders = [facts.contender.name for facts in gathering.facts]
        body = [_row(match, contenders) for match in gathering.matches]
        leaking = gathering.leaking().intersection(contenders)
        marked = [f"{each} †" if each in leaking else each for each in contenders]
        lines += [f"### {name}", "", *table(["a second", *marked, "ours to the best"], body), ""]
        lines += [*load_told([match.busy for match in gathering.matches]), ""]
        if leaking:
            lines += ["† A reader of its tail missed events, see below: a weaker guarantee.", ""]
        for absent, why in gathering.absent.items():
            lines += [f"{absent} did not take part: {why}", ""]
        file = f"peers-{gathering.engine}.{kind}"
        _draw_peers(gathering, name, charts / file)
        lines += [f"![{name}: peers](charts/{file})", ""]
    return lines


def _row(match: Match, contenders: Sequence[str]) -> list[str]:
    cells = [rate_text(match.rates[name]) for name in contenders]
    others = [rates.median for name, rates in match.rates.items() if name != OURS.name]
    ratio = f"{match.rates[OURS.name].median / max(others):.2f}" if others else "–"
    return [match.workload, *cells, ratio + mark_of(match.busy)]


def _contender_colours() -> dict[str, str]:
    names = [OURS.name, *(peer.name for peer in PEERS if not peer.tail_only)]
    colours = colours_of(names)
    variants = [peer.name for peer in PEERS if peer.tail_only]
    return colours | {name: colours[name.partition(",")[0]] for name in variants}


def _draw_peers(gathering: Gathering, name: str, path: Path) -> None:
    bars(
        path,
        f"{name}: this project and its peers (more is better)",
        "events/s (streams/s), logarithmic",
        {
            match.workload: {name: _span(rates) for name, rates in match.rates.items()}
            for match in gathering.matches
        },
        _contender_colours(),
    )


def _span(rates: Rates) -> tuple[float, float, float]:
    return rates.median, rates.least, rates.most


# --- The tail


def _tails(results: Results, charts: Path, kind: str) -> list[str]:
    tails = [
        (results.shown(gathering.engine), tail)
        for gathering in results.gatherings
        for tail in gathering.tails
    ]
    if not tails:
        return []
    rows = [
        [
            engine,
            tail.contender,
            f"{tail.stored:,}",
            f"{tail.missed:,}",
            f"{_missed(tail.missed, tail.stored):.1f} %",
        ]
        for engine, tail in tails
    ]
    bars(
        charts / f"tail.{kind}",
        "Events that a reader missed who remembers its last position (less is better)",
        "% of the events stored",
        {
            f"{tail.contender}, {engine}": {
                tail.contender: (_missed(tail.missed, tail.stored),) * 3
            }
            for engine, tail in tails
        },
        _contender_colours(),
        scale="linear",
        legend=False,
    )
    return [
        "## What a reader of the tail misses",
        "",
        (
            "Four processes with two writers each append, half of them single events and half"
            " batches of 50; a fifth reads on from the last position it saw. An event whose append"
            " returned and that the reader never got is missed."
        ),
        "",
        *table(["engine", "store", "events stored", "missed", "part"], rows),
        "",
        f"![Events missed by a tail reader](charts/tail.{kind})",
        "",
    ]


def _missed(missed: int, stored: int) -> float:
    return 100 * missed / max(stored, 1)


# --- Our stores beside each other


def _stores(report: Report, charts: Path, kind: str) -> list[str]:
    if not report.stores:
        return []
    made = draw(report, charts, kind)
    rows = [[s.shown, s.server, s.durability, s.driver] for s in report.stores]
    lines = [
        "## The stores beside each other",
        "",
        "As `eventstore bench` measures them.",
        "",
        *table(["store", "server", "durability", "driver"], rows),
        "",
        *figures(report),
        "",
    ]
    for title, file in made:
        lines += [f"![{title}](charts/{file})", ""]
    return lines
