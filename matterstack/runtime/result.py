"""What `run_workflow` gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from matterstack.core.attempt import Attempt
from matterstack.core.budget import Spending
from matterstack.core.machine import State
from matterstack.errors import FilesUnsupported, UnknownName
from matterstack.runtime.backends.base import ComputeBackend


class TaskResult:
    """One task of a finished, paused or stopped run: what its newest attempt came to."""

    def __init__(self, attempt: Attempt, backend: ComputeBackend) -> None:
        self.task_id = attempt.task_id
        self.state = attempt.state
        """PENDING, RUNNING, COMPLETED or FAILED."""
        self.reason = attempt.reason
        """Why it is FAILED, else ``""``."""
        self.exit_code = attempt.exit_code
        """0 to 255, or None where the command has no end."""
        self.signal = attempt.signal
        self.detail = attempt.detail
        self.attempts = attempt.number
        """Number of attempts so far."""
        self.started_at, self.ended_at = attempt.started_at, attempt.ended_at
        """Seconds since 1970 UTC, or None."""
        self.job_id = attempt.job_id
        self._backend = backend

    @property
    def workdir(self) -> Path | None:
        """Directory of the attempt on this machine; None where there is none or the backend has no files."""
        try:
            return self._backend.workdir(self.job_id) if self.job_id is not None else None
        except FilesUnsupported:
            return None

    def logs(self) -> dict[str, str]:
        """Return ``{"stdout": …, "stderr": …}`` of the attempt, both empty before it was submitted."""
        return self._backend.get_logs(self.job_id) if self.job_id is not None else {"stdout": "", "stderr": ""}

    def __repr__(self) -> str:
        why = f", {self.reason}" if self.reason else ""
        return f"TaskResult({self.task_id!r}, {self.state}{why})"


class WorkflowResult(Mapping[str, TaskResult]):
    """Results by task id, in the order of the workflow, and what they add up to.

    Args:
        run_id: The run.
        journal: Path of its journal.
        counts: Number of tasks by state.
        load: Gives the attempts; called when the first task is looked at.
        backend: Gives, by the profile that an attempt names, what hands out its logs and files.
        budget: What the run may use and has used, in core hours; None where it has no budget.
        undecided: Ids of tasks about whose end a person has to decide.
        tolerated: Whether every failure is of a task with ``allow_failure``.
    """

    def __init__(
        self,
        run_id: str,
        journal: Path,
        counts: Mapping[State, int],
        load: Callable[[], Mapping[str, Attempt]],
        backend: Callable[[str], ComputeBackend],
        *,
        budget: Spending | None = None,
        undecided: tuple[str, ...] = (),
        tolerated: bool = True,
    ) -> None:
        self.run_id, self.journal, self.counts = run_id, journal, dict(counts)
        self.budget, self.undecided = budget, undecided
        self._load, self._backend, self._tolerated = load, backend, tolerated

    @property
    def ok(self) -> bool:
        """Whether every task has completed, or failed with leave."""
        return not self.counts[State.PENDING] and not self.counts[State.RUNNING] and self._tolerated

    @cached_property
    def _attempts(self) -> Mapping[str, Attempt]:
        return {task_id: attempt for task_id, attempt in self._load().items() if not attempt.dropped}

    def __getitem__(self, task_id: str) -> TaskResult:
        if task_id not in self._attempts:
            raise UnknownTask(task_id, self._attempts)
        return self._result(self._attempts[task_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._attempts)

    def __len__(self) -> int:
        return len(self._attempts)

    def failed(self) -> list[TaskResult]:
        """Return the tasks that failed, in the order of the workflow."""
        return [self._result(attempt) for attempt in self._attempts.values() if attempt.state is State.FAILED]

    def _result(self, attempt: Attempt) -> TaskResult:
        return TaskResult(attempt, self._backend(attempt.profile))

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {state}" for state, n in self.counts.items() if n)
        return f"WorkflowResult({self.run_id!r}: {counts or 'no tasks'})"


class UnknownTask(UnknownName, KeyError):
    """The run has no task of this id."""

    def __init__(self, task_id: str, known: Mapping[str, Attempt]) -> None:
        super().__init__("task", task_id, known)

    __str__ = Exception.__str__
