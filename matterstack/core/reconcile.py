"""From evidence to events: pure, table-driven, the one place where conclusions are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.evidence import Alive, Evidence, JobStatus, LocalEvidence
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING, Reason, State

# The shell's convention: 128 + the number of the signal that ended the command.
_SIGNAL_BASE: Final = 128
_SIGNAL_MAX: Final = 64

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
    """Return what the witnesses of a local job add up to, by `LOCAL_TABLE`."""
    state, reason, detail = next(
        (state, reason, words) for holds, state, reason, words in LOCAL_TABLE if holds(evidence)
    )
    code = evidence.exit_code
    return JobStatus(
        job_id,
        state,
        reason or "",
        code if evidence.started else None,
        signal_of(code) if evidence.started else None,
        detail=evidence.refused if reason is Reason.SUBMIT_REFUSED and evidence.refused else detail,
        started_at=evidence.started_at,
        ended_at=evidence.ended_at,
        node=evidence.node,
        pid=evidence.pid,
    )


def status_of(evidence: Evidence) -> JobStatus:
    """Return what the evidence adds up to, whatever kind it is."""
    return evidence if isinstance(evidence, JobStatus) else local_status(evidence)


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
    if status.state == attempt.state:
        return ()
    if status.state is PENDING:
        if isinstance(evidence, LocalEvidence):  # there is no scheduler here that could have put it back
            return ()
        return (ev.JobRequeued(status.detail or status.word),)
    events: list[ev.Event] = []
    started = status.state is RUNNING or status.started_at is not None
    if started and attempt.state is PENDING:
        events.append(ev.JobStarted(status.started_at, status.node, status.pid))
    if status.state is COMPLETED:
        events.append(ev.TaskCompleted(status.ended_at, status.exit_code or 0, status.detail))
    elif status.state is FAILED:
        events.append(
            ev.TaskFailed(
                status.reason,
                status.ended_at,
                status.exit_code,
                status.signal,
                status.detail,
                status.word,
            )
        )
    return events
