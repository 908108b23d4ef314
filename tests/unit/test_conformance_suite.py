"""The conformance suite itself: it catches what is wrong, and no area hides another's tests."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from eventstore.testing.conformance import ConformanceSuite
from eventstore.testing.conformance.base import Conformance

AREAS = [area for area in ConformanceSuite.__bases__ if issubclass(area, Conformance)]


def test_no_two_areas_have_a_test_of_the_same_name() -> None:
    names = Counter(name for area in AREAS for name in vars(area) if not name.startswith("__"))

    assert [name for name, count in names.items() if count > 1] == []


def test_the_suite_has_every_area() -> None:
    assert set(AREAS) == set(Conformance.__subclasses__())


def test_every_area_has_tests_and_each_name_says_what_holds() -> None:
    for area in AREAS:
        names = [name for name in vars(area) if name.startswith("test_")]
        assert names, area
        assert all(name.count("_") >= 3 for name in names), names


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The names of the failed tests of each class in ``conformance_faults.py``."""
    report = tmp_path_factory.mktemp("faults") / "report.xml"
    # Faults are made in one process only.
    alone = "not interrupt and not signal and not fork and not process"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        alone,
        "-p",
        "no:cacheprovider",
        "--tb=no",
    ]
    run = subprocess.run(
        [*command, f"--junitxml={report}", str(Path(__file__).with_name("conformance_faults.py"))],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    cases: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        names = cases.setdefault(case.attrib["classname"].rpartition(".")[2], [])
        if case.find("failure") is not None:
            names.append(case.attrib["name"])
    return cases


@pytest.mark.timeout(330)
def test_every_fault_is_caught(failed: dict[str, list[str]]) -> None:
    assert len(failed) >= 20
    assert [fault for fault, names in failed.items() if not names] == []


@pytest.mark.timeout(330)
def test_a_fault_fails_some_tests_and_not_all(failed: dict[str, list[str]]) -> None:
    """A class that fails as a whole would tell of a broken set-up, not of the fault."""
    assert all(len(names) < 150 for names in failed.values())
