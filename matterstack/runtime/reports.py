"""What passes between the engine and a backend's worker."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from msgspec import Struct

from matterstack.core.events import UsageRecorded
from matterstack.core.evidence import Evidence
from matterstack.runtime.backends.base import Submission


class Submitted(Struct, frozen=True):
    """The backend took the attempt."""

    task_id: str
    job_id: str


class Refused(Struct, frozen=True):
    """The backend will not take the attempt."""

    task_id: str
    detail: str


class Seen(Struct, frozen=True):
    """Evidence of a job."""

    job_id: str
    evidence: Evidence


class Used(Struct, frozen=True):
    """What an ended attempt of the task used."""

    task_id: str
    event: UsageRecorded


class Stalled(Struct, frozen=True):
    """The scheduler will not start the job as it is, for ``reason``; empty where it waits for its turn again."""

    job_id: str
    reason: str
    since: float


class Withdrawn(Struct, frozen=True):
    """These jobs were taken back before they started, these tasks were never handed to the backend."""

    job_ids: list[str]
    task_ids: list[str]


class InDoubt(Struct, frozen=True):
    """Whether the backend has the attempt is not known; it is being looked up."""

    task_id: str
    detail: str


class Absent(Struct, frozen=True):
    """The attempt was proved not to be submitted, and never will be."""

    task_id: str
    detail: str


class Held(Struct, frozen=True):
    """The backend takes no more for now; ``detail`` is empty where nothing is held any longer."""

    detail: str


class Notice(Struct, frozen=True):
    """Something that a person should know; ``detail`` is empty when it is over."""

    detail: str


class Trouble(Struct, frozen=True):
    """The backend could not work; ``detail`` is empty when it can again. ``again_s``: until the next try."""

    detail: str
    again_s: float = 0.0


class Crashed(Struct, frozen=True):
    """The backend failed in a way it should not, or needs a person; the run cannot go on."""

    error: BaseException


Report = Submitted | Refused | Seen | Used | Stalled | Withdrawn | InDoubt | Absent | Held | Notice | Trouble | Crashed


class Sources(Protocol):
    """Where those outputs of other tasks are that a backend does not pass on itself."""

    def fetch(self, task_id: str, name: str) -> Path:
        """Return a file that a task wrote, brought here where it was not.

        Raises:
            FileNotFoundError: The task did not write it.
            SubmitRefusedError: It cannot be brought here.
        """

    def place(self, task_id: str, name: str) -> Path:
        """Return where it is when it is here."""


class Offer(Struct):
    """A submission on its way to the backend.

    ``sources``: of the files that the backend does not pass on itself; None where there are none. ``made``: the
    backend was asked, and what came of it is not known. ``due``: not before this time of the monotonic clock.
    """

    submission: Submission
    sources: Sources | None = None
    made: bool = False
    due: float = 0.0
