"""The tasks of a run at a moment in the past: its events up to then, folded.

It must hold a hundred thousand tasks in a second or so, so the payloads of the events are kept as they are, and only
those that a task ends up with are decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from matterstack.core import events as ev
from matterstack.core.machine import SAME, TRANSITIONS
from matterstack.history.prefix import pieces, stream_of, version_at
from matterstack.history.rows import Query, Rows, TaskRow, made

_TARGETS: Final = {event: None if target is SAME else target.value for event, _, target in TRANSITIONS}
_NO_DATA: Final = "{}"
_LARGE: Final = ("TaskAdded", "TaskChanged")  # have the spec, which nobody asks for here


class _Then:
    """A task at the moment: its state, and the payloads that say the rest."""

    __slots__ = (
        "cancelled", "detail", "dropped", "ended", "ended_at", "number", "requested", "requested_at", "requeued",
        "started", "state", "submitted", "submitted_at", "wanted",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state = "PENDING"
        self.number = 0
        self.dropped = False
        self.reset()

    def reset(self) -> None:
        """Forget the attempt: a new one begins, or none is wanted for now."""
        self.wanted = self.cancelled = self.requeued = False
        self.requested = self.submitted = self.started = self.ended = self.detail = ""
        self.requested_at: int | None = None
        self.submitted_at: int | None = None
        self.ended_at: int | None = None

    def attempt(self) -> int:
        """Return the number of the newest attempt, 0 before the first."""
        return _number(self.requested) if self.requested else self.number


def _requested(then: _Then, at: int, data: str) -> None:
    # A cancel that was asked for holds for further tries of the same attempt.
    cancelled = then.cancelled and then.attempt() == _number(data)
    then.reset()
    then.cancelled = cancelled
    then.requested, then.requested_at, then.wanted = data, at, True


def _submitted(then: _Then, at: int, data: str) -> None:
    then.submitted, then.submitted_at = data, at


def _unknown(then: _Then, _at: int, data: str) -> None:
    then.detail = data


def _absent(then: _Then, _at: int, _data: str) -> None:
    then.wanted, then.submitted = False, ""


def _started(then: _Then, _at: int, data: str) -> None:
    then.started, then.requeued = data, False


def _requeued(then: _Then, _at: int, _data: str) -> None:
    then.requeued = True


def _cancelled(then: _Then, _at: int, _data: str) -> None:
    then.cancelled = True


def _ended(then: _Then, at: int, data: str) -> None:
    then.ended, then.ended_at = data, at


def _again(then: _Then, _at: int, _data: str) -> None:
    then.number = then.attempt()
    then.reset()


def _changed(then: _Then, at: int, data: str) -> None:
    _again(then, at, data)
    then.dropped = False


def _dropped(then: _Then, _at: int, _data: str) -> None:
    then.dropped = True


def _ignored(_then: _Then, _at: int, _data: str) -> None:
    return None


_CHANGES: Final[dict[str, Callable[[_Then, int, str], None]]] = {
    "SubmitRequested": _requested,
    "JobSubmitted": _submitted,
    "SubmitUnknown": _unknown,
    "SubmitAbsent": _absent,
    "SubmitRefused": _ended,
    "JobStarted": _started,
    "JobRequeued": _requeued,
    "CancelRequested": _cancelled,
    "TaskCompleted": _ended,
    "TaskFailed": _ended,
    "TaskRetried": _again,
    "TaskChanged": _changed,
    "TaskDropped": _dropped,
}


def _number(data: str) -> int:
    event = ev.decode("SubmitRequested", data)
    assert isinstance(event, ev.SubmitRequested)
    return event.attempt


def tasks_at(query: Query, run: str, at: int) -> Rows[TaskRow]:
    """Return the run's tasks as they were at a moment (µs since 1970), in the order in which they were added."""
    stream, newest = stream_of(query, run)
    found = _fold(query, stream, version_at(query, stream, newest, at))
    names: dict[int, str] = dict(
        query("SELECT id, name FROM subjects WHERE name >= ? AND name < ?", (f"{run}/", f"{run}0"))
    )
    skip = len(run) + 1
    return made(TaskRow, [_record(run, names[key][skip:], then) for key, then in found.items() if not then.dropped])


def _fold(query: Query, stream: int, until: int) -> dict[int, _Then]:
    types = query("SELECT id, name FROM types", ())
    added = {key for key, name in types if name == "TaskAdded"}
    changes = {key: (_CHANGES.get(name, _ignored), _TARGETS[name]) for key, name in types if name in _TARGETS}
    large = ", ".join(str(key) for key, name in types if name in _LARGE) or "-1"
    wanted = ", ".join(map(str, [*added, *changes])) or "-1"
    sql = (
        f"SELECT version, subject, type, at, CASE WHEN type IN ({large}) THEN '' ELSE data END"
        f" FROM events WHERE stream = ? AND +type IN ({wanted})"
    )
    tasks: dict[int, _Then] = {}
    for piece in pieces(query, sql, "version", [stream], 0, until):
        for _, subject, kind, moment, data in piece:
            if kind in added:
                tasks[subject] = _Then()
                continue
            then = tasks[subject]
            change, target = changes[kind]
            change(then, moment, data)
            if target is not None:
                then.state = target
    return tasks


def _record(run: str, task: str, then: _Then) -> tuple[Any, ...]:
    asked: Any = ev.decode("SubmitRequested", then.requested) if then.requested else None
    job: Any = ev.decode("JobSubmitted", then.submitted) if then.submitted else None
    start: Any = ev.decode("JobStarted", then.started or _NO_DATA)
    end: Any = _end_of(then)
    return (
        run,
        task,
        then.state,
        asked.attempt if asked else then.number,
        getattr(end, "reason", ""),
        getattr(end, "exit_code", None),
        getattr(end, "signal", None),
        end.detail if end else _detail(then),
        asked.profile if asked else "",
        job.job_id if job else None,
        start.node,
        asked.token if asked else "",
        then.requested_at,
        then.submitted_at,
        None if then.requeued else _us(start.started_at),
        _us(getattr(end, "ended_at", None)),
        then.ended_at,
        then.cancelled,
        _stage(then),
    )


def _end_of(then: _Then) -> ev.Event | None:
    if not then.ended:
        return None
    if then.state == "COMPLETED":
        return ev.decode("TaskCompleted", then.ended)
    # A refusal has its reason by default, a failure by its own words.
    return ev.decode("TaskFailed" if '"reason"' in then.ended else "SubmitRefused", then.ended)


def _detail(then: _Then) -> str:
    event: Any = ev.decode("SubmitUnknown", then.detail or _NO_DATA)
    return str(event.detail)


def _stage(then: _Then) -> str:
    if then.state != "PENDING":
        return ""
    if not then.wanted:
        return "waiting"
    return "queued" if then.submitted else "submitting"


def _us(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1e6 + 0.5)  # as SQLite rounds, so that tasks() gives the same
