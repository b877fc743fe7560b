"""What is known of a task in a run: the fold of its events."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from matterstack.core import events as ev
from matterstack.core.machine import PENDING, State, next_states
from matterstack.errors import IllegalTransition


class Attempt(Struct, frozen=True):
    """A task's newest attempt; ``number`` is 0 before the first."""

    task_id: str
    state: State = PENDING
    number: int = 0
    token: str = ""
    boot: str = ""
    gen: int = 0
    array: str = ""
    index: int | None = None
    profile: str = ""
    job_id: str | None = None
    requested: bool = False
    in_doubt: bool = False
    cancel_requested: bool = False
    dropped: bool = False
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    stalled: str = ""

    @property
    def live(self) -> bool:
        """Whether the backend may have, or may yet get, a job of this attempt."""
        return self.requested and self.state not in ("COMPLETED", "FAILED")

    @property
    def may_start(self) -> bool:
        """Whether a backend may be asked to run the task, as far as the task itself goes."""
        return self.state is PENDING and not self.requested and not self.dropped

    @property
    def stage(self) -> str:
        """Where a PENDING attempt stands: waiting, submitting or queued; otherwise ``""``."""
        if self.state is not PENDING:
            return ""
        if not self.requested:
            return "waiting"
        return "queued" if self.job_id is not None else "submitting"


def evolve(attempt: Attempt, event: ev.Event) -> Attempt:  # noqa: C901, PLR0911, PLR0912  # a case an event
    """Return the attempt after ``event``.

    Raises:
        IllegalTransition: The table of ``core.machine`` does not have the event for the attempt's state.
    """
    kind = type(event).__name__
    state = next_states().get((kind, attempt.state))
    if state is None:
        raise IllegalTransition(attempt.task_id, kind, attempt.state)
    match event:
        case ev.SubmitRequested():
            return Attempt(
                attempt.task_id,
                state,
                event.attempt,
                event.token,
                event.boot,
                event.gen,
                event.array,
                event.index,
                event.profile,
                requested=True,
                cancel_requested=attempt.cancel_requested and event.attempt == attempt.number,
            )
        case ev.JobSubmitted():
            return replace(attempt, job_id=event.job_id, in_doubt=False)
        case ev.JobStarted():
            return replace(attempt, state=state, started_at=event.started_at, stalled="")
        case ev.JobStalled():
            return replace(attempt, stalled=event.reason)
        case ev.TaskCompleted():
            return replace(
                attempt, state=state, ended_at=event.ended_at, exit_code=event.exit_code, detail=event.detail
            )
        case ev.TaskFailed():
            return replace(
                attempt,
                state=state,
                reason=event.reason,
                ended_at=event.ended_at,
                exit_code=event.exit_code,
                signal=event.signal,
                detail=event.detail,
            )
        case ev.SubmitRefused():
            return replace(attempt, state=state, reason=event.reason, detail=event.detail)
        case ev.SubmitUnknown():
            return replace(attempt, in_doubt=True, detail=event.detail)
        case ev.SubmitAbsent():
            return replace(attempt, requested=False, job_id=None, in_doubt=False, stalled="")
        case ev.JobRequeued():
            return replace(attempt, state=state, started_at=None)
        case ev.CancelRequested():
            return replace(attempt, cancel_requested=True)
        case ev.UsageRecorded() | ev.FilesRecorded():
            return attempt
        case ev.TaskDropped():
            return replace(attempt, dropped=True)
        case ev.TaskRetried() | ev.TaskChanged():
            return Attempt(attempt.task_id, state, attempt.number)
        case _:
            raise IllegalTransition(attempt.task_id, kind, attempt.state)


def fold(task_id: str, events: Iterable[ev.Event]) -> Attempt:
    """Return what the events of one task, in order, add up to; ``TaskAdded`` begins it."""
    attempt = Attempt(task_id)
    for event in events:
        if not isinstance(event, ev.TaskAdded):
            attempt = evolve(attempt, event)
    return attempt
