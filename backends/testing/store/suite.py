"""The conformance suite of a store. Subclass it in a test module, say how to open one, and run pytest::

    class TestAcmeStore(StoreSuite):
        strategies = ("for_update", "cas")

        @pytest.fixture(autouse=True)
        def _database(self, tmp_path): ...

        def open_store(self, strategy): return AcmeStore.open(self.options, strategy)
        def reopen(self, strategy): return AcmeStore.open(self.options, strategy)

``open_store`` is called once in a test, for an empty database; ``reopen`` later, also while the first is
open. A store whose data is gone with it leaves ``reopen`` out and says ``is_shared = False``.

After every case the money is counted: what a user's account has in reserve is what the claims hold that the
case made, and that were neither settled nor let go.
"""

from __future__ import annotations

import pytest

from .accounts import AccountCases
from .cancellation import CancellationCases
from .changes import ChangeCases
from .concurrency import ConcurrencyCases
from .letting_in import LettingInCases
from .lifecycle import LifecycleCases
from .listing import ListingCases
from .periods import PeriodCases
from .records import RecordCases
from .reserving import ReservingCases
from .settling import SettlingCases
from .sweeping import SweepingCases


@pytest.mark.asyncio
class StoreSuite(
    RecordCases,
    ListingCases,
    ChangeCases,
    AccountCases,
    LettingInCases,
    ReservingCases,
    SettlingCases,
    SweepingCases,
    PeriodCases,
    ConcurrencyCases,
    CancellationCases,
    LifecycleCases,
):
    """All groups. The hooks, and what each has to give, are those of ``base.StoreCases``."""
