"""The conformance suite: every promise that a sink makes, as a test that its author can run.

Subclass it in a test module, say which sink and where its database is, and run pytest::

    class TestAcme(SinkConformance):
        sink_cls = AcmeSink

        @pytest.fixture(autouse=True)
        def _database(self, tmp_path): ...

        def make_options(self): ...
        async def rows_in_sink(self): ...
        async def boots_in_sink(self): ...

``rows_in_sink`` goes around the sink, so that an error in writing and one in reading cannot hide each other.
What a sink cannot do it declares in ``capabilities``, and the suite asserts that it really cannot. A fault
that the author does not offer is listed in the report as not offered.
"""

from __future__ import annotations

import pytest

from .cases.audit import AuditCases
from .cases.cancellation import CancellationCases
from .cases.core import CoreCases
from .cases.disk import DiskCases
from .cases.errors import ErrorCases
from .cases.idempotence import IdempotenceCases
from .cases.lifecycle import LifecycleCases
from .cases.reads import ReadCases
from .cases.refusals import RefusalCases
from .cases.round_trip import RoundTripCases
from .cases.schema import SchemaCases
from .cases.shape import ShapeCases
from .cases.summaries import SummaryCases


@pytest.mark.asyncio
class SinkConformance(
    ShapeCases,
    SchemaCases,
    RoundTripCases,
    IdempotenceCases,
    ErrorCases,
    CancellationCases,
    LifecycleCases,
    ReadCases,
    CoreCases,
    DiskCases,
    RefusalCases,
    SummaryCases,
    AuditCases,
):
    """All groups. The hooks, and what each has to give, are those of ``cases.base.SinkCases``."""
