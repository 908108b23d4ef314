"""``python -m benchmarks``: see README.md."""

from __future__ import annotations

import argparse
import gc
import os
import secrets
import sys
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Final

import msgspec
from rich.console import Console
from rich.status import Status

from benchmarks import contest, results
from benchmarks.claims import CLAIMS, GROWTH
from benchmarks.contest import Finding
from benchmarks.peers.matches import findings, meet
from benchmarks.results import ENGINES, Results, verdict
from eventstore import DurabilityWarning, drop_namespace, open_store
from eventstore.bench import running
from eventstore.bench.events import payload_bytes
from eventstore.bench.machine import describe_machine, with_load
from eventstore.bench.report import Report
from tests.kit.backends import BACKENDS

PARTS: Final = ("claims", "peers", "tail", "stores")
"""Of a whole run; ``--growth`` is apart."""

_HERE: Final = Path(__file__).parent
_PEERS: Final = msgspec.structs.replace(contest.FULL, rounds=3)
"""There are many of them."""
_STORES: Final = running.Effort(
    seconds=0.7, calls=300, read=50_000, sizes=(10_000, 100_000), patience=60.0
)
"""Our stores beside each other: shorter than ``eventstore bench`` by itself."""
_QUICK_STORES: Final = running.Effort(
    seconds=0.1, calls=50, read=5_000, sizes=(5_000,), patience=10.0
)


def main() -> None:
    """Run what is asked for and write the results."""
    arguments = _arguments()
    engines = arguments.engines or list(ENGINES)
    asked = [part for part in (*PARTS, "growth") if getattr(arguments, part)]
    parts = [*PARTS, *asked] if arguments.all or not asked else asked
    gc.collect()
    gc.freeze()  # what is imported is not ours to look through in the middle of a measurement
    console = Console(stderr=True)
    began = monotonic()
    found = Results(
        report=Report(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version("eventstore-toolkit"),
            machine=describe_machine(),
            load=os.getloadavg()[0],
            event_bytes=payload_bytes(),
            quick=arguments.quick,
            stores=[],
        ),
        findings=[],
        gatherings=[],
    )
    with console.status("") as status, warnings.catch_warnings():
        warnings.simplefilter("ignore", DurabilityWarning)  # the results name the durability
        for engine in engines:
            run = _Run(console, status, engine, found)
            try:
                run.start(parts)
            except Exception as error:  # noqa: BLE001 - the other engines' figures must not be lost
                found.failures.append(f"{ENGINES[engine]}: {type(error).__name__}: {error}")
                console.print_exception()
    found.minutes = (monotonic() - began) / 60
    results.write(found, arguments.out)
    console.print(f"{arguments.out / 'RESULTS.md'}, in {found.minutes:.1f} minutes")
    sys.exit(1 if found.failures else 0)


class _Run:
    """One engine's part of a run."""

    def __init__(self, console: Console, status: Status, engine: str, found: Results) -> None:
        self._console = console
        self._status = status
        self._engine = engine
        self._found = found
        quick = found.report.quick
        self._effort = contest.QUICK if quick else contest.FULL
        self._peers = contest.QUICK if quick else _PEERS
        self._stores = _QUICK_STORES if quick else _STORES

    def start(self, parts: Sequence[str]) -> None:
        """Start the engine's server and run these parts."""
        self._tell("starting")
        engine, found = self._engine, self._found
        with BACKENDS[engine].base_url() as url:
            found.servers[engine] = _server_at(url)
            if "claims" in parts and engine in CLAIMS:
                self._tell("claims")
                self._keep(CLAIMS[engine](url, self._effort))
            if "peers" in parts or "tail" in parts:
                with_matches = "peers" in parts
                gathering = meet(engine, url, self._peers, self._tell, with_matches=with_matches)
                found.gatherings.append(gathering)
                for finding in findings(gathering):
                    self._take(finding)
                for tail in gathering.tails:
                    seen = f"{tail.missed:,} of {tail.stored:,} missed"
                    self._console.print(f"{ENGINES[engine]}: tail of {tail.contender}: {seen}")
            if "growth" in parts and engine in GROWTH:
                self._tell("growth")
                self._keep(GROWTH[engine](url, self._effort))
            if "stores" in parts:
                report = running.report_on(url, engine, self._stores, self._tell)
                # Its URL was that of a server started for this run.
                found.report.stores.append(msgspec.structs.replace(report, url=""))

    def _tell(self, text: str) -> None:
        self._status.update(f"{ENGINES[self._engine]}: {text}")

    def _keep(self, measured: Iterable[Finding]) -> None:
        for finding, busy in with_load(measured):
            self._take(msgspec.structs.replace(finding, busy=busy))

    def _take(self, finding: Finding) -> None:
        self._found.findings.append(finding)
        _show(self._console, finding)


def _server_at(url: str) -> str:
    """Return what the server says it is, in full: what speaks an engine's protocol may be another
    product."""
    namespace = f"bench_{secrets.token_hex(4)}"
    try:
        with open_store(url, namespace=namespace) as store:
            return str(store.info().get("server", ""))
    finally:
        drop_namespace(url, namespace=namespace)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this project's claims beside the raw limit of each engine, and"
        " beside its peers. Starts every server it needs.",
    )
    # No choices=: argparse would refuse an empty list.
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=", ".join(ENGINES))
    parser.add_argument("--all", action="store_true", help="every engine and every part")
    parser.add_argument("--quick", action="store_true", help="a rough picture in minutes")
    for part, text in (
        ("claims", "our claims beside the raw limit"),
        ("peers", "peers beside us"),
        ("tail", "what a reader of the tail misses"),
        ("stores", "our stores beside each other"),
        ("growth", "logs of 3,000,000 events, which a whole run leaves out"),
    ):
        parser.add_argument(f"--{part}", action="store_true", help=f"only: {text}")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where RESULTS.md and the charts go; with --all this folder, else .cache within it",
    )
    arguments = parser.parse_args()
    for engine in arguments.engines:
        if engine not in ENGINES:
            parser.error(f"there is no engine {engine!r}; there are {', '.join(ENGINES)}")
    if not (
        arguments.all or arguments.engines or any(getattr(arguments, p) for p in (*PARTS, "growth"))
    ):
        parser.error("say which engines or parts to measure, or --all")
    if arguments.out is None:
        arguments.out = _HERE if arguments.all else _HERE / ".cache" / "results"
    return arguments


def _show(console: Console, finding: Finding) -> None:
    claim, figure = finding.claim, finding.figure
    console.print(
        f"{ENGINES[claim.engine]}: {claim.what}{' / ' if claim.against else ''}{claim.against}:"
        f" {figure.median:.2f} {claim.unit} ({figure.least:.2f}–{figure.most:.2f}),"
        f" {claim.kind} {claim.mark:.2f}: {verdict(finding)} {finding.note}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
