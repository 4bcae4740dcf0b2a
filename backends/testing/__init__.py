"""The kit for those who write a sink or test with one. Needs the extra ``testing``.

``SinkConformance`` is the suite to subclass, ``StoreSuite`` that of a store; ``FaultySink`` fails to order;
on a ``VirtualClockLoop`` waiting takes no time; ``cancel_at_every_step`` cancels everywhere; the makers of
records know every nasty text.
"""

import pytest

pytest.register_assert_rewrite(f"{__name__}.cases", f"{__name__}.rig", f"{__name__}.store")

from .cancel import CancelPoint, Scenario, cancel_at_every_step  # noqa: E402
from .clock import VirtualClockLoop, WouldWaitForEver, run_virtual, virtual_clock  # noqa: E402
from .faults import (  # noqa: E402
    Deliver,
    Fault,
    FaultySink,
    Gate,
    Write,
    at_random,
    fail,
    fatal,
    lose_ack,
    raising,
    refuse,
    slow,
)
from .naive import naive_rows, naive_summary  # noqa: E402
from .records import (  # noqa: E402
    MOMENT,
    json_values,
    llm_texts,
    make_bare_record,
    make_batch,
    make_full_record,
    make_largest_record,
    make_record,
    make_records,
    make_varied_records,
    money,
    nasty_texts,
    records,
    token_counts,
)
from .store import StoreSuite  # noqa: E402
from .store.examples import (  # noqa: E402
    make_api_key,
    make_budget,
    make_claim,
    make_price,
    make_user,
)
from .suite import SinkConformance  # noqa: E402

__all__ = [
    "MOMENT",
    "CancelPoint",
    "Deliver",
    "Fault",
    "FaultySink",
    "Gate",
    "Scenario",
    "SinkConformance",
    "StoreSuite",
    "VirtualClockLoop",
    "WouldWaitForEver",
    "Write",
    "at_random",
    "cancel_at_every_step",
    "fail",
    "fatal",
    "json_values",
    "llm_texts",
    "lose_ack",
    "make_api_key",
    "make_bare_record",
    "make_batch",
    "make_budget",
    "make_claim",
    "make_full_record",
    "make_largest_record",
    "make_price",
    "make_record",
    "make_records",
    "make_user",
    "make_varied_records",
    "money",
    "naive_rows",
    "naive_summary",
    "nasty_texts",
    "raising",
    "records",
    "refuse",
    "run_virtual",
    "slow",
    "token_counts",
    "virtual_clock",
]
