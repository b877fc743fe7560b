from itertools import product

import pytest

from matterstack.core.attempt import Attempt
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING, Reason
from matterstack.core.policy import Outcome, outcome
from matterstack.core.workflow import RETRIES, Task

INFRASTRUCTURE = {"NODE_FAIL", "PREEMPTED", "BOOT_FAIL"}
UNKNOWN_END = {"INTERRUPTED", "LOST"}
FOR_GOOD = {"CANCELLED", "SUBMIT_REFUSED", "DEPENDENCY_FAILED"}


def failed(reason, number=1, started_at=None):
    return Attempt("t", FAILED, number, "ms-1", "j", requested=True, reason=reason, started_at=started_at)


@pytest.mark.parametrize("retry", RETRIES)
def test_a_completed_task_is_done_under_every_policy(retry):
    assert outcome(Task("true", "t", retry=retry), Attempt("t", COMPLETED, 1)) is Outcome.DONE


@pytest.mark.parametrize("state", [PENDING, RUNNING])
def test_only_an_ended_attempt_has_an_outcome(state):
    with pytest.raises(AssertionError):
        outcome(Task("true", "t"), Attempt("t", state, 1))


@pytest.mark.parametrize("reason", Reason)
def test_never_retries_nothing(reason):
    assert outcome(Task("true", "t", retry="never"), failed(reason)) is not Outcome.RETRY


@pytest.mark.parametrize("reason", Reason)
def test_by_default_only_what_provably_did_not_start_is_retried(reason):
    task = Task("true", "t")
    assert (outcome(task, failed(reason)) is Outcome.RETRY) == (reason in INFRASTRUCTURE)
    assert outcome(task, failed(reason, started_at=5.0)) is not Outcome.RETRY


@pytest.mark.parametrize(("reason", "started_at"), list(product(Reason, (None, 5.0))))
def test_infrastructure_also_retries_what_started_and_what_is_unknown(reason, started_at):
    found = outcome(Task("true", "t", retry="infrastructure"), failed(reason, started_at=started_at))
    assert (found is Outcome.RETRY) == (reason in INFRASTRUCTURE | UNKNOWN_END)


@pytest.mark.parametrize("reason", Reason)
def test_always_retries_all_but_what_would_end_the_same_or_was_wanted(reason):
    found = outcome(Task("true", "t", retry="always"), failed(reason, started_at=5.0))
    assert (found is Outcome.RETRY) == (reason not in FOR_GOOD)


@pytest.mark.parametrize("reason", sorted(UNKNOWN_END))
@pytest.mark.parametrize("allow_failure", [False, True])
def test_an_unknown_end_waits_for_a_person_and_never_fails_dependents(reason, allow_failure):
    assert outcome(Task("true", "t", allow_failure=allow_failure), failed(reason)) is Outcome.DECIDE


@pytest.mark.parametrize("reason", sorted(set(Reason) - UNKNOWN_END))
def test_a_failure_blocks_dependents_unless_it_is_allowed(reason):
    assert outcome(Task("true", "t", retry="never"), failed(reason)) is Outcome.BLOCKED
    assert outcome(Task("true", "t", retry="never", allow_failure=True), failed(reason)) is Outcome.DONE


def test_retries_stop_at_the_most_attempts():
    task = Task("true", "t", retry="always", max_attempts=3)
    found = [outcome(task, failed("EXIT_CODE", number)) for number in (1, 2, 3, 4)]
    assert found == [Outcome.RETRY, Outcome.RETRY, Outcome.BLOCKED, Outcome.BLOCKED]


def test_an_allowed_failure_is_still_retried_first():
    task = Task("true", "t", retry="always", max_attempts=2, allow_failure=True)
    assert [outcome(task, failed("EXIT_CODE", n)) for n in (1, 2)] == [Outcome.RETRY, Outcome.DONE]
