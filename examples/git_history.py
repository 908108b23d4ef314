"""The history of a git repository in an event store, and what can be read from it there.

    python examples/git_history.py                     # the repository it stands in, on SQLite
    python examples/git_history.py --repo ~/src/linux --url postgresql://localhost/history

A commit becomes an atomic batch: one event of the commit itself, and one for every file it
touches. A file is an entity, the commit is the workflow, the author a tag, the repository a
tenant (so that one store can hold many). Run it again and it adds what is new: ids are made
from the commit and the path, so nothing is ever stored twice, whether a run was interrupted or
a branch rewritten. A merge is one event; the files it brings were changed by its parents.

Needs: pip install 'eventstore-toolkit[cli]'
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid5

from git_log import Commit, GitError, Repository, text_of

try:
    from rich.console import Console, RenderableType
    from rich.progress import track
    from rich.table import Table
    from rich.text import Text

    from eventstore import Event, EventQuery, EventStore, EventStoreError, open_store
    from eventstore.transfer import append_in_order
except ModuleNotFoundError as error:
    sys.exit(f"git_history: {error}: pip install 'eventstore-toolkit[cli]'")

ID_SPACE: Final = UUID("6f0c8f5e-3c1b-5d0e-9b57-0f6a7c1f2d11")
EVENT_TYPES: Final = {"A": "FileAdded", "D": "FileDeleted", "R": "FileRenamed"}
MODIFIED: Final = "FileModified"
WORDS: Final = {
    "CommitMade": "a commit",
    "MergeMade": "a merge",
    "CommitFound": "a commit found",
    "FileAdded": "added",
    "FileModified": "modified",
    "FileDeleted": "deleted",
    "FileFound": "found",
}
MAX_NAME_BYTES: Final = 255


# --- From commits to events


def events_of(commit: Commit, *, is_boundary: bool) -> list[Event]:
    """Return a commit as the batch of events it is stored as.

    At the boundary of a shallow clone git compares with nothing and calls every file added.
    Such a commit gets events of other types and ids, so that the full history fits beside it.
    """
    tag = shortened(f"author:{commit.email or commit.author or 'unknown'}")

    def event(kind: str, entity: tuple[str, str], key: bytes, data: dict[str, Any]) -> Event:
        if is_boundary:
            kind, key = f"{entity[0].capitalize()}Found", b"found:" + key
        return Event(
            event_type=kind,
            entity_type=entity[0],
            entity_id=entity[1],
            event_id=uuid5(ID_SPACE, f"{commit.sha}:{key.hex()}"),
            workflow_id=commit.sha,
            tags=(tag,),
            timestamp=commit.committed,
            data=data,
        )

    about = {
        "subject": commit.subject,
        "author": commit.author,
        "email": commit.email,
        "authored_at": commit.authored.isoformat(),
        "parents": commit.parents,
        "files": len(commit.changes),
    }
    kind = "MergeMade" if len(commit.parents) > 1 else "CommitMade"
    batch = [event(kind, ("commit", commit.sha), b"", about)]
    for change in commit.changes:
        path = text_of(change.path)
        data: dict[str, Any] = {}
        if change.lines is None:
            data["binary"] = True
        else:
            data["insertions"], data["deletions"] = change.lines
        if change.old_path is not None:
            old_path = text_of(change.old_path)
            names = {"from": old_path, "to": path}
            batch.append(
                event("FileRenamed", ("file", shortened(old_path)), change.old_path, names)
            )
            data |= names
        if (name := shortened(path)) != path:
            data["path"] = path
        batch.append(
            event(EVENT_TYPES.get(change.status, MODIFIED), ("file", name), change.path, data)
        )
    return batch


def shortened(name: str) -> str:
    """Return a name that fits the store; a longer one ends in its hash."""
    encoded = name.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    digest = "~" + hashlib.sha256(encoded).hexdigest()[:16]
    return encoded[: MAX_NAME_BYTES - len(digest)].decode("utf-8", "ignore") + digest


# --- Into the store


def import_history(repository: Repository, store: EventStore, console: Console) -> None:
    """Append every commit that the store does not hold yet."""
    revisions = ["HEAD"]
    last = next(store.get_events(EventQuery(entity_type="commit", ascending=False, limit=1)), None)
    # Parents are stored before their children: all that leads to the last one is there, unless
    # a shallow clone once began somewhere.
    began_shallow = store.count_events(EventQuery(event_types=["CommitFound"])) > 0
    if last is not None and not began_shallow and repository.holds(last.entity_id):
        revisions.append(f"^{last.entity_id}")

    def batches() -> Iterator[list[Event]]:
        for commit in repository.commits(revisions):
            batch = events_of(commit, is_boundary=commit.sha in repository.boundary)
            if last is None or not store.event_exists(batch[0].event_id):
                yield batch

    started = time.perf_counter()
    commits = events = 0
    total = repository.count(revisions)
    results = append_in_order(store, batches())
    for result in track(
        results,
        "importing",
        total=total,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ):
        commits += 1
        events += len(result)
    seconds = time.perf_counter() - started
    console.print(
        f"[bold green]{many(commits, 'commit')}[/] became [bold green]{many(events, 'event')}[/]"
        f" in {seconds:.1f} s"
        if commits
        else "[green]nothing new:[/] the store holds them all"
    )


class Follower(threading.Thread):
    """Another reader of the same log, as a worker or a dashboard would be: it remembers one
    position, waits for what comes after it, and never misses an event."""

    def __init__(self, store: EventStore) -> None:
        super().__init__(name="follower", daemon=True)
        self._store = store
        self.position = store.checkpoint()
        self.seen = 0
        self._until: int | None = None
        self._failure: EventStoreError | None = None

    def run(self) -> None:
        try:
            self._follow()
        except EventStoreError as failure:
            self._failure = failure

    def _follow(self) -> None:
        while self._until is None or self.position.sequence < self._until:
            if not self._store.wait_for_events(self.position, timeout=0.2):
                continue
            for event in self._store.get_events_since(self.position):
                self.seen += 1
                self.position = self._store.checkpoint(event)

    def finish(self, until: int) -> None:
        """Wait until it has seen all up to a sequence."""
        self._until = until
        self.join()
        if self._failure is not None:
            raise self._failure


# --- Out of the store


def show_busiest(store: EventStore, console: Console) -> str | None:
    """Fold over all events of files; return the busiest."""
    changes: Counter[str] = Counter()
    inserted: Counter[str] = Counter()
    deleted: Counter[str] = Counter()
    for event in store.get_events(EventQuery(entity_type="file")):
        changes[event.entity_id] += 1
        inserted[event.entity_id] += event.data.get("insertions", 0)
        deleted[event.entity_id] += event.data.get("deletions", 0)
    if not changes:
        return None
    table = small_table("file", "changes", "+", "-", "")
    most = heapq.nlargest(10, changes, key=lambda path: (changes[path], inserted[path]))
    for path in most:
        bar = Text("█" * max(1, round(30 * changes[path] / changes[most[0]])), "green")
        table.add_row(
            cell(path), f"{changes[path]:,}", f"{inserted[path]:,}", f"{deleted[path]:,}", bar
        )
    section(console, f"The busiest of {many(len(changes), 'file')}", "get_events, folded", table)
    return most[0]


def show_life(store: EventStore, console: Console, path: str) -> None:
    """Show one file from its first event to its last."""
    life = store.get_events_for_entity("file", path)
    table = small_table("version", "when", "what", "+", "-", "by")
    for event in life if len(life) <= 9 else [*life[:3], None, *life[-5:]]:
        if event is None:
            table.add_row("…", "", f"{len(life) - 8:,} more", "", "", "")
            continue
        table.add_row(
            str(event.version),
            f"{event.timestamp:%Y-%m-%d %H:%M}",
            cell(what_happened(event)),
            str(event.data.get("insertions", "")),
            str(event.data.get("deletions", "")),
            cell(author_of(event)),
        )
    section(console, f"The life of {printable(path)}", "get_events_for_entity", table)
    together = store.get_events_for_workflow(life[-1].workflow_id or "")
    console.print(
        Text(f"Its last change came in one atomic batch of {many(len(together), 'event')}: ")
        .append(printable(together[0].data["subject"]), "italic")
        .append("  (get_events_for_workflow)", "dim")
    )


def show_week(store: EventStore, console: Console) -> None:
    """Show the last week of the history, by when things happened."""
    latest = EventQuery(order_by="timestamp", ascending=False, limit=1)
    end = next(store.get_events(latest)).timestamp
    week = EventQuery(
        from_timestamp=end - timedelta(days=7), to_timestamp=end, order_by="timestamp"
    )
    commits: Counter[str] = Counter()
    files: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for event in store.get_events(week):
        day = f"{event.timestamp:%a %Y-%m-%d}"
        commits[day] += event.entity_type == "commit"
        files[day] += event.entity_type == "file"
        lines[day] += event.data.get("insertions", 0) + event.data.get("deletions", 0)
    table = small_table("day", "commits", "file changes", "lines touched")
    for day in commits:
        table.add_row(day, f"{commits[day]:,}", f"{files[day]:,}", f"{lines[day]:,}")
    section(console, f"The week up to {end:%Y-%m-%d}", "from_timestamp, to_timestamp", table)


def show_author(store: EventStore, console: Console) -> None:
    """Show what the most active author did last, found by tag."""
    authors = Counter(event.tags[0] for event in store.get_events(EventQuery(entity_type="commit")))
    (tag, commits), *others = authors.most_common()
    theirs = EventQuery(tags=[tag], entity_type="file")
    table = small_table("when", "file", "what")
    for event in store.get_events(theirs.replace(ascending=False, limit=5)):
        table.add_row(
            f"{event.timestamp:%Y-%m-%d %H:%M}", cell(event.entity_id), cell(what_happened(event))
        )
    section(console, f"Who: {printable(tag)}", "tags", table)
    console.print(
        f"{many(commits, 'commit')} and {many(store.count_events(theirs), 'change')} of files,"
        f" the last of them above; {many(len(others), 'other author')}."
    )


def show_tail(store: EventStore, console: Console, follower: Follower) -> None:
    """Show what a second reader saw meanwhile, and how it would go on."""
    table = small_table("sequence", "what", "entity")
    last = list(store.get_events(EventQuery(ascending=False, limit=3)))
    for event in reversed(last):
        table.add_row(str(event.sequence), cell(what_happened(event)), cell(event.entity_id))
    section(console, "The live tail", "wait_for_events, get_events_since", table)
    console.print(
        f"A second reader followed the log while it was written: it saw"
        f" [bold]{many(follower.seen, 'new event')}[/], each once and in order."
    )
    console.print(Text("Tomorrow it goes on from ").append(str(follower.position), "cyan"))


def section(console: Console, title: str, how: str, body: RenderableType) -> None:
    """Print a heading, how it was asked for, and what came."""
    console.print()
    console.print(Text(title, "bold").append(f"   {how}", "dim not bold"))
    console.print(body)


def small_table(*columns: str) -> Table:
    """Return a table with its numbers to the right."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        numeric = column in {"version", "sequence", "changes", "+", "-", "commits"}
        table.add_column(column, justify="right" if numeric or " " in column else "left")
    return table


def many(count: int, what: str) -> str:
    """Return a count in words that fit."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def cell(text: str) -> Text:
    """Return a path or a name, cut to fit a line."""
    return Text(printable(text), overflow="ellipsis", no_wrap=True)


def printable(text: str) -> str:
    """Return text that cannot steer the terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def what_happened(event: Event) -> str:
    """Return an event's type in words."""
    if event.event_type == "FileRenamed":
        came = event.data["to"] == event.data.get("path", event.entity_id)
        return f"renamed from {event.data['from']}" if came else f"renamed to {event.data['to']}"
    return WORDS.get(event.event_type, event.event_type)


def author_of(event: Event) -> str:
    """Return who did it."""
    return event.tags[0].removeprefix("author:")


# --- The whole


def main() -> int:
    """Import a repository and show what the store is good for; return the exit code."""
    parser = argparse.ArgumentParser(
        description="Bring a git repository's history into an event store and look at it there."
    )
    parser.add_argument("--repo", type=Path, default=Path(), help="default: where you stand")
    parser.add_argument("--url", help="the store; default: git-history.db, an SQLite file here")
    parser.add_argument("--name", help="the repository's name in the store; default: its folder's")
    arguments = parser.parse_args()
    console = Console()
    try:
        run(arguments.repo, arguments.url, arguments.name, console)
    except (GitError, EventStoreError) as error:
        print(f"git_history: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("git_history: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def run(repo: Path, url: str | None, name: str | None, console: Console) -> None:
    """Import the repository at ``repo`` into the store at ``url``, and show it."""
    repository = Repository(repo)
    tenant = name or shortened(text_of(os.fsencode(repository.root.name)) or "root")
    with open_store(url or "sqlite:///git-history.db") as whole:
        console.print(Text("from  ").append(str(repository.root), "bold"))
        place = whole.url if url else f"{Path('git-history.db').absolute()}, an SQLite file"
        console.print(Text("into  ").append(place, "bold"))
        if repository.boundary:
            console.print(
                "[yellow]This clone is shallow: its history begins late. 'git fetch --unshallow',"
                " and another run, bring the rest.[/]"
            )
        store = whole.for_tenant(tenant)
        follower = Follower(store)
        follower.start()
        try:
            import_history(repository, store, console)
        finally:
            follower.finish(store.get_current_sequence())
        path = show_busiest(store, console)
        if path is not None:
            show_life(store, console, path)
        show_week(store, console)
        show_author(store, console)
        show_tail(store, console, follower)
        console.print()
        console.print(Text("Look further:", "bold"))
        for command in ("tail", "count --event-type FileDeleted", "info"):
            console.print(Text(f"  eventstore {command} --url {whole.url}"))


if __name__ == "__main__":
    sys.exit(main())
