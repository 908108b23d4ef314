"""What `pip install` gives: the files in the wheel, its metadata, and what it pulls in."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from email.message import Message
from email.parser import Parser
from importlib.metadata import EntryPoint, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

import eventstore

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = [
    Path(each) for each in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
]
SHIPPED = {".py", ".sql", ".lua", ".typed"}
"""What the packages consist of, by the ends of names."""

FREE = re.compile(r"(?i)\b(mit|bsd|apache|isc|psf|python software foundation|lgpl)")
"""Licences under which an Apache-2.0 program may import a library."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (built,) = folder.glob("*.whl")
    return ZipFile(built)


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_it_holds_the_packages_whole_and_nothing_else(wheel: ZipFile) -> None:
    expected = {
        f"{package.name}/{file.relative_to(ROOT / package).as_posix()}"
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.suffix in SHIPPED
    }

    found = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert found == expected
    assert {f"{package.name}/py.typed" for package in PACKAGES} <= found
    assert any(name.endswith(".sql") for name in found)
    assert any(name.endswith(".lua") for name in found)


def test_its_metadata_says_what_the_project_says(metadata: Message) -> None:
    project = PROJECT["project"]
    assert metadata["Name"] == project["name"]
    assert metadata["Version"] == eventstore.__version__
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["License-Expression"] == project["license"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    assert "eventstore-toolkit" in str(metadata.get_payload())


def test_every_entry_point_leads_to_something(wheel: ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    parser = ConfigParser(delimiters="=")
    parser.read_string(wheel.read(name).decode())
    entries = [
        EntryPoint(name, value, group)
        for group in parser.sections()
        for name, value in parser[group].items()
    ]

    assert {"eventstore", "memory", "sqlite", "postgresql", "redis", "mongodb"} <= {
        entry.name for entry in entries
    }
    for entry in entries:
        assert callable(entry.load())


def test_what_it_pulls_in_is_free_to_use() -> None:
    needed = PROJECT["project"]["dependencies"] + [
        requirement
        for extra in ("postgres", "redis", "mongodb", "cli")
        for requirement in PROJECT["project"]["optional-dependencies"][extra]
    ]
    assert len(needed) >= 8
    for requirement in needed:
        match = re.match(r"[A-Za-z0-9_.-]+", requirement)
        assert match
        about = distribution(match[0]).metadata
        classifiers = [
            text for text in about.get_all("Classifier") or [] if text.startswith("License")
        ]
        licence = " ".join([about["License-Expression"] or about["License"] or "", *classifiers])

        assert FREE.search(licence), f"{match[0]}: {licence!r}"
