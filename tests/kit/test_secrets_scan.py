"""The scan of the test run for passwords finds what is told, wherever that is."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventstore import ConfigurationError, open_store
from tests.kit.secrets_scan import SecretsScan, a_password


@pytest.fixture
def scan() -> SecretsScan:
    return SecretsScan()


def test_a_log_line_that_tells_a_password_is_noted(scan: SecretsScan) -> None:
    record = logging.LogRecord("eventstore", logging.DEBUG, __file__, 1, a_password(), None, None)
    scan.handle(record)
    assert len(scan.told) == 1


def test_what_tells_none_is_looked_at_and_not_noted(scan: SecretsScan) -> None:
    with scan.watching(), pytest.raises(ConfigurationError):
        open_store(f"nosuch://me:{a_password()}@host")
    assert scan.looked_at
    assert scan.told == []


def test_a_run_that_told_a_password_fails(tmp_path: Path) -> None:
    # Given tests that pass, of which all but one tell a password
    path = tmp_path / "test_telling.py"
    path.write_text(_TELLING)

    # When they run with the scan
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, path],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )

    # Then the run fails, and says where, but not what
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "5 passed" in run.stdout
    told = run.stdout.partition("passwords told")[2]
    assert "test_error: an error" in told
    assert "test_cause: a traceback" in told
    assert "test_print: Captured stdout call" in told
    assert "test_log: a log line" in told
    assert "test_nothing" not in told
    assert a_password() not in told


_TELLING = """
import logging
import os
import subprocess
import sys
from pathlib import Path
import pytest
from eventstore import ConfigurationError
from tests.kit.secrets_scan import SecretsScan, a_password

@pytest.fixture(autouse=True, scope="session")
def scan(pytestconfig):
    scan = SecretsScan()
    pytestconfig.pluginmanager.register(scan)
    with scan.watching():
        yield

def test_nothing():
    pass

def test_cause():
    with pytest.raises(ConfigurationError):
        raise ConfigurationError("bad") from ValueError(a_password())

def test_error():
    ConfigurationError(f"cannot reach x://me:{a_password()}@host")

def test_print():
    print(a_password())

def test_log():
    logging.getLogger("eventstore").debug("opened %s", a_password())
"""
