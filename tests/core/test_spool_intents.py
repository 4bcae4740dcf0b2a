"""An intent whose row got past the journal: the disk failed in between, and the row went on in memory.

Found by `make chaos`: answered calls, disk full for two seconds under ``write_ahead``, SIGTERM with the sink
down, and the next start stored each as the row of a crash, in place of the row that had its tokens and cost.
"""

from __future__ import annotations

from pathlib import Path

from backends.record import Batch
from backends.spool.store import Changes, SpoolStore
from backends.testing import make_record


def found_after_a_restart(path: Path, *changes: Changes) -> list[str]:
    store = SpoolStore(path, "normal")
    for each in changes:
        store.apply(each)
    store.close()
    store = SpoolStore(path, "normal")
    try:
        store.recover()
        rows, after = [], 0
        while (found := store.next_batch(after)) is not None:
            after, batch = found
            rows += batch.rows
        return [row.end_reason for row in rows]
    finally:
        store.close()


def test_a_row_kept_in_a_batch_is_not_replaced_by_the_intent_of_its_call(tmp_path: Path) -> None:
    row = make_record(end_reason="complete")

    found = found_after_a_restart(
        tmp_path / "spool.db", Changes(intents=[row]), Changes(batches=[Batch.of([row])])
    )

    assert found == ["complete"]


def test_a_row_that_is_safe_elsewhere_leaves_no_intent_behind(tmp_path: Path) -> None:
    row = make_record(end_reason="complete")

    found = found_after_a_restart(
        tmp_path / "spool.db", Changes(intents=[row]), Changes(dropped_rows=[row.id])
    )

    assert found == []
