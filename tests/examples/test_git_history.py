"""The example: a repository's history goes in once, whole, whatever happens in between."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from rich.console import Console

from eventstore import Event, EventQuery, EventStore, drop_namespace, open_store

EXAMPLES = Path(__file__).parents[2] / "examples"


class Work:
    """A repository to work in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1_700_000_000
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, given: bytes = b"") -> str:
        who = {"NAME": "Ada", "EMAIL": "ada@example.org", "DATE": f"{self.now} +0100"}
        result = subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            input=given,
            capture_output=True,
            check=True,
            env=os.environ
            | {f"GIT_{role}_{key}": who[key] for role in ("AUTHOR", "COMMITTER") for key in who}
            | {"GIT_CONFIG_GLOBAL": os.devnull},
        )
        return result.stdout.decode().strip()

    def commit(self, message: str = "change", **files: str | None) -> str:
        """Write or remove files, commit, and return the commit's hash."""
        self.now += 3600
        for name, content in files.items():
            file = self.path / name
            if content is None:
                file.unlink()
            else:
                file.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("git_history")


@pytest.fixture
def url() -> Iterator[str]:
    url = f"memory://git-{uuid4().hex}"
    yield url
    drop_namespace(url)


@pytest.fixture
def store(url: str) -> Iterator[EventStore]:
    with open_store(url) as store:
        yield store


@pytest.fixture
def bring_in(example: Any, url: str) -> Any:
    """Import a repository and return what was printed."""

    def run(repo: Path, name: str | None = None) -> str:
        output = io.StringIO()
        example.run(repo, url, name, Console(file=output, width=150))
        return output.getvalue()

    return run


def told(store: EventStore) -> list[tuple[str, str, dict[str, Any]]]:
    return [(each.event_type, each.entity_id, each.data) for each in store.get_events()]


def files(store: EventStore) -> list[tuple[str, str, dict[str, Any]]]:
    return [each for each in told(store) if each[0].startswith("File")]


def test_a_commit_is_a_batch_and_its_changes_the_events_of_files(
    work: Work, bring_in: Any, store: EventStore
) -> None:
    first = work.commit("Begin", a="1\n2\n", b="1\n")
    second = work.commit("Go on", a="1\n3\n4\n", b=None)

    bring_in(work.path)

    events = list(store.get_events())
    assert [(each.event_type, each.entity_id) for each in events] == [
        ("CommitMade", first),
        ("FileAdded", "a"),
        ("FileAdded", "b"),
        ("CommitMade", second),
        ("FileModified", "a"),
        ("FileDeleted", "b"),
    ]
    assert [each.batch_sequence for each in events] == [1, 1, 1, 4, 4, 4]
    assert [each.version for each in events] == [1, 1, 1, 1, 2, 2]
    assert [each.workflow_id for each in events] == [first] * 3 + [second] * 3
    assert {each.tags for each in events} == {("author:ada@example.org",)}
    assert {each.tenant_id for each in events} == {"work"}
    assert events[0].timestamp == datetime.fromtimestamp(1_700_003_600, UTC)
    assert events[3].data == {
        "subject": "Go on",
        "author": "Ada",
        "email": "ada@example.org",
        "authored_at": "2023-11-15T00:13:20+00:00",
        "parents": [first],
        "files": 2,
    }
    assert [each.data for each in events[4:]] == [
        {"insertions": 2, "deletions": 1},
        {"insertions": 0, "deletions": 1},
    ]


def test_a_renamed_file_tells_it_under_both_names(
    work: Work, bring_in: Any, store: EventStore
) -> None:
    lines = "".join(f"{number}\n" for number in range(20))
    work.commit(a=lines)
    work.commit(a=None, b=lines + "more\n")

    bring_in(work.path)

    names = {"from": "a", "to": "b"}
    assert files(store)[1:] == [
        ("FileRenamed", "a", names),
        ("FileRenamed", "b", {"insertions": 1, "deletions": 0} | names),
    ]


def test_merges_and_empty_commits_are_events_too(
    work: Work, bring_in: Any, store: EventStore
) -> None:
    work.commit(a="1\n")
    work.git("checkout", "--quiet", "-b", "side")
    side = work.commit(b="1\n")
    work.git("checkout", "--quiet", "main")
    empty = work.commit("nothing")
    work.git("merge", "--quiet", "--no-ff", "-m", "together", "side")

    bring_in(work.path)

    made = [each for each in told(store) if not each[0].startswith("File")]
    assert [each[0] for each in made] == ["CommitMade"] * 3 + ["MergeMade"]
    assert made[3][2]["parents"] == [empty, side]
    assert {each[2]["files"] for each in made} == {0, 1}
    assert store.count_events(EventQuery(entity_id="b")) == 1


def test_names_and_contents_may_be_any_bytes(work: Work, bring_in: Any, store: EventStore) -> None:
    long = b"d/" * 150 + b"f"
    twin = b"d/" * 150 + b"g"
    paths = [b"bin", b'tab\t and\n"line" [bold]\x1b[2J', b"\xff\xfe", "ü/é".encode(), long, twin]
    stream = b"commit refs/heads/main\n"
    stream += b"author \xe9mile <> 99999999999999 +0000\n"
    stream += b"committer \xe9mile <> 99999999999999 +0000\ndata 7\n\xff subj\n\n"
    for path in paths:
        content = b"\0\1\2" if path == b"bin" else b"one\ntwo\n"
        quoted = b"".join(b"\\%03o" % each for each in path)
        stream += b'M 100644 inline "%s"\ndata %d\n%s\n' % (quoted, len(content), content)
    work.git("fast-import", "--quiet", given=stream)

    output = bring_in(work.path)

    commit, *events = store.get_events()
    assert commit.data["author"] == "\\xe9mile"
    assert commit.data["subject"] == "\\xff subj"
    assert commit.tags == ("author:\\xe9mile",)
    by_name = {event.data.get("path", event.entity_id): event for event in events}
    assert set(by_name) == {
        "bin",
        'tab\t and\n"line" [bold]\x1b[2J',
        "\\xff\\xfe",
        "ü/é",
        long.decode(),
        twin.decode(),
    }
    assert by_name["bin"].data == {"binary": True}
    assert by_name["ü/é"].data == {"insertions": 2, "deletions": 0}
    assert len(by_name[long.decode()].entity_id.encode()) <= 255
    assert len({event.entity_id for event in events}) == 6
    assert "\x1b" not in output
    assert '"line" [bold]' in output


def test_run_again_it_adds_only_what_is_new(
    work: Work, bring_in: Any, example: Any, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.commit(a="1\n")
    work.commit(a="2\n")
    bring_in(work.path)
    before = list(store.get_events())
    assert "nothing new" in bring_in(work.path)
    looked_at: list[str] = []
    events_of = example.events_of

    def counted(commit: Any, *, is_boundary: bool) -> list[Event]:
        looked_at.append(commit.sha)
        events: list[Event] = events_of(commit, is_boundary=is_boundary)
        return events

    monkeypatch.setattr(example, "events_of", counted)
    new = work.commit(a="3\n")

    bring_in(work.path)

    events = list(store.get_events())
    assert events[: len(before)] == before
    assert [each.workflow_id for each in events[len(before) :]] == [new, new]
    assert looked_at == [new]


def test_an_interrupted_run_is_gone_on_with(
    work: Work, bring_in: Any, example: Any, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.commit(a="1\n")
    work.git("checkout", "--quiet", "-b", "side")
    work.commit(b="1\n")
    work.git("checkout", "--quiet", "main")
    work.commit(a="2\n")
    work.git("merge", "--quiet", "-m", "together", "side")
    in_order = example.append_in_order
    for held in (1, 2, 3):

        def interrupted(view: EventStore, batches: Any, held: int = held) -> Iterator[Any]:
            # Each batch a commit of its own, so that nothing beyond is stored.
            for batch in batches:
                yield from in_order(view, [batch])
                if view.count_events(EventQuery(entity_type="commit")) == held:
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(example, "append_in_order", interrupted)
            with pytest.raises(KeyboardInterrupt):
                bring_in(work.path)
        assert store.count_events(EventQuery(entity_type="commit")) == held

    bring_in(work.path)

    assert store.count_events(EventQuery(entity_type="commit")) == 4
    assert store.count_events(EventQuery(entity_type="file")) == 3
    assert len({each.event_id for each in store.get_events()}) == 7


def test_a_rewritten_branch_adds_the_commits_that_are_new(
    work: Work, bring_in: Any, store: EventStore
) -> None:
    work.commit(a="1\n")
    old = work.commit(a="2\n")
    bring_in(work.path)
    work.git("reset", "--quiet", "--hard", "HEAD~1")
    work.git("reflog", "expire", "--expire=now", "--all")
    new = [work.commit(a="3\n"), work.commit(a="4\n")]
    for gone in (False, True):
        if gone:
            work.git("gc", "--quiet", "--prune=now")

        bring_in(work.path)

        commits = [each[1] for each in told(store) if each[0] == "CommitMade"]
        assert commits[1:] == [old, *new]


def test_settings_of_git_change_nothing(
    work: Work, bring_in: Any, store: EventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"{number}\n" for number in range(20))
    work.commit(a=lines)
    work.commit(a=None, b=lines)
    bring_in(work.path, "plain")
    settings = tmp_path / "gitconfig"
    settings.write_text(
        "[diff]\nrenames = false\nalgorithm = histogram\nexternal = false\nmnemonicPrefix = true\n"
        "[log]\nshowRoot = false\nshowSignature = true\ndate = relative\ndecorate = full\n"
        "[core]\nquotePath = true\n[color]\nui = always\n[format]\npretty = oneline\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))

    bring_in(work.path, "set")

    plain, configured = (
        [each.data for each in store.for_tenant(name).get_events()] for name in ("plain", "set")
    )
    assert plain == configured


def test_a_shallow_clone_is_told_and_completed_later(
    work: Work, bring_in: Any, store: EventStore, tmp_path: Path
) -> None:
    shas = [work.commit(a=f"{number}\n") for number in range(4)]
    clone = tmp_path / "clone"
    work.git("clone", "--quiet", "--depth", "2", work.path.as_uri(), str(clone))

    output = bring_in(clone)

    assert "This clone is shallow" in output
    assert [each[:2] for each in told(store)] == [
        ("CommitFound", shas[2]),
        ("FileFound", "a"),
        ("CommitMade", shas[3]),
        ("FileModified", "a"),
    ]

    work.git("-C", str(clone), "fetch", "--quiet", "--unshallow")
    output = bring_in(clone)

    assert "This clone is shallow" not in output
    made = [each[1] for each in told(store) if each[0] == "CommitMade"]
    assert sorted(made) == sorted(shas)
    assert "nothing new" in bring_in(clone)


def test_several_repositories_share_a_store(
    work: Work, bring_in: Any, store: EventStore, tmp_path: Path
) -> None:
    other = Work(tmp_path / "other")
    for each in (work, other):
        each.commit(a="1\n")

    bring_in(work.path)
    bring_in(other.path)
    bring_in(work.path, "by another name")

    names = ("work", "other", "by another name")
    assert [store.for_tenant(name).count_events() for name in names] == [2, 2, 2]


def test_a_bare_repository_and_a_folder_within_one_will_do(
    work: Work, bring_in: Any, store: EventStore, tmp_path: Path
) -> None:
    (work.path / "sub").mkdir()
    (work.path / "sub" / "b").write_text("1\n")
    work.commit(a="1\n")
    work.git("clone", "--quiet", "--bare", str(work.path), str(tmp_path / "bare.git"))

    bring_in(work.path / "sub")
    bring_in(tmp_path / "bare.git")

    names = [each.entity_id for each in store.for_tenant("work").get_events()][1:]
    assert names == ["a", "sub/b"]
    assert store.for_tenant("bare.git").count_events() == 3


def test_it_shows_what_the_store_is_good_for(work: Work, bring_in: Any, store: EventStore) -> None:
    work.commit("Begin", busy="1\n", quiet="1\n")
    for number in range(12):
        work.commit(f"Change {number}", busy=f"{number}\n")

    output = bring_in(work.path)

    assert "13 commits became 27 events" in output
    assert "The busiest of 2 files" in output
    assert "The life of busy" in output
    assert "5 more" in output
    assert "The week up to 2023-11-15" in output
    assert "Who: author:ada@example.org" in output
    assert "it saw 27 new events" in output
    assert str(store.checkpoint()) in output


def run_script(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / "git_history.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    Work(empty)
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path)}
    for repo, reason in (
        (empty, "has no commits yet"),
        (tmp_path, "not a git repository"),
        (tmp_path / "none", "No such file or directory"),
    ):
        result = run_script("--repo", str(repo), "--url", "memory://", env=environment)

        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("git_history: ")
        assert reason in result.stderr
        assert result.stderr.count("\n") == 1


def test_without_git_it_says_so(tmp_path: Path) -> None:
    result = run_script("--url", "memory://", env={"PATH": str(tmp_path)})

    assert result.returncode == 1
    assert result.stderr == "git_history: git was not found: install it, or put it on the PATH\n"


def test_a_bad_url_is_one_sentence(work: Work) -> None:
    work.commit(a="1\n")

    result = run_script("--repo", str(work.path), "--url", "nosuch://me:secret@host")

    assert result.returncode == 1
    assert "no adapter for nosuch://" in result.stderr
    assert "secret" not in result.stderr


def test_by_default_it_makes_an_sqlite_file_where_it_stands(work: Work, tmp_path: Path) -> None:
    work.commit(a="1\n")

    first = run_script("--repo", str(work.path), cwd=tmp_path)
    again = run_script("--repo", str(work.path), cwd=tmp_path)

    assert (first.returncode, first.stderr) == (0, "")
    assert "1 commit became 2 events" in first.stdout
    assert "git-history.db" in first.stdout
    assert "nothing new" in again.stdout
    with open_store(f"sqlite:///{tmp_path / 'git-history.db'}", create=False) as store:
        assert store.get_current_sequence() == 2


def test_five_thousand_commits_take_seconds(work: Work, tmp_path: Path) -> None:
    work.git("fast-import", "--quiet", given=b"".join(many_commits(5000)))
    started = time.monotonic()

    result = run_script("--repo", str(work.path), "--url", f"sqlite:///{tmp_path / 'history.db'}")

    assert (result.returncode, result.stderr) == (0, "")
    assert "5,000 commits became 20,000 events" in result.stdout
    assert time.monotonic() - started < 30


def many_commits(count: int) -> Iterator[bytes]:
    for number in range(count):
        who = b"dev%d <dev%d@example.org> %d +0000" % (
            number % 7,
            number % 7,
            1_500_000_000 + number,
        )
        yield b"commit refs/heads/main\ncommitter %s\ndata 6\nchange\n" % who
        for place in range(3):
            content = b"%d\n%d\n" % (number, place)
            name = b"src/%d.py" % (number * 3 % 300 + place)
            yield b"M 100644 inline %s\ndata %d\n%s\n" % (name, len(content), content)
