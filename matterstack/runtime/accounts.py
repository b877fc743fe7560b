"""Which ended attempts have still to be asked for what they used, and when."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from matterstack.core.events import UsageRecorded
from matterstack.core.usage import Usage
from matterstack.core.workflow import Task
from matterstack.runtime.backends.base import ComputeBackend, Submission
from matterstack.runtime.reports import Used

EVERY_S: Final = 120.0  # between two questions while a run goes on: accounting is everybody's
GIVE_UP_S: Final = 900.0
END_S: Final = 2.0  # longest that a run waits at its end; what is not known by then, its next controller asks for
END_EVERY_S: Final = 0.5
NOT_KNOWN: Final = "accounting does not know it"


def keeps(backend: ComputeBackend) -> bool:
    """Return whether a backend can tell what jobs used."""
    return type(backend).usage_many is not ComputeBackend.usage_many


class Accounts:
    """What a backend's worker owes of its ended jobs.

    Args:
        backend: Is asked; one that has nothing to tell owes nothing.
        clock: Seconds, of any origin; by default the monotonic clock.
    """

    def __init__(self, backend: ComputeBackend, clock: Callable[[], float] | None = None) -> None:
        self._backend, self._clock = backend, clock or _monotonic
        self._kept = keeps(backend)
        self._attempts: dict[str, tuple[Task, int]] = {}
        self._owed: dict[str, float] = {}
        self._next = 0.0
        self._last_call: float | None = None

    def know(self, job_id: str, submission: Submission) -> None:
        """Take down which attempt a job stands for."""
        if self._kept:
            self._attempts[job_id] = submission.task, submission.attempt

    def ended(self, job_id: str, ago_s: float = 0.0) -> None:
        """Take down that a job has ended, some seconds ago."""
        if job_id in self._attempts:
            if not self._owed:
                self._next = self._clock() + EVERY_S
            self._owed[job_id] = self._clock() + GIVE_UP_S - ago_s

    @property
    def owing(self) -> bool:
        """Whether something is still to be told."""
        return bool(self._owed)

    def last_call(self) -> None:
        """Ask at once, and forget what is not known a few seconds from now."""
        self._last_call = self._clock() + END_S
        self._next = 0.0

    def go_on(self) -> None:
        """Go back to waiting: the run has more to do after all."""
        self._last_call = None

    @property
    def wait_s(self) -> float:
        """How long there is nothing to ask."""
        return max(0.0, self._next - self._clock()) if self._owed else float("inf")

    def ask(self) -> list[Used]:
        """Return what is known by now, and what never will be; asks only where it is time to.

        A backend that does not answer is not told of: what a run does must not hang on its accounts. Only who
        answers and still does not know a job after a long time will never know it.
        """
        now = self._clock()
        if not self._owed or now < self._next:
            return []
        self._next = now + (EVERY_S if self._last_call is None else END_EVERY_S)
        try:
            found = dict(self._backend.usage_many(list(self._owed)))
            found = {job_id: Usage(unknown=NOT_KNOWN) for job_id in self._late()} | found
        except Exception:  # noqa: BLE001  # whatever it is, the run is worth more than its accounts
            found = {}
        told = [self._used(job_id, usage) for job_id, usage in found.items() if job_id in self._owed]
        if self._last_call is not None and self._clock() >= self._last_call:
            self._owed = {job_id: until for job_id, until in self._owed.items() if job_id in found}
        return told

    def _late(self) -> list[str]:
        now = self._clock()
        return [job_id for job_id, until in self._owed.items() if now >= until]

    def settle(self, told: list[Used]) -> None:
        """Forget what has been reported."""
        done = {(one.task_id, one.event.attempt) for one in told}
        for job_id in list(self._owed):
            task, attempt = self._attempts[job_id]
            if (task.task_id, attempt) in done:
                del self._owed[job_id], self._attempts[job_id]

    def _used(self, job_id: str, usage: Usage) -> Used:
        task, attempt = self._attempts[job_id]
        memory = round(task.memory_gb * 1e9) if task.memory_gb is not None else None
        limit_s = task.time_limit_minutes * 60.0 if task.time_limit_minutes is not None else None
        return Used(task.task_id, UsageRecorded(attempt, usage, task.cores, memory, limit_s))


def _monotonic() -> float:
    return time.monotonic()
