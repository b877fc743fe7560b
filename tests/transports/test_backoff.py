import pytest

from matterstack.errors import AccessError, LoginRefused, TransportError
from matterstack.runtime.transports.backoff import LONGEST_S, REFUSED_S, Backoff

DOWN = TransportError("host", "connection refused", started=False)


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def backoff(now):
    return Backoff(clock=lambda: now[0], jitter=lambda: 1.0)


def waits(backoff, now):
    """Return how long it waits, by looking every half second."""
    start = now[0]
    while True:
        try:
            backoff.check()
        except (TransportError, AccessError):
            now[0] += 0.5
        else:
            return now[0] - start


def test_nothing_failed_nothing_waits(backoff):
    backoff.check()


def test_waits_double_up_to_a_minute(backoff, now):
    found = []
    for _ in range(9):
        backoff.failed(DOWN)
        found.append(waits(backoff, now))
    assert found == [1, 2, 4, 8, 16, 32, LONGEST_S, LONGEST_S, LONGEST_S]


def test_success_forgets(backoff, now):
    backoff.failed(DOWN)
    backoff.failed(DOWN)
    backoff.succeeded()
    backoff.check()
    backoff.failed(DOWN)
    assert waits(backoff, now) == 1


def test_too_early_says_why_and_when(backoff, now):
    backoff.failed(DOWN)
    backoff.failed(DOWN)
    now[0] += 0.5
    with pytest.raises(TransportError, match=r"host: .*connection refused; the next try is in 2 s") as caught:
        backoff.check()
    assert not caught.value.started


def test_a_refused_login_is_not_tried_again_for_long(backoff, now):
    refused = LoginRefused("host", "the login was refused", "log in by hand.")
    backoff.failed(refused)
    with pytest.raises(LoginRefused, match="the login was refused") as caught:
        backoff.check()
    assert caught.value is not refused
    assert waits(backoff, now) == REFUSED_S


def test_an_unknown_host_key_can_be_accepted_meanwhile(backoff, now):
    backoff.failed(AccessError("host", "its key is unknown", "accept it."))
    assert waits(backoff, now) == 1


def test_many_failures_do_not_overflow(backoff, now):
    for _ in range(5000):
        backoff.failed(DOWN)
    assert waits(backoff, now) == LONGEST_S


def test_waits_are_spread(now):
    found = set()
    for _ in range(20):
        backoff = Backoff(clock=lambda: now[0])
        backoff.failed(DOWN)
        assert 0.8 <= backoff._again_at - now[0] <= 1.2
        found.add(backoff._again_at)
    assert len(found) > 1
