"""What is offered to a backend: the intent to submit an attempt, and the attempt as the backend takes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.machine import FAILED, Reason
from matterstack.core.schedule import Schedule
from matterstack.core.spec import Digests
from matterstack.core.token import token
from matterstack.core.workflow import OutputRef, Task
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.reports import Offer
from matterstack.runtime.workers import Lane, Workers


class Specs(Protocol):
    """The run's tasks, by id, in order. Read from the journal only when they are needed."""

    def __getitem__(self, task_id: str) -> Task: ...

    def digests(self, task_id: str) -> Digests:
        """Return the recorded content of the task's ``Path`` inputs."""


class RunFacts:
    """What is fixed while a run is driven: its identity, this boot of the machine, its options.

    ``on`` has commands by what they tell of.
    """

    def __init__(
        self,
        journal_id: str,
        run: str,
        key: str,
        boot: str,
        *,
        fail_fast: bool = False,
        on: Mapping[str, str] | None = None,
    ) -> None:
        self.journal_id, self.run, self.key, self.boot, self.fail_fast = journal_id, run, key, boot, fail_fast
        self.on = on or {}


def intent(facts: RunFacts, attempt: Attempt, profile: str) -> ev.SubmitRequested:
    """Return the intent to submit what comes next of a task: its next attempt, or the same one again.

    A token without a request is that of an attempt proved absent: it is the same attempt still.
    """
    number, gen = (attempt.number, attempt.gen + 1) if attempt.token else (attempt.number + 1, 1)
    name = token(facts.journal_id, facts.key, attempt.task_id, number)
    return ev.SubmitRequested(number, name, facts.boot, gen, profile=profile)


class _Elsewhere:
    """Finds files of other tasks, by the tasks' lanes and job ids, from whatever backend has them."""

    def __init__(self, homes: Mapping[str, tuple[Lane, str]]) -> None:
        self._homes = homes

    def fetch(self, task_id: str, name: str) -> Path:
        lane, job_id = self._homes[task_id]
        return lane.backend.retrieve(job_id, name)

    def place(self, task_id: str, name: str) -> Path:
        lane, job_id = self._homes[task_id]
        return lane.backend.workdir(job_id) / name


def make_offer(
    facts: RunFacts,
    specs: Specs,
    attempts: Mapping[str, Attempt],
    workers: Workers,
    attempt: Attempt,
    lane: Lane,
    *,
    doubtful: bool = False,
) -> Offer:
    """Return the requested attempt as its lane's backend takes it."""
    task = specs[attempt.task_id]
    upstream: dict[str, str] = {}
    elsewhere: dict[str, tuple[Lane, str]] = {}
    for source in task.files.values():
        if isinstance(source, OutputRef):
            there = attempts[source.task_id]
            home, job_id = workers.of(there.profile), there.job_id or ""
            if home is lane and lane.backend.passes_outputs:
                upstream[source.task_id] = job_id
            else:
                elsewhere[source.task_id] = (home, job_id)
    submission = Submission(
        task,
        facts.run,
        attempt.number,
        attempt.token,
        specs.digests(attempt.task_id) if task.files else {},
        doubtful,
        upstream,
        attempt.gen,
        attempt.array,
        attempt.index,
        cancelled=attempt.cancel_requested and attempt.job_id is None,
    )
    return Offer(submission, _Elsewhere(elsewhere) if elsewhere else None)


def untraceable() -> ev.TaskFailed:
    """Return how an attempt ends whose backend forgets what was submitted with a controller that ended meanwhile."""
    detail = "the controller ended while it was submitted, and this backend cannot tell whether it was"
    return ev.TaskFailed(Reason.LOST, detail=detail)


def freed_by(chosen: set[str], schedule: Schedule, specs: Specs, attempts: Mapping[str, Attempt]) -> set[str]:
    """Return the tasks that failed only because of those chosen to be retried, directly or not."""
    freed = {one for one in schedule.downstream(chosen) if attempts[one].reason == Reason.DEPENDENCY_FAILED}
    todo = list(freed)
    while todo:
        task_id = todo.pop()
        others = [one for one in specs[task_id].needs() if one not in chosen and one not in freed]
        if task_id in freed and any(attempts[one].state is FAILED and not specs[one].allow_failure for one in others):
            freed.discard(task_id)
            todo += [one for one in schedule.dependents(task_id) if one in freed]
    return freed
