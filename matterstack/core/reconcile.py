"""From evidence to events: pure, table-driven, the one place where conclusions are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.evidence import Absence, Alive, Evidence, JobStatus, LocalEvidence, SlurmEvidence
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING, Reason, State
from matterstack.core.slurm_words import REASONS, Kind, kind_of, plain_word

# The shell's convention: 128 + the number of the signal that ended the command.
_SIGNAL_BASE: Final = 128
_SIGNAL_MAX: Final = 64

_NO_REASON: Final = ("", "None", "NonZeroExitCode")  # of Slurm's reasons, those that say nothing more

_Rule = tuple[Callable[[LocalEvidence], bool], State, Reason | None, str]

# First row that holds decides. A record beats a process table, an end beats an intention to end.
LOCAL_TABLE: Final[tuple[_Rule, ...]] = (
    # witnesses                                              state      reason                   in words
    (lambda e: e.started and e.exit_code == 0,               COMPLETED, None,                    ""),
    (lambda e: e.started and e.exit_code is not None
               and e.timed_out,                              FAILED,    Reason.TIMEOUT,          "time limit reached"),
    (lambda e: e.started and e.exit_code is not None
               and e.cancel_requested,                       FAILED,    Reason.CANCELLED,        "cancelled"),
    (lambda e: e.started and e.exit_code is not None,        FAILED,    Reason.EXIT_CODE,        ""),
    (lambda e: e.withdrawn,                                  FAILED,    Reason.CANCELLED,        "never started"),
    (lambda e: bool(e.refused),                              FAILED,    Reason.SUBMIT_REFUSED,   ""),
    (lambda e: e.exit_code is not None,                      FAILED,    Reason.SUBMIT_REFUSED,
     "its output files could not be created, so the command was not started"),
    (lambda e: e.doubtful_start and not e.claimed,           FAILED,    Reason.LOST,
     "the machine went down after the intent to start it; whether it started is not known"),
    (lambda e: e.record_gone and not e.claimed,              FAILED,    Reason.LOST,
     "its directory was removed or could not be written; whether it ran is not known"),
    (lambda e: not e.claimed,                                PENDING,   None,                    ""),
    (lambda e: e.alive is Alive.YES and not e.started,       PENDING,   None,                    ""),
    (lambda e: e.alive is Alive.YES,                         RUNNING,   None,                    ""),
    (lambda e: e.timed_out,                                  FAILED,    Reason.TIMEOUT,          "time limit reached"),
    (lambda e: e.cancel_requested,                           FAILED,    Reason.CANCELLED,        "cancelled"),
    (lambda e: e.alive is Alive.REBOOTED,                    FAILED,    Reason.INTERRUPTED,
     "the machine went down while it ran"),
    (lambda _: True,                                         FAILED,    Reason.INTERRUPTED,
     "its processes are gone and no end was recorded"),
)  # fmt: skip


def local_status(evidence: LocalEvidence, job_id: str = "") -> JobStatus:
    """Return what the witnesses of a local job add up to, by `LOCAL_TABLE`.

    Processes that a signal ends are not all waited for, so of such an end the CPU time is not known.
    """
    state, reason, detail = next(
        (state, reason, words) for holds, state, reason, words in LOCAL_TABLE if holds(evidence)
    )
    code = evidence.exit_code if evidence.started else None
    ended_by_signal = signal_of(code) is not None or reason in (Reason.TIMEOUT, Reason.CANCELLED)
    return JobStatus(
        job_id,
        state,
        reason or "",
        code,
        signal_of(code),
        detail=evidence.refused if reason is Reason.SUBMIT_REFUSED and evidence.refused else detail,
        started_at=evidence.started_at,
        ended_at=evidence.ended_at,
        node=evidence.node,
        pid=evidence.pid,
        cpu_s=None if ended_by_signal or code is None else evidence.cpu_s,
    )


class Verdict(StrEnum):
    """What the witnesses of a Slurm job may lead to beside a state."""

    AS_BEFORE = "as before"
    NEVER_STARTED = "never started"


AS_BEFORE, NEVER_STARTED = Verdict.AS_BEFORE, Verdict.NEVER_STARTED
# Exit code of a job script that found the run claim taken; says nothing of the start that holds the claim.
_CLAIM_TAKEN: Final = 75
# Slurm's marks in the place of a signal: the job's directory or output files could not be opened; out of memory.
_NOT_SET_UP: Final = 53
_OUT_OF_MEMORY: Final = 125
# Words after which the same id may be back in the queue, or, in a federation, in that of another cluster.
MAY_COME_BACK: Final = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED"})


class _Case(Struct, frozen=True):
    """Evidence with Slurm's words read. ``queue``: None without a row; ``word``: of an end, empty without one."""

    e: SlurmEvidence
    queue: Kind | None
    word: str

    @property
    def recorded(self) -> bool:
        return self.e.exit_code is not None

    @property
    def bad(self) -> bool:
        return self.recorded and self.e.exit_code != 0

    @property
    def may_come_back(self) -> bool:
        return self.word in MAY_COME_BACK and not self.since(Absence.SETTLED)

    @property
    def decided(self) -> bool:
        """Whether a controller kept it from beginning, and wrote down why: LOST is no knowledge of an end."""
        return self.e.over not in ("", Reason.LOST) and not self.e.claimed

    @property
    def called_off(self) -> bool:
        """Whether the job's script heeded a cancel in place of beginning the command."""
        return self.bad and self.e.never_began and self.e.cancel_requested

    @property
    def at_limit(self) -> bool:
        return self.e.claimed and self.e.limit_near and self.e.limit_reached

    @property
    def nobodys(self) -> bool:
        """Whether Slurm cancelled it before its start and nobody is known to have asked for that."""
        e = self.e
        return self.word == "CANCELLED" and not (e.cancel_requested or e.by_user or e.claimed or e.directory_gone)

    @property
    def unasked(self) -> bool:
        """Whether it was cancelled after its start, and not by us."""
        return self.word == "CANCELLED" and self.e.claimed and not self.e.cancel_requested

    @property
    def of_second_start(self) -> bool:
        """Whether the end is, or may be, that of a start which found the claim taken and did nothing."""
        code = self.e.accounting_exit_code
        return self.word == "FAILED" and (code == _CLAIM_TAKEN or (self.e.second_start and code is None))

    @property
    def word_to_come(self) -> bool:
        return self.e.accounting_answered and kind_of(self.e.accounting) is not Kind.END

    def since(self, absence: Absence) -> bool:
        return self.e.absent >= absence


_SlurmRule = tuple[Callable[[_Case], bool], State | Verdict, Reason | None, str]
BY_WORD: Final = None  # the reason follows from Slurm's word, or is what was decided before
_NO_END: Final = "it is in no queue any more and no end was recorded"
_KEPT: Final = "it was kept from beginning, and why is not known any more"

# First row that holds decides. An end that was decided before outranks all, the live queue all else, our exit record
# Slurm's word for the end where it tells of success; and absence is an end only after the deadline.
SLURM_TABLE: Final[tuple[_SlurmRule, ...]] = (
    # witnesses                                       verdict        reason                 in words
    # it was decided before: no job of it begins any more
    (lambda c: c.decided,                             FAILED,        BY_WORD,               "it ended before it began"),
    # the queue has a live row, or has not answered
    (lambda c: c.queue is Kind.UNKNOWN,               AS_BEFORE,     None,
     "Slurm's word {word} is not known"),
    (lambda c: c.queue is Kind.WAITING
               and c.e.claimed and not c.e.requeue,   AS_BEFORE,     None,
     "Slurm put it back into the queue, but it may not be started again"),
    (lambda c: c.queue is Kind.WAITING,               PENDING,       None,                  ""),
    (lambda c: c.queue is Kind.RUNNING,               RUNNING,       None,                  ""),
    (lambda c: c.queue is Kind.ENDING
               and not (c.recorded and c.since(Absence.LONG)), RUNNING, None,               ""),
    (lambda c: c.queue is None
               and not c.since(Absence.BRIEF),        AS_BEFORE,     None,
     "the queue did not answer"),
    # it is over, and our exit record is there
    (lambda c: c.recorded and c.e.setup_failed,       FAILED,        Reason.SUBMIT_REFUSED,
     "the job could not be set up, so the command was not started"),
    (lambda c: c.recorded and not c.bad
               and c.word in ("", "COMPLETED"),       COMPLETED,     None,                  ""),
    (lambda c: c.recorded and not c.bad,              COMPLETED,     None,
     "the command had finished when Slurm ended the job as {word}"),
    (lambda c: c.bad and c.may_come_back,             AS_BEFORE,     None,
     "{word}, but it might come back"),
    (lambda c: c.called_off
               and c.word in ("COMPLETED", "FAILED"), FAILED,        Reason.CANCELLED,
     "cancelled before the command began"),
    (lambda c: c.bad and c.word in ("COMPLETED", "FAILED"), FAILED,  Reason.EXIT_CODE,      ""),
    (lambda c: c.bad and c.unasked and c.word_to_come
               and not c.since(Absence.GRACE),        AS_BEFORE,     None,
     "waiting to hear who cancelled it"),
    (lambda c: c.bad and c.unasked
               and c.e.fell_at_start,                 FAILED,        Reason.NODE_FAIL,
     "Slurm ended it as it began, and nobody had asked for that"),
    (lambda c: c.bad and c.word != "",                FAILED,        BY_WORD,               ""),
    (lambda c: c.bad and c.word_to_come
               and not c.since(Absence.GRACE),        AS_BEFORE,     None,
     "waiting for accounting's word for the end"),
    (lambda c: c.bad and c.e.cancel_requested,        FAILED,        Reason.CANCELLED,      "cancelled"),
    (lambda c: c.bad and c.at_limit,                  FAILED,        Reason.TIMEOUT,        "time limit reached"),
    (lambda c: c.bad,                                 FAILED,        Reason.EXIT_CODE,      ""),
    # it is over without an exit record of ours, and Slurm has a word for the end
    (lambda c: c.may_come_back,                       AS_BEFORE,     None,
     "{word}, but it might come back"),
    (lambda c: c.word == "COMPLETED"
               and not c.since(Absence.GRACE),        AS_BEFORE,     None,
     "waiting for its exit record"),
    (lambda c: c.word == "COMPLETED"
               and c.e.directory_gone,                FAILED,        Reason.LOST,
     "its directory was removed; Slurm says {word}"),
    (lambda c: c.word == "COMPLETED",                 FAILED,        Reason.LOST,
     "Slurm says {word}, but there is no exit record"),
    (lambda c: c.nobodys and (c.word_to_come or not c.since(Absence.GRACE)), AS_BEFORE, None,
     "waiting to hear who cancelled it"),
    (lambda c: c.nobodys and c.e.over != "",          FAILED,        Reason.LOST,           _KEPT),
    (lambda c: c.nobodys and c.e.accounting_answered, NEVER_STARTED, None,
     "Slurm cancelled it before it started and nobody had asked for that"),
    (lambda c: c.nobodys,                             FAILED,        Reason.CANCELLED,
     "cancelled before it started; by whom is not known"),
    (lambda c: c.unasked and c.word_to_come
               and not c.since(Absence.GRACE),        AS_BEFORE,     None,
     "waiting to hear who cancelled it"),
    (lambda c: c.unasked and c.e.fell_at_start,       FAILED,        Reason.NODE_FAIL,
     "Slurm ended it as it began, and nobody had asked for that"),
    (lambda c: c.word == "FAILED" and c.word_to_come
               and not c.since(Absence.GRACE),        AS_BEFORE,     None,
     "waiting for accounting's word for the end"),
    (lambda c: c.word == "FAILED" and not c.e.claimed
               and c.e.directory_gone,                FAILED,        Reason.LOST,
     "its directory was removed"),
    (lambda c: c.word == "FAILED" and not c.e.claimed
               and c.e.accounting_signal == _NOT_SET_UP, FAILED,     Reason.SUBMIT_REFUSED,
     "its directory or output files could not be opened, so the command was not started"),
    (lambda c: c.of_second_start
               and not c.since(Absence.LONG),         AS_BEFORE,     None,
     "a second start found the claim taken; the first one has no end yet"),
    (lambda c: c.of_second_start and c.e.claimed,     FAILED,        Reason.INTERRUPTED,    _NO_END),
    (lambda c: c.of_second_start,                     FAILED,        Reason.LOST,           _NO_END),
    (lambda c: c.word == "FAILED"
               and c.e.accounting_signal == _OUT_OF_MEMORY, FAILED,  Reason.OUT_OF_MEMORY,  ""),
    (lambda c: c.word == "FAILED" and not c.e.claimed
               and not c.since(Absence.GRACE),        AS_BEFORE,     None,
     "waiting for its records"),
    (lambda c: c.word == "FAILED" and not c.e.claimed, FAILED,       Reason.NODE_FAIL,
     "its script ended before it could begin the command"),
    (lambda c: c.word != "",                          FAILED,        BY_WORD,               ""),
    # nobody knows of it
    (lambda c: kind_of(c.e.accounting) is Kind.UNKNOWN
               and c.e.accounting != "",              AS_BEFORE,     None,
     "accounting's word {word} is not known"),
    (lambda c: not c.since(Absence.LONG),             AS_BEFORE,     None,                  "it is in no queue"),
    (lambda c: c.e.directory_gone,                    FAILED,        Reason.LOST,
     "its directory was removed"),
    (lambda c: c.e.cancel_requested,                  FAILED,        Reason.CANCELLED,      "cancelled"),
    (lambda c: c.at_limit,                            FAILED,        Reason.TIMEOUT,        "time limit reached"),
    (lambda c: c.e.claimed,                           FAILED,        Reason.INTERRUPTED,    _NO_END),
    (lambda c: c.e.over != "",                        FAILED,        Reason.LOST,           _KEPT),
    (lambda _: True,                                  NEVER_STARTED, None,
     "it is in no queue and its start was never recorded"),
)  # fmt: skip


def _case(evidence: SlurmEvidence) -> _Case:
    queue = kind_of(evidence.queue) if evidence.queue else None
    word = evidence.queue if queue is Kind.END else evidence.accounting if queue in (None, Kind.ENDING) else ""
    return _Case(evidence, queue, plain_word(word) if kind_of(word) is Kind.END else "")


def _slurm_rule(case: _Case) -> tuple[State | Verdict, Reason | None, str]:
    verdict, reason, words = next(row[1:] for row in SLURM_TABLE if row[0](case))
    if verdict is FAILED and reason is BY_WORD:
        reason = Reason(case.e.over) if case.decided else REASONS[case.word]
    shown = case.word or case.e.queue or case.e.accounting
    return verdict, reason, words.replace("{word}", shown)


def slurm_verdict(evidence: SlurmEvidence) -> State | Verdict:
    """Return what the witnesses of a Slurm job lead to: a state, no change, or that it is to be submitted again."""
    return _slurm_rule(_case(evidence))[0]


def slurm_status(evidence: SlurmEvidence, job_id: str = "") -> JobStatus:
    """Return what the witnesses of a Slurm job add up to, by `SLURM_TABLE`.

    Where they change nothing, its state is RUNNING if its claim was taken, else PENDING; a job that never
    started is PENDING. ``detail`` says why.
    """
    case = _case(evidence)
    verdict, reason, words = _slurm_rule(case)
    state = verdict if isinstance(verdict, State) else RUNNING if _runs(case, verdict) else PENDING
    why = evidence.queue_reason if evidence.queue_reason not in _NO_REASON else ""
    code, signal = _slurm_code(case) if state in (COMPLETED, FAILED) else (None, None)
    return JobStatus(
        job_id,
        state,
        reason or "",
        code,
        signal,
        word=case.word or evidence.queue or evidence.accounting,
        detail="; ".join(part for part in (words, why, evidence.note) if part),
        started_at=None if evidence.setup_failed or evidence.never_began else evidence.started_at,
        ended_at=evidence.ended_at if state in (COMPLETED, FAILED) else None,
        node=evidence.node,
    )


def _runs(case: _Case, verdict: Verdict) -> bool:
    return verdict is AS_BEFORE and case.e.claimed and case.queue is not Kind.WAITING


def _slurm_code(case: _Case) -> tuple[int | None, int | None]:
    """Return exit code and signal; Slurm's 0 of an end that was none and its marks among the signals are left out."""
    e = case.e
    if e.exit_code is not None:
        return e.exit_code, signal_of(e.exit_code)
    known = e.accounting_signal is not None and 0 < e.accounting_signal <= _SIGNAL_MAX
    signal = e.accounting_signal if known and e.accounting_signal != _NOT_SET_UP else None
    return e.accounting_exit_code or None, signal


def status_of(evidence: Evidence) -> JobStatus:
    """Return what the evidence adds up to, whatever kind it is."""
    match evidence:
        case JobStatus():
            return evidence
        case LocalEvidence():
            return local_status(evidence)
        case SlurmEvidence():
            return slurm_status(evidence)


def signal_of(exit_code: int | None) -> int | None:
    """Return the signal a shell's exit code stands for, or None; 128 + n means signal n."""
    if exit_code is None or not _SIGNAL_BASE < exit_code <= _SIGNAL_BASE + _SIGNAL_MAX:
        return None
    return exit_code - _SIGNAL_BASE


def interpret(attempt: Attempt, evidence: Evidence) -> Sequence[ev.Event]:
    """Return the events that the evidence adds to what is known of the attempt; nothing new, no events.

    An end that is already recorded stands: nothing follows a COMPLETED or FAILED attempt here.
    """
    if attempt.state in (COMPLETED, FAILED):
        return ()
    status = status_of(evidence)
    if isinstance(evidence, SlurmEvidence) and slurm_verdict(evidence) is NEVER_STARTED:
        return _taken_back(attempt, status.detail)
    if status.state == attempt.state or _says_nothing(evidence, status):
        return ()
    if status.state is PENDING:
        return (ev.JobRequeued(status.detail or status.word),)
    return _progress(attempt, status)


def _says_nothing(evidence: Evidence, status: JobStatus) -> bool:
    match evidence:
        case LocalEvidence():  # there is no scheduler here that could have put it back
            return status.state is PENDING
        case SlurmEvidence():  # that the command began is the claim's to say, not the queue's
            verdict = slurm_verdict(evidence)
            return verdict is AS_BEFORE or (verdict is RUNNING and status.started_at is None)
        case _:
            return False


def _progress(attempt: Attempt, status: JobStatus) -> Sequence[ev.Event]:
    events: list[ev.Event] = []
    started = status.state is RUNNING or status.started_at is not None
    if started and attempt.state is PENDING:
        events.append(ev.JobStarted(status.started_at, status.node, status.pid))
    if status.state is COMPLETED:
        events.append(ev.TaskCompleted(status.ended_at, status.exit_code or 0, status.detail, status.cpu_s))
    elif status.state is FAILED:
        events.append(
            ev.TaskFailed(
                status.reason,
                status.ended_at,
                status.exit_code,
                status.signal,
                status.detail,
                status.word,
                status.cpu_s,
            )
        )
    return events


def _taken_back(attempt: Attempt, why: str) -> Sequence[ev.Event]:
    absent = ev.SubmitAbsent(why)
    return (absent,) if attempt.state is PENDING else (ev.JobRequeued(why), absent)
