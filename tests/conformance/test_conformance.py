"""The conformance suite over the backends that ``--backend`` selects."""

from __future__ import annotations

from eventstore.testing.conformance import ConformanceSuite


class TestConformance(ConformanceSuite):
    pass
