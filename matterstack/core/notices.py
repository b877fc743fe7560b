"""Of what somebody is told by a command of their own: a task that failed for good, a run that came to its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from matterstack.core.attempt import Attempt
from matterstack.core.events import NotificationDue
from matterstack.core.machine import FAILED, Reason, State
from matterstack.core.policy import Outcome

ON: Final = "on"  # the key of a profile
RUN_FINISHED: Final = "run_finished"
TASK_FAILED: Final = "task_failed"
TRIES: Final = 5

# An interrupted run was left by somebody who knows.
_ENDS: Final = frozenset({"finished", "paused", "budget"})


def of_task(
    on: Mapping[str, str], attempt: Attempt, what: Outcome, counts: Mapping[State, int]
) -> NotificationDue | None:
    """Return what is to be told of a task that has just ended, if anything.

    Nothing where it is tried again by itself, where somebody asked for its end, or where it was not run since another
    failed.

    Args:
        on: Commands by what they tell of.
        attempt: The task's last, ended.
        what: What follows from its end.
        counts: The run's tasks by state.
    """
    if TASK_FAILED not in on or attempt.state is not FAILED or what is Outcome.RETRY:
        return None
    if attempt.reason == Reason.DEPENDENCY_FAILED or attempt.cancel_requested:
        return None
    return NotificationDue(
        TASK_FAILED,
        attempt.state,
        attempt.reason,
        attempt.detail,
        attempt.task_id,
        attempt.number,
        attempt.exit_code,
        _plain(counts),
    )


def of_run(on: Mapping[str, str], why: str, detail: str, counts: Mapping[State, int]) -> NotificationDue | None:
    """Return what is to be told of a run whose controller lets go of it, if anything."""
    if RUN_FINISHED not in on or why not in _ENDS:
        return None
    return NotificationDue(RUN_FINISHED, why, detail=detail, counts=_plain(counts))


def _plain(counts: Mapping[State, int]) -> dict[str, int]:
    return {state.value: n for state, n in counts.items()}


def variables(run: str, due: int, event: NotificationDue) -> Iterator[tuple[str, str]]:
    """Yield the environment variables for a command; ``due`` is the same whenever the same is told again."""
    told: dict[str, object] = {
        "EVENT": event.on,
        "NOTICE": f"{run}/{due}",
        "RUN": run,
        "TASK": event.task,
        "ATTEMPT": event.attempt or "",
        "STATE": event.state,
        "REASON": event.reason,
        "DETAIL": event.detail,
        "EXIT_CODE": "" if event.exit_code is None else event.exit_code,
        **{f"N_{state}": n for state, n in event.counts.items()},
    }
    for name, value in told.items():
        yield f"MATTERSTACK_{name}", str(value).replace("\0", "")
