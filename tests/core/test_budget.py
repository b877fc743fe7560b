import math

import pytest

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt, evolve
from matterstack.core.budget import Meter, Spending, budget_problem, hours, paid_attempts, worst_core_hours
from matterstack.core.usage import Usage
from matterstack.core.workflow import Task


def metered(task, *events, meter=None):
    """Return a meter after the events of a task."""
    meter, attempt = meter or Meter(), Attempt(task.task_id)
    for event in events:
        attempt = evolve(attempt, event)
        meter.take(task, attempt, event)
    return meter


FOUR = Task("true", "t", cores=4)
BEGUN = (ev.SubmitRequested(1, "ms-1"), ev.JobSubmitted("j"), ev.JobStarted(100.0))


@pytest.mark.parametrize("value", [0, 0.5, 12, 1e9])
def test_a_number_from_0_on_is_a_budget(value):
    assert budget_problem(value) is None


@pytest.mark.parametrize("value", [-1, -0.001, math.nan, math.inf, -math.inf, "12", None, True, [1]])
def test_anything_else_is_none(value):
    assert repr(value) in budget_problem(value)


def test_what_waits_uses_nothing():
    assert metered(FOUR, *BEGUN[:2]).used_s(1e9) == 0


def test_what_runs_uses_its_cores_since_its_start():
    meter = metered(FOUR, *BEGUN)
    assert meter.used_s(110.0) == 40
    assert meter.used_s(99.0) == 0, "the host's clock may be ahead"


@pytest.mark.parametrize("end", [ev.TaskCompleted(130.0), ev.TaskFailed("EXIT_CODE", 130.0)])
def test_what_has_ended_used_its_cores_from_start_to_end(end):
    assert metered(FOUR, *BEGUN, end).used_s(1e9) == 120


def test_an_end_that_is_not_known_counts_nothing():
    assert metered(FOUR, *BEGUN, ev.TaskFailed("LOST")).used_s(1e9) == 0


def test_what_was_put_back_into_the_queue_uses_nothing_there():
    assert metered(FOUR, *BEGUN, ev.JobRequeued()).used_s(1e9) == 0


def test_recorded_usage_counts_instead_of_what_was_reckoned():
    used = ev.UsageRecorded(1, Usage("sacct", elapsed_s=50.0, cpus=8), cores=4)
    assert metered(FOUR, *BEGUN, ev.TaskCompleted(130.0), used).used_s(0) == 400


def test_usage_without_allocated_cores_counts_those_asked_for():
    used = ev.UsageRecorded(1, Usage("sacct", elapsed_s=50.0), cores=4)
    assert metered(FOUR, *BEGUN, ev.TaskCompleted(130.0), used).used_s(0) == 200


def test_usage_that_nobody_knows_leaves_what_was_reckoned():
    used = ev.UsageRecorded(1, Usage(unknown="no accounting"), cores=4)
    assert metered(FOUR, *BEGUN, ev.TaskCompleted(130.0), used).used_s(0) == 120


def test_every_attempt_counts_also_one_whose_usage_comes_after_the_next_began():
    again = (ev.TaskRetried(), ev.SubmitRequested(2, "ms-2"), ev.JobSubmitted("k"), ev.JobStarted(200.0))
    late = ev.UsageRecorded(1, Usage("sacct", elapsed_s=10.0), cores=4)
    meter = metered(FOUR, *BEGUN, ev.TaskFailed("NODE_FAIL", 130.0), *again, late)
    assert meter.used_s(210.0) == 40 + 40


def test_a_budget_is_reached_when_all_of_it_is_used():
    assert Spending(2.0, 2.0).reached
    assert not Spending(2.0, 1.999).reached
    assert str(Spending(100.0, 101.25)) == "the budget of 100.0 core hours is reached, 101.2 are used"


def test_hours_are_short():
    assert [hours(one) for one in (0, 0.00123456, 9.876, 12345.67)] == ["0", "0.00123", "9.88", "12345.7"]


@pytest.mark.parametrize(
    ("retry", "profile", "made", "expected"),
    [
        ("never", "", 0, 1),
        ("if-not-started", "", 0, 1),
        ("infrastructure", "", 0, 5),
        ("always", "", 0, 5),
        ("always", "", 2, 3),
        ("always", "", 5, 1),
        ("if-not-started", "always", 0, 5),  # the default, which a profile may set otherwise
        ("never", "always", 0, 1),
    ],
)
def test_attempts_that_its_policy_lets_a_task_pay_for(retry, profile, made, expected):
    assert paid_attempts(Task("true", "t", retry=retry, max_attempts=5), profile, made=made) == expected


def test_the_worst_case_is_cores_times_limit_times_attempts():
    assert worst_core_hours(Task("true", "t", cores=8, time_limit_minutes=90), 2) == 24
    assert worst_core_hours(Task("true", "t", cores=8), 2) is None
