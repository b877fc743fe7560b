"""What a backend may answer: witnesses, never verdicts. `core.reconcile` draws the conclusions."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import force_setattr

from matterstack.core.machine import Reason, State


class JobStatus(Struct, frozen=True):
    """What a backend says of one job.

    ``state`` is one of the four, as `State` or text. For a FAILED job ``reason`` says why (see
    `core.machine.Reason`; EXIT_CODE where it is left out).
    ``exit_code`` is 0 to 255, ``signal`` a signal number; both None where not known. ``word`` is the
    backend's own word. Times are seconds since 1970 UTC, by the executing host's clock.
    """

    job_id: str
    state: State
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    word: str = ""
    detail: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    node: str = ""
    pid: int | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "state", State(self.state))  # ValueError where it is none of the four
        if self.state is State.FAILED and not self.reason:
            force_setattr(self, "reason", Reason.EXIT_CODE)


class Alive(StrEnum):
    """Whether the processes of a local job still exist."""

    YES = "yes"
    NO = "no"
    REBOOTED = "rebooted"


class LocalEvidence(Struct, frozen=True):
    """Witnesses of a job on this machine: its record file, its processes, and what was asked of it.

    ``claimed``: the run claim was taken. ``started``: the record has the start line. ``exit_code``: of the
    exit line, None without one. ``timed_out``: the record says the time limit was reached. ``withdrawn``:
    the claim was taken by a cancel, so the command can never start. ``alive``: of the command and its
    wrapper; only looked up where the record has no end. ``cancel_requested``: a cancel was asked for.
    ``doubtful_start``: whether it started cannot be known, since the machine went down after the intent.
    ``refused``: why it cannot be started. ``record_gone``: it was claimed before, and has no record now.
    """

    claimed: bool = False
    started: bool = False
    exit_code: int | None = None
    timed_out: bool = False
    withdrawn: bool = False
    alive: Alive = Alive.YES
    cancel_requested: bool = False
    doubtful_start: bool = False
    refused: str = ""
    record_gone: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    node: str = ""
    pid: int | None = None


Evidence = JobStatus | LocalEvidence
