"""What the end of an attempt leads to."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from matterstack.core.attempt import Attempt
from matterstack.core.machine import COMPLETED, FAILED, Reason
from matterstack.core.workflow import DEFAULT_RETRY, Task


class Outcome(StrEnum):
    """What an ended attempt means for the run."""

    DONE = "done"  # dependents may start
    RETRY = "retry"  # a new attempt follows
    BLOCKED = "blocked"  # dependents fail with DEPENDENCY_FAILED
    DECIDE = "decide"  # a person decides; dependents wait


# Somebody may have seen effects of these, so only a person or an explicit policy starts them again.
UNDECIDED: Final = frozenset({Reason.INTERRUPTED, Reason.LOST})
INFRASTRUCTURE: Final = UNDECIDED | {Reason.NODE_FAIL, Reason.PREEMPTED, Reason.BOOT_FAIL}
NOT_STARTED: Final = frozenset({Reason.NODE_FAIL, Reason.PREEMPTED, Reason.BOOT_FAIL})
FINAL_WORD: Final = frozenset({Reason.CANCELLED, Reason.SUBMIT_REFUSED, Reason.DEPENDENCY_FAILED})


def outcome(task: Task, attempt: Attempt, retry: str = "") -> Outcome:
    """Return what follows from the end of the attempt.

    Args:
        task: Its spec; ``retry``, ``max_attempts`` and ``allow_failure`` decide.
        attempt: COMPLETED or FAILED.
        retry: The profile's policy, for tasks that leave theirs at the default; empty for none.
    """
    if attempt.state is COMPLETED:
        return Outcome.DONE
    assert attempt.state is FAILED, attempt
    if attempt.number < task.max_attempts and _retries(policy(task, retry), attempt):
        return Outcome.RETRY
    if attempt.reason in UNDECIDED:
        return Outcome.DECIDE
    return Outcome.DONE if task.allow_failure else Outcome.BLOCKED


def policy(task: Task, retry: str) -> str:
    """Return the task's policy; ``retry`` is the profile's, for tasks that leave theirs at the default."""
    return retry if retry and task.retry == DEFAULT_RETRY else task.retry


def _retries(retry: str, attempt: Attempt) -> bool:
    if attempt.reason in FINAL_WORD:
        return False
    match retry:
        case "always":
            return True
        case "infrastructure":
            return attempt.reason in INFRASTRUCTURE
        case "if-not-started":
            return attempt.reason in NOT_STARTED and attempt.started_at is None
        case _:
            return False
