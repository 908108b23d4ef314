"""A short campaign of faults on each backend that more than one process can use."""

from __future__ import annotations

import os

import pytest

from eventstore.testing.history import report
from tests.campaign.grounds import PRIVATE
from tests.campaign.running import run_campaign
from tests.kit.backends import BackendUnderTest

FAULTS = 20
SEED = 10


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("harness")  # it skips, or fails, where the engine cannot be had
def test_a_short_campaign_breaks_nothing(backend: BackendUnderTest) -> None:
    given = os.environ.get(backend.variable)
    if given is None and backend.name not in PRIVATE:
        pytest.skip(f"{backend.name} lives within one process: nobody to kill, nothing to cut")
    verdict = run_campaign(given or backend.name, faults=FAULTS, seed=SEED)
    assert verdict.violations == [], report(verdict)
    assert verdict.faults.total() == FAULTS
    assert verdict.is_a_run, report(verdict)
