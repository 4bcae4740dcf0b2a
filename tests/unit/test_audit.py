"""What an audit finds: every number that is nowhere, and no other one. Facts in, findings out."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from backends.audit import Facts, UnreadableBoot, audit_boots, confirmed
from backends.numbers import runs_of
from backends.ranges import Ranges
from backends.record import Boot
from backends.testing import MOMENT, make_record

DAY = timedelta(days=1)
BOOT = uuid7()


def closed(last_seq, boot_id=BOOT, **more):
    return Boot(id=boot_id, started_at=MOMENT, closed_at=MOMENT + DAY, last_seq=last_seq, **more)


def rows(numbers, boot_id=BOOT, at=lambda seq: MOMENT):
    return [make_record(boot_id=boot_id, seq=seq, timestamp=at(seq)) for seq in numbers]


def found(**facts):
    (boot,) = audit_boots(Facts(**facts))
    return boot


PLACES = ("sink", "spool", "letters", "abandoned", "nowhere")


@given(st.lists(st.sampled_from(PLACES), max_size=40), st.booleans())
def test_any_row_that_is_nowhere_is_found_and_no_other(places, is_closed):
    at = {place: [n for n, each in enumerate(places, 1) if each == place] for place in PLACES}
    gave_up = str(Ranges.of(at["abandoned"]))
    boot = closed(len(places), abandoned=gave_up) if is_closed else Boot(id=BOOT, started_at=MOMENT)
    known = [n for place in ("sink", "spool", "letters") for n in at[place]]
    known_to = len(places) if is_closed else max(known, default=0)
    lost = at["nowhere"] if is_closed else at["nowhere"] + at["abandoned"]

    boot = found(
        boots=[boot],
        runs=runs_of(rows(at["sink"])),
        spooled={BOOT: Ranges.of(at["spool"])},
        dead_lettered={BOOT: Ranges.of(at["letters"])},
    )

    assert list(boot.missing) == sorted(n for n in lost if n < known_to or is_closed)
    assert list(boot.missing_tail) == [n for n in boot.missing if n > max(known, default=0)]
    assert list(boot.abandoned) == (at["abandoned"] if is_closed else [])
    assert (list(boot.stored), list(boot.spooled)) == (at["sink"], at["spool"])
    assert list(boot.dead_lettered) == at["letters"]
    assert boot.state == ("closed" if is_closed else "never_closed")
    assert boot.known_to == known_to


def test_a_row_from_the_middle_and_the_last_one_are_found():
    boot = found(boots=[closed(5)], runs=runs_of(rows([1, 2, 4])))

    assert (str(boot.missing), str(boot.missing_tail)) == ("3,5", "5")


def test_a_boot_of_which_nothing_is_left_misses_everything():
    boot = found(boots=[closed(3)])

    assert (str(boot.missing), str(boot.missing_tail)) == ("1-3", "1-3")


def test_a_boot_that_accepted_nothing_misses_nothing():
    assert found(boots=[closed(0)]).is_whole


def test_a_boot_that_nobody_recorded_never_closed():
    boot = found(runs=runs_of(rows([1, 3])))

    assert (boot.state, str(boot.missing), boot.known_to) == ("never_closed", "2", 3)
    assert boot.started_at is not None and boot.started_at > MOMENT  # as its id tells


def test_the_gaps_of_a_running_boot_are_under_way():
    boot = found(
        boots=[Boot(id=BOOT, started_at=MOMENT)], runs=runs_of(rows([2, 5])), running=frozenset({BOOT})
    )

    assert (boot.state, str(boot.under_way), str(boot.missing)) == ("running", "1,3-4", "")


def test_a_boot_that_closed_runs_no_more_even_while_its_process_does():
    boot = found(boots=[closed(2)], runs=runs_of(rows([1])), running=frozenset({BOOT}))

    assert (boot.state, str(boot.missing)) == ("closed", "2")


def test_a_close_that_only_a_file_has_counts():
    boot = found(boots=[Boot(id=BOOT, started_at=MOMENT), closed(3, abandoned="3")], runs=runs_of(rows([1])))

    assert (boot.state, str(boot.missing), str(boot.abandoned)) == ("closed", "2", "3")


def test_a_row_that_was_abandoned_and_stored_all_the_same_is_stored():
    assert found(boots=[closed(2, abandoned="2")], runs=runs_of(rows([1, 2]))).is_whole


def test_a_row_in_a_file_and_in_the_sink_is_stored():
    boot = found(
        boots=[closed(2)],
        runs=runs_of(rows([1, 2])),
        spooled={BOOT: Ranges.of([2])},
        dead_lettered={BOOT: Ranges.of([1])},
    )

    assert (len(boot.stored), len(boot.spooled), len(boot.dead_lettered)) == (2, 0, 0)


def test_numbers_behind_the_last_one_that_the_close_knew_are_looked_for_too():
    boot = found(boots=[closed(2)], runs=runs_of(rows([1, 2])), spooled={BOOT: Ranges.of([4])})

    assert str(boot.missing) == "3"


def test_boots_are_judged_apart_and_the_oldest_comes_first():
    other = uuid7()
    older = Boot(id=other, started_at=MOMENT - DAY, closed_at=MOMENT, last_seq=1)

    boots = audit_boots(Facts(boots=[closed(2), older], runs=runs_of(rows([1, 2]))))

    assert [(boot.boot_id, str(boot.missing)) for boot in boots] == [(other, "1"), (BOOT, "")]


def test_what_is_there_the_second_time_was_only_on_its_way():
    first = audit_boots(Facts(boots=[closed(5)], runs=runs_of(rows([1, 2]))))
    second = audit_boots(Facts(boots=[closed(6)], runs=runs_of(rows([1, 2, 4]))))

    (boot,) = confirmed(first, second)

    assert (str(boot.missing), str(boot.missing_tail)) == ("3,5", "5")


def test_numbers_that_somebody_wrote_by_hand_are_trouble():
    with pytest.raises(UnreadableBoot, match=str(BOOT)):
        found(boots=[closed(5, abandoned="all of them")])


# --- retention


@pytest.mark.parametrize("cutoff_days", [0, 3, 7, 11])
def test_what_retention_removed_is_not_missing_and_what_is_younger_is(cutoff_days):
    """A row a day; the row of day 8 was deleted by hand."""
    cutoff = MOMENT + cutoff_days * DAY - DAY / 2
    left = [n for n in range(1, 11) if n != 8 and MOMENT + n * DAY >= cutoff]
    runs = runs_of(rows(left, at=lambda seq: MOMENT + seq * DAY))
    boot = Boot(id=BOOT, started_at=MOMENT, closed_at=MOMENT + 20 * DAY, last_seq=10)

    judged = found(boots=[boot], runs=runs, kept_since=cutoff)

    assert str(judged.missing) == ("8" if cutoff_days < 8 else "")
    assert list(judged.retired) == [n for n in range(1, 11) if n not in left and n not in judged.missing]


def test_of_a_boot_that_began_after_the_cutoff_every_row_has_to_be_there():
    boot = found(boots=[closed(3)], runs=runs_of(rows([3])), kept_since=MOMENT - DAY)

    assert str(boot.missing) == "1-2"


def test_a_boot_entirely_older_than_the_cutoff_is_ignored():
    boot = found(boots=[closed(3)], kept_since=MOMENT + 2 * DAY)

    assert (boot.is_whole, str(boot.retired)) == (True, "1-3")


def test_a_boot_that_nobody_recorded_is_as_old_as_its_id():
    boot = found(runs=runs_of(rows([3])), kept_since=MOMENT)

    assert str(boot.missing) == "1-2"
