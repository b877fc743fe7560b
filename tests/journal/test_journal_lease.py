"""One owner per stream, whoever sleeps, dies or comes back."""

from __future__ import annotations

import pytest
from journal_samples import painted

from journal import Journal, LeaseHeld, LeaseInfo, LeaseLost

ME = {"host": "here", "pid": 1}
YOU = {"host": "there", "pid": 2}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += int(seconds * 1e6)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def journal(path, clock):
    with Journal.open(path, now=clock) as opened:
        yield opened


@pytest.fixture
def other(path, clock, journal):
    with Journal.open(path, now=clock) as opened:
        yield opened


def test_a_free_stream_is_taken_with_the_first_epoch(journal, clock):
    assert journal.lease("a") is None
    lease = journal.acquire("a", owner=ME, ttl_s=10.0)
    assert lease.epoch == 1
    assert journal.lease("a") == LeaseInfo("a", 1, ME, clock.now, 10.0)


def test_a_held_stream_names_its_owner_and_how_long_it_was_silent(journal, other, clock):
    journal.acquire("a", owner=ME)
    clock.pass_s(7)
    with pytest.raises(LeaseHeld, match="host here, pid 1, last heard of 7 s ago") as caught:
        other.acquire("a", owner=YOU)
    assert (caught.value.stream, caught.value.owner, caught.value.heartbeat_age_s) == ("a", ME, 7.0)


@pytest.mark.parametrize(
    ("verdict", "silent_s", "taken"),
    [(True, 0, True), (False, 29.9, False), (None, 29.9, False), (False, 30, True), (None, 30, True)],
)
def test_a_stream_is_taken_from_the_dead_at_once_and_from_others_after_their_silence(
    journal, other, clock, *, verdict, silent_s, taken
):
    journal.acquire("a", owner=ME, ttl_s=30.0)
    clock.pass_s(silent_s)
    asked = []

    def is_dead(owner):
        asked.append(owner)
        return verdict

    if taken:
        assert other.acquire("a", owner=YOU, ttl_s=1.0, is_dead=is_dead).epoch == 2
    else:
        with pytest.raises(LeaseHeld):
            other.acquire("a", owner=YOU, ttl_s=1.0, is_dead=is_dead)
    assert asked == [ME]


def test_a_holder_that_slept_appends_nothing_after_a_take_over(journal, other, clock):
    mine = journal.acquire("a", owner=ME)
    journal.append("a", [painted("x")], lease=mine)
    clock.pass_s(31)
    yours = other.acquire("a", owner=YOU)
    other.append("a", [painted("y")], lease=yours)

    with pytest.raises(LeaseLost, match="Nothing was recorded") as caught:
        journal.append("a", [painted("z")], lease=mine)
    assert (caught.value.stream, caught.value.epoch) == ("a", 1)
    for use in (mine.renew, mine.release):
        with pytest.raises(LeaseLost):
            use()
    assert [e.subject for e in journal.read("a")] == ["x", "y"]
    other.append("a", [painted("y")], lease=yours)


def test_a_holder_that_slept_and_was_not_replaced_goes_on(journal, clock):
    lease = journal.acquire("a", owner=ME)
    clock.pass_s(1000)
    assert journal.append("a", [painted("x")], lease=lease) == 1
    lease.renew()


def test_a_released_stream_is_free_for_the_next(journal, other):
    lease = journal.acquire("a", owner=ME)
    lease.release()
    assert journal.lease("a").owner is None
    with pytest.raises(LeaseLost):
        journal.append("a", [painted("x")], lease=lease)
    assert other.acquire("a", owner=YOU).epoch == 2


def test_renewing_keeps_the_lease_and_writes_only_now_and_then(journal, other, clock):
    lease = journal.acquire("a", owner=ME, ttl_s=20.0)
    assert other.changed()
    clock.pass_s(4.9)
    lease.renew()
    assert not other.changed()
    lease.renew(force=True)
    assert other.changed()
    for _ in range(10):
        clock.pass_s(10)
        lease.renew()
        with pytest.raises(LeaseHeld):
            other.acquire("a", owner=YOU)


def test_a_clock_set_back_does_not_stop_renewing(journal, clock):
    lease = journal.acquire("a", owner=ME)
    clock.pass_s(-900)
    lease.renew()
    assert journal.lease("a").heartbeat == clock.now


def test_leases_of_different_streams_are_independent(journal, other):
    journal.acquire("a", owner=ME)
    assert other.acquire("b", owner=YOU).epoch == 1


def test_a_lease_taken_while_the_owner_was_judged_is_judged_again(journal, other, path, clock):
    journal.acquire("a", owner=ME)
    judged = []

    def is_dead(owner):
        judged.append(owner)
        if owner == ME:
            other.acquire("a", owner=YOU, is_dead=lambda _: True)
            return True
        return False

    with pytest.raises(LeaseHeld, match="host there"):
        journal.acquire("a", owner={"host": "third"}, is_dead=is_dead)
    assert judged == [ME, YOU]
    assert journal.lease("a").epoch == 2
