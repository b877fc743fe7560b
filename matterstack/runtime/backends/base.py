"""What a backend must do, and what it may do better than the defaults."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final

from msgspec import Struct

from matterstack.core.evidence import Evidence, JobStatus
from matterstack.core.spec import Digests
from matterstack.core.usage import Usage
from matterstack.core.workflow import Task
from matterstack.errors import FilesUnsupported, MatterStackError, UnknownJob

__all__ = ["ComputeBackend", "JobStatus", "Submission"]

LOG_BYTES: Final = 1 << 24
"""So much of a log is read at once."""
_NO_DIGESTS: Final[Digests] = MappingProxyType({})
_NO_UPSTREAM: Final[Mapping[str, str]] = MappingProxyType({})


class Submission(Struct, frozen=True):
    """One attempt for a backend.

    ``task.files`` holds text and ``Path``; outputs of other tasks are paths by now, except where the backend
    passes outputs on itself: those stay, and ``upstream`` has the job ids of their tasks. ``digests`` has
    the expected content of those paths that are inputs of the workflow. ``doubtful``: the machine went
    down since the intent was recorded, so the attempt may have started without a trace. ``gen``, ``array``,
    ``index``: see `core.events.SubmitRequested`. ``again``: the backend was, or may have been, asked before.
    ``cancelled``: find out whether it was submitted, but do not.
    """

    task: Task
    run: str
    attempt: int
    token: str
    digests: Digests = _NO_DIGESTS
    doubtful: bool = False
    upstream: Mapping[str, str] = _NO_UPSTREAM
    gen: int = 1
    array: str = ""
    index: int | None = None
    again: bool = False
    cancelled: bool = False


class ComputeBackend(ABC):
    """A place where tasks run. The four abstract methods are enough; all are synchronous.

    Example:
        ``class Mine(ComputeBackend): …`` with ``submit``, ``poll``, ``get_logs`` and ``cancel``, then
        ``run_workflow(workflow, backend=Mine())``.
    """

    idempotent: ClassVar[bool] = False
    """Whether submitting the same attempt again gives the same job; then an intent whose outcome was
    lost with the controller is simply submitted again."""

    cheap_poll: ClassVar[bool] = False
    """Whether `poll_many` asks nobody, so that it may be called at every turn."""

    passes_outputs: ClassVar[bool] = False
    """Whether `submit_many` takes outputs of the backend's own jobs itself, without their coming here."""

    poll_min_s: float = 0.1
    poll_max_s: float = 5.0
    """Shortest and longest time between two calls of `poll_many`; longer while nothing changes."""

    slots: int | None = None
    """Cores that run at once; None where the backend has a queue of its own that takes any number."""

    @abstractmethod
    def submit(self, task: Task) -> str:
        """Return the id of the job that now stands for ``task``.

        Raises:
            SubmitRefusedError: The task will never be taken as it is.
            BackendUnavailable: Not now; nothing was submitted.
        """

    @abstractmethod
    def poll(self, job_id: str) -> JobStatus:
        """Return what is known of the job now.

        Raises:
            UnknownJob: There never was such a job.
            BackendUnavailable: It could not be asked.
        """

    @abstractmethod
    def get_logs(self, job_id: str) -> dict[str, str]:
        """Return ``{"stdout": …, "stderr": …}``: what the job has written so far.

        Raises:
            UnknownJob: There never was such a job.
        """

    @abstractmethod
    def cancel(self, job_id: str) -> None:
        """End the job; one that already ended stays as it is. `poll` tells when it is over.

        Raises:
            UnknownJob: There never was such a job.
        """

    def settings(self) -> dict[str, Any]:
        """Return what a profile needs to make this backend again, or ``{}`` where only its script can."""
        return {}

    def arrays(self, tasks: Sequence[Task]) -> list[list[int]]:
        """Return which of these tasks should go together as job arrays, as lists of two or more positions.

        Asks nobody: the answer is recorded with the intents, before anything is submitted.
        """
        del tasks
        return []

    def submit_many(self, submissions: Sequence[Submission]) -> list[str | MatterStackError]:
        """Return for each submission its job id, or the error that `submit` raised.

        `SubmitInDoubt` and `SubmitHeld` among them mean: ask again later. `SubmitAbsentError` means that the
        submission was proved not to have happened and never will.
        """
        answers: list[str | MatterStackError] = []
        for submission in submissions:
            try:
                answers.append(self.submit(submission.task))
            except MatterStackError as error:
                answers.append(error)
        return answers

    def recognize(self, job_id: str, submission: Submission) -> None:  # noqa: B027  # most backends need not
        """Take down which attempt a job of an earlier process stands for. May be called from any thread."""

    @property
    def has_news(self) -> bool:
        """Whether `poll_many` has something to tell before its time has come."""
        return False

    @property
    def notice(self) -> str:
        """What a person should know now, e.g. why results cannot be fetched; else ``""``."""
        return ""

    def poll_many(self, job_ids: Collection[str]) -> Mapping[str, Evidence]:
        """Return evidence by job id. A job that is left out is as before: nothing new is known of it.

        Raises:
            BackendUnavailable: Nothing could be asked.
        """
        return {job_id: self.poll(job_id) for job_id in job_ids}

    def usage_many(self, job_ids: Collection[str]) -> Mapping[str, Usage]:
        """Return what these ended jobs used, by job id; one that is left out is asked for again, for some minutes.

        A backend that has nothing to tell leaves this as it is and is not asked. Nothing waits for the answer.

        Raises:
            BackendUnavailable: Nothing could be asked.
        """
        del job_ids
        return {}

    def cancel_many(self, job_ids: Collection[str]) -> None:
        """Ask for the end of the jobs, without waiting for it. Unknown ones are passed over."""
        for job_id in job_ids:
            with suppress(UnknownJob):
                self.cancel(job_id)

    def withdraw(self, job_ids: Collection[str]) -> list[str]:
        """Take back those jobs that provably did not start and never will; return their ids."""
        del job_ids
        return []

    def read_log(self, job_id: str, stream: str, offset: int) -> bytes:
        """Return what the job has written to ``"stdout"`` or ``"stderr"`` from byte ``offset`` on.

        `LOG_BYTES` or more mean that there may be more behind them.
        """
        return self.get_logs(job_id)[stream].encode("utf-8", "replace")[offset:]

    def workdir(self, job_id: str) -> Path:  # noqa: ARG002  # for those that override it
        """Return the job's directory on this machine.

        Raises:
            FilesUnsupported: The backend does not hand out files.
        """
        raise FilesUnsupported(type(self).__name__)

    def retrieve(self, job_id: str, name: str) -> Path:
        """Return a path on this machine with the file that the job wrote as ``name``.

        May be called from any thread.

        Raises:
            FilesUnsupported: The backend does not hand out files.
            FileNotFoundError: The job did not write it.
        """
        path = self.workdir(job_id) / name
        if not path.is_file():
            raise FileNotFoundError(name)
        return path

    def wait(self, timeout_s: float, interrupted: threading.Event) -> None:
        """Return after ``timeout_s``, or sooner when there may be news or ``interrupted`` was set."""
        interrupted.wait(timeout_s)

    def interrupt(self) -> None:  # noqa: B027  # most backends need not
        """Make a `wait` in another thread return; called after its event was set."""

    def release(self) -> None:  # noqa: B027  # most backends need not
        """Give back what is held only to be quick; called when a run is over. It may be used again."""

    def close(self) -> None:  # noqa: B027  # most backends need not
        """Let go of threads, connections and locks. Jobs go on."""
