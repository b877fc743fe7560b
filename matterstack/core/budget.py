"""Core hours: what a run has used of them, told from its events, against its budget; and what it may use at worst."""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.machine import RUNNING
from matterstack.core.policy import policy
from matterstack.core.workflow import Task

HOUR_S: Final = 3600.0
BUDGET: Final = "budget_core_hours"  # the key of a profile


def budget_problem(value: object) -> str | None:
    """Return what is wrong with ``value`` as a budget in core hours, or None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return None
    return f"must be a number of core hours, 0 or more, not {value!r}"


def hours(core_hours: float) -> str:
    """Return a number of core hours as people read it."""
    return f"{core_hours:.1f}" if core_hours >= 10 else f"{core_hours:.3g}"


def core_seconds(elapsed_s: float | None, cpus: int | None, asked_cores: int) -> float:
    """Return the core seconds of an attempt, as far as is known: of what was allocated, else of what was asked for."""
    return max(0.0, elapsed_s or 0.0) * (cpus or asked_cores)


class Spending(Struct, frozen=True):
    """What a run may use and has used, in core hours; ``stopped``: it submits nothing more for that."""

    limit: float
    used: float
    stopped: bool = False

    @property
    def reached(self) -> bool:
        """Whether nothing more is to be submitted."""
        return self.used >= self.limit

    def __str__(self) -> str:
        return f"the budget of {hours(self.limit)} core hours is reached, {hours(self.used)} are used"


class Meter:
    """The core seconds of a run's attempts: of the ended ones as recorded, of the running ones up to now."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, int], float] = {}
        self._ended_s = 0.0
        self._running: dict[str, tuple[int, float]] = {}

    def used_s(self, now: float) -> float:
        """Return the core seconds used up to ``now`` (seconds since 1970)."""
        running = sum(core_seconds(now - since, None, cores) for cores, since in self._running.values())
        return self._ended_s + running

    def ended(self, task_id: str, attempt: int, core_s: float) -> None:
        """Take down what an ended attempt used; what is told later of the same attempt counts."""
        before = self._ended.get((task_id, attempt), 0.0)
        self._ended[task_id, attempt] = core_s
        self._ended_s += core_s - before

    def stands(self, attempt: Attempt, cores: int) -> None:
        """Take down whether the task's newest attempt runs."""
        if attempt.state is RUNNING and attempt.started_at is not None:
            self._running[attempt.task_id] = cores, attempt.started_at
        else:
            self._running.pop(attempt.task_id, None)

    def take(self, task: Task, attempt: Attempt, event: ev.Event) -> None:
        """Fold one event of the task, after which its newest attempt is ``attempt``."""
        match event:
            case ev.JobStarted() | ev.JobRequeued():
                self.stands(attempt, task.cores)
            case ev.TaskCompleted() | ev.TaskFailed():
                self.stands(attempt, task.cores)
                if attempt.started_at is not None and event.ended_at is not None:
                    core_s = core_seconds(event.ended_at - attempt.started_at, None, task.cores)
                    self.ended(task.task_id, attempt.number, core_s)
            case ev.UsageRecorded(usage=usage) if usage.elapsed_s is not None:
                self.ended(task.task_id, event.attempt, core_seconds(usage.elapsed_s, usage.cpus, event.cores))


def paid_attempts(task: Task, retry: str = "", *, made: int = 0) -> int:
    """Return how many attempts the task may still make that run its command.

    Under ``never`` and ``if-not-started`` that is one: what did not start is tried again, and has used nothing.

    Args:
        task: Its spec.
        retry: The profile's policy, for tasks that leave theirs at the default; empty for none.
        made: Attempts that have ended.
    """
    return max(1, task.max_attempts - made) if policy(task, retry) in ("infrastructure", "always") else 1


def worst_core_hours(task: Task, attempts: int) -> float | None:
    """Return the most core hours that so many attempts use; None where the task has no time limit."""
    if task.time_limit_minutes is None:
        return None
    return task.cores * task.time_limit_minutes / 60.0 * attempts
