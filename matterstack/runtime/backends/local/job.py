"""One submitted attempt, as this process knows it and as the queue on disk keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from matterstack.core.spec import Digests, from_spec, spec_hash, to_spec
from matterstack.core.workflow import Task
from matterstack.errors import SubmitRefusedError
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.local.store import JobRow

NO_TOKEN: Final = "-"  # noqa: S105  # in place of the token of a task without a run
ALONE: Final = "_alone"  # stands for the run of a task submitted without one; no run can be called so


class Job:
    """An attempt whose end this process has not seen. Its id is its directory below the workspace's root."""

    __slots__ = ("attempt", "digests", "job_id", "run", "staged", "started_at", "task", "token")

    def __init__(self, job_id: str, task: Task, digests: Digests, token: str) -> None:
        self.job_id, self.task, self.digests, self.token = job_id, task, digests, token
        self.run, _, self.attempt = job_id.split("/")
        self.staged = False
        self.started_at: float | None = None

    @property
    def alone(self) -> bool:
        """Whether it was submitted without a run."""
        return self.run == ALONE


def job_id_of(submission: Submission) -> str:
    """Return ``run/task/attempt``."""
    return f"{submission.run}/{submission.task.task_id}/{submission.attempt}"


def job_of(submission: Submission) -> Job:
    """Return the job that stands for a submission."""
    return Job(job_id_of(submission), submission.task, submission.digests, submission.token or NO_TOKEN)


def row_of(submission: Submission) -> JobRow:
    """Return what the queue keeps of a submission."""
    spec = to_spec(submission.task, submission.digests)
    alone = submission.run == ALONE
    return JobRow(
        job_id_of(submission),
        spec_hash(spec) if alone else "",
        msgspec.json.encode(spec),
        alone,
        submission.doubtful,
        token=submission.token or NO_TOKEN,
    )


def recorded_job(row: JobRow) -> Job:
    """Return the job that a row of the queue stands for."""
    return Job(row.job_id, *from_spec(row.job_id.split("/")[1], msgspec.json.decode(row.spec)), row.token)


def check_secrets(task: Task, env: Mapping[str, str]) -> None:
    """Do nothing when all the task's secrets are in the environment.

    Raises:
        SubmitRefusedError: One is missing.
    """
    missing = [name for name in task.secrets if name not in env]
    if missing:
        raise SubmitRefusedError(
            f"secret {', '.join(missing)} of task {task.task_id!r} is not in the environment. The task was not "
            "started; set it and try again."
        )
