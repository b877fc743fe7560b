import pytest

from matterstack.core.attempt import Attempt
from matterstack.core.events import NotificationDue
from matterstack.core.machine import COMPLETED, FAILED, State
from matterstack.core.notices import of_run, of_task, variables
from matterstack.core.policy import Outcome

BOTH = {"task_failed": "true", "run_finished": "true"}
COUNTS = dict.fromkeys(State, 0) | {FAILED: 2}


def failed(reason="EXIT_CODE", **more):
    return Attempt("t", FAILED, 3, reason=reason, exit_code=7, detail="why", **more)


@pytest.mark.parametrize("what", [Outcome.DONE, Outcome.BLOCKED, Outcome.DECIDE])
def test_a_task_that_failed_for_good_is_told(what):
    due = of_task(BOTH, failed(), what, COUNTS)
    assert (due.on, due.task, due.attempt, due.state) == ("task_failed", "t", 3, "FAILED")
    assert (due.reason, due.exit_code, due.detail, due.counts["FAILED"]) == ("EXIT_CODE", 7, "why", 2)


@pytest.mark.parametrize(
    ("attempt", "what", "on"),
    [
        (failed(), Outcome.RETRY, BOTH),  # is tried again
        (failed("DEPENDENCY_FAILED"), Outcome.BLOCKED, BOTH),  # was not run
        (failed("CANCELLED", cancel_requested=True), Outcome.BLOCKED, BOTH),  # was asked for
        (Attempt("t", COMPLETED, 1), Outcome.DONE, BOTH),
        (failed(), Outcome.BLOCKED, {"run_finished": "true"}),
        (failed(), Outcome.BLOCKED, {}),
    ],
)
def test_anything_else_of_a_task_is_not(attempt, what, on):
    assert of_task(on, attempt, what, COUNTS) is None


def test_a_task_that_somebody_else_cancelled_is_told():
    assert of_task(BOTH, failed("CANCELLED"), Outcome.BLOCKED, COUNTS) is not None


@pytest.mark.parametrize("why", ["finished", "paused", "budget"])
def test_a_run_that_came_to_its_end_is_told(why):
    due = of_run(BOTH, why, "words", COUNTS)
    assert (due.on, due.state, due.detail, due.task) == ("run_finished", why, "words", "")


@pytest.mark.parametrize(("why", "on"), [("interrupted", BOTH), ("stopped by an error", BOTH), ("finished", {})])
def test_a_run_that_was_left_is_not(why, on):
    assert of_run(on, why, "", COUNTS) is None


def test_what_a_command_is_told_of_a_task():
    due = NotificationDue("task_failed", "FAILED", "EXIT_CODE", "a\0b", "t", 3, 7, {"FAILED": 2})
    assert dict(variables("run", 12, due)) == {
        "MATTERSTACK_EVENT": "task_failed",
        "MATTERSTACK_NOTICE": "run/12",
        "MATTERSTACK_RUN": "run",
        "MATTERSTACK_TASK": "t",
        "MATTERSTACK_ATTEMPT": "3",
        "MATTERSTACK_STATE": "FAILED",
        "MATTERSTACK_REASON": "EXIT_CODE",
        "MATTERSTACK_DETAIL": "ab",
        "MATTERSTACK_EXIT_CODE": "7",
        "MATTERSTACK_N_FAILED": "2",
    }


def test_what_is_not_known_is_empty():
    told = dict(variables("run", 1, NotificationDue("run_finished", "finished")))
    assert (told["MATTERSTACK_TASK"], told["MATTERSTACK_ATTEMPT"], told["MATTERSTACK_EXIT_CODE"]) == ("", "", "")
