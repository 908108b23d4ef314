"""A third party can add a backend, and prove it right in a few lines."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import pytest

from eventstore.testing.conformance import ConformanceSuite, Harness

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The toy distribution, installed the way pip does it, but with neither network nor build:
    the module, and the metadata with its entry points, in a folder on the path."""
    site = tmp_path_factory.mktemp("site-packages")
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    metadata = site / f"eventstore_toy-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )
    copy(HERE / "eventstore_toy.py", site)
    sys.path.append(str(site))  # processes that are spawned get it too
    yield
    sys.path.remove(str(site))


@pytest.fixture(scope="session")
def harness(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    return Harness(url=f"toy://{tmp_path_factory.mktemp('toy')}", history_seconds=1.0)


class TestToyAdapter(ConformanceSuite):
    pass
