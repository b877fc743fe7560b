"""What a backend may answer: witnesses, never verdicts. `core.reconcile` draws the conclusions."""

from __future__ import annotations

from enum import IntEnum, StrEnum

from msgspec import Struct
from msgspec.structs import force_setattr

from matterstack.core.machine import Reason, State


class JobStatus(Struct, frozen=True):
    """What a backend says of one job.

    ``state`` is one of the four, as `State` or text. For a FAILED job ``reason`` says why (see
    `core.machine.Reason`; EXIT_CODE where it is left out).
    ``exit_code`` is 0 to 255, ``signal`` a signal number; both None where not known. ``word`` is the
    backend's own word. Times are seconds since 1970 UTC, by the executing host's clock. ``cpu_s``: user and system
    time in seconds, where the backend knows it with the end.
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
    cpu_s: float | None = None

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
    ``cpu_s``: of the command and what it waited for, by the record.
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
    cpu_s: float | None = None


class Absence(IntEnum):
    """How long the queue has answered, without a break, that it has no live row of the job; ordered.

    NO: it has one, or it was not asked, or it did not answer. BRIEF: from the first such answer on. GRACE: a shared
    file system had time to show the node's records. SETTLED: a job put back by Slurm would have come back.
    LONG: longer than the recorded deadline, and every configured witness answered.
    """

    NO = 0
    BRIEF = 1
    GRACE = 2
    SETTLED = 3
    LONG = 4


class SlurmEvidence(Struct, frozen=True):
    """Witnesses of a job of Slurm: its queue, its accounting, our records in the attempt's directory.

    ``queue``: Slurm's word in the queue, empty where it shows no row of ours; ``queue_reason`` why it waits or ended.
    ``absent``: since when the queue has no row of ours, or one that has ended or is ending (COMPLETING); an empty
    ``queue`` with NO means that the queue did not answer. A row that is WAITING or RUNNING is always NO.
    ``accounting``: the word of its newest start, empty without a row; ``accounting_exit_code`` and
    ``accounting_signal`` of the same row; ``by_user``: it names somebody who cancelled the job.
    ``accounting_answered``: False where it is off or silent.
    ``claimed``: the run claim of this attempt was taken. ``exit_code``: of the exit record that is ours, None
    without one; ``setup_failed``: that record says that the command never began, and that this was nobody's wish.
    ``never_began``: the record is there, and the mark that the job makes as the command begins is not.
    ``limit_near``: Slurm's warning came; ``limit_reached``: it ran, or could have run, into its time limit.
    ``cancel_requested``: we were asked to end it. ``directory_gone``: the attempt's directory is not there.
    ``requeue``: Slurm may start it again. ``started_at``: of the claim (never a guess: from it follows whether the
    command began). ``note``: words that go into the detail. ``second_start``: a start found the claim taken.
    ``fell_at_start``: accounting has it cancelled by nobody, or by Slurm's own user, within a second of its start:
    what a controller does to jobs whose ids it had forgotten and used again.
    ``over``: why the attempt has ended, where a controller took the claim to keep it from beginning; else empty.
    """

    queue: str = ""
    queue_reason: str = ""
    accounting: str = ""
    accounting_exit_code: int | None = None
    accounting_signal: int | None = None
    by_user: bool = False
    accounting_answered: bool = False
    claimed: bool = False
    exit_code: int | None = None
    setup_failed: bool = False
    limit_near: bool = False
    limit_reached: bool = False
    cancel_requested: bool = False
    directory_gone: bool = False
    absent: Absence = Absence.NO
    requeue: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    node: str = ""
    note: str = ""
    second_start: bool = False
    fell_at_start: bool = False
    over: str = ""
    never_began: bool = False


Evidence = JobStatus | LocalEvidence | SlurmEvidence
