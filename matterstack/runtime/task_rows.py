"""The rows of tasks: what each event sets, folded with one statement for all that happened to a task meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from msgspec.structs import astuple

from journal import RecordedEvent
from matterstack.core import events as ev
from matterstack.core.machine import SAME, TRANSITIONS, State
from matterstack.core.usage import Usage
from matterstack.errors import IllegalTransition
from matterstack.runtime.tallies import Standing, Tallies

ATTEMPT: Final = (
    "attempt, token, gen, array, idx, profile, job_id, reason, exit_code, signal, detail, word, requested_at,"
    " submitted_at, started_at, ended_at, recorded_at, node, pid, cancel_requested, cpu_s"
)

_NO_ATTEMPT: Final = (
    "requested = 0, in_doubt = 0, token = '', boot = '', gen = 0, array = '', idx = NULL, profile = '',"
    " job_id = NULL, reason = '', exit_code = NULL, signal = NULL, detail = '', word = '',"
    " requested_at = NULL, submitted_at = NULL, started_at = NULL, ended_at = NULL, recorded_at = NULL,"
    " node = '', pid = NULL, cancel_requested = 0, cpu_s = NULL, stalled = '', stalled_at = NULL"
)
_ARCHIVE: Final = (
    f"INSERT INTO past_attempts SELECT subject, run, task, state, {ATTEMPT} FROM tasks"  # constants
    " WHERE subject = ? AND token <> ''"
)

_PROFILE_AT: Final = "profile = ?, requested_at = ?"

_Values = Callable[[Any, RecordedEvent], tuple[object, ...]]

# By event type: what it sets on the task's row, and the values for it.
_UPDATES: Final[dict[str, tuple[str, _Values]]] = {
    "SubmitRequested": (
        f"{_NO_ATTEMPT}, requested = 1, attempt = ?, token = ?, boot = ?, gen = ?, array = ?, idx = ?, {_PROFILE_AT}",
        lambda e, r: (e.attempt, e.token, e.boot, e.gen, e.array, e.index, e.profile, r.at),
    ),
    "JobSubmitted": ("job_id = ?, submitted_at = ?, in_doubt = 0", lambda e, r: (e.job_id, r.at)),
    "SubmitUnknown": ("in_doubt = 1, detail = ?", lambda e, _: (e.detail,)),
    "SubmitAbsent": (
        "requested = 0, in_doubt = 0, job_id = NULL, stalled = '', stalled_at = NULL",
        lambda _e, _r: (),
    ),
    "SubmitRefused": ("reason = ?, detail = ?, recorded_at = ?", lambda e, r: (e.reason, e.detail, r.at)),
    "JobStalled": ("stalled = ?, stalled_at = ?", lambda e, _: (e.reason, e.since)),
    "JobStarted": (
        "started_at = ?, node = ?, pid = ?, stalled = '', stalled_at = NULL",
        lambda e, _: (e.started_at, e.node, e.pid),
    ),
    "JobRequeued": ("started_at = NULL", lambda _e, _r: ()),
    "CancelRequested": ("cancel_requested = 1", lambda _e, _r: ()),
    "TaskCompleted": (
        "ended_at = ?, exit_code = ?, detail = ?, cpu_s = ?, recorded_at = ?",
        lambda e, r: (e.ended_at, e.exit_code, e.detail, e.cpu_s, r.at),
    ),
    "TaskFailed": (
        "reason = ?, ended_at = ?, exit_code = ?, signal = ?, detail = ?, word = ?, cpu_s = ?, recorded_at = ?",
        lambda e, r: (e.reason, e.ended_at, e.exit_code, e.signal, e.detail, e.word, e.cpu_s, r.at),
    ),
    "TaskRetried": (_NO_ATTEMPT, lambda _e, _r: ()),
    "TaskChanged": (
        f"{_NO_ATTEMPT}, ord = ?, spec_hash = ?, spec_position = ?, dropped = 0",
        lambda e, r: (e.order, e.spec_hash, r.position),
    ),
    "TaskDropped": ("dropped = 1", lambda _e, _r: ()),
}
_ARCHIVING: Final = frozenset({"TaskRetried", "TaskChanged"})  # before these the attempt's row is put away
_FIRST: Final = frozenset({"TaskAdded", *_ARCHIVING})
_NEXT: Final = {(event, source.value): target for event, sources, target in TRANSITIONS for source in sources}

_ADD: Final = (
    "INSERT INTO tasks (subject, run, task, ord, state, spec_hash, spec_position, changed_at)"
    " VALUES (?, ?, ?, ?, 'PENDING', ?, ?, ?)"
)


def _added(record: RecordedEvent) -> tuple[object, ...]:
    event = ev.decode("TaskAdded", record.data)
    assert isinstance(event, ev.TaskAdded)
    task = record.subject.partition("/")[2]
    return record.subject, record.stream, task, event.order, event.spec_hash, record.position, record.at


# What was recorded first counts; a second record of an attempt would be a mistake that must not end a run.
_USED: Final = f"INSERT OR IGNORE INTO usage_rows VALUES ({', '.join('?' * (7 + len(Usage.__struct_fields__)))})"


def _used(record: RecordedEvent) -> tuple[object, ...]:
    event = ev.decode("UsageRecorded", record.data)
    assert isinstance(event, ev.UsageRecorded)
    asked = (event.cores, event.memory, event.limit_s)
    return record.subject, event.attempt, record.stream, record.at, *asked, *astuple(event.usage)


_LEFT: Final = "INSERT OR IGNORE INTO recorded_files VALUES (?, ?, ?, ?, ?)"


def _left(record: RecordedEvent) -> tuple[object, ...]:
    event = ev.decode("FilesRecorded", record.data)
    assert isinstance(event, ev.FilesRecorded)
    return record.subject, event.attempt, record.stream, record.at, ev.encode(event.files).decode()


# Facts of ended attempts, which change no task's row: a table of their own takes each.
_FACTS: Final = {"UsageRecorded": (_USED, _used), "FilesRecorded": (_LEFT, _left)}

_STANDING: Final = (
    "SELECT t.subject, t.run, t.state, t.dropped, t.profile, t.token, t.started_at"
    " FROM json_each(?) j CROSS JOIN tasks t ON t.subject = j.value"
)

_Path = list[RecordedEvent]  # events of one task, in their order


def fold(connection: sqlite3.Connection, records: Iterable[RecordedEvent]) -> None:
    """Fold the events of tasks into their rows and counts.

    Tasks know nothing of one another, so all that happened to one may become a single change of its row.

    Raises:
        IllegalTransition: An event does not fit its task's state.
    """
    counted = Tallies()
    facts: dict[str, _Path] = {}
    waves: list[dict[str, _Path]] = []  # a task is in the first, and once more for each event that begins it anew
    last: dict[str, int] = {}
    for record in records:
        subject, kind = record.subject, record.type
        if kind in _FACTS:
            facts.setdefault(kind, []).append(record)
            continue
        wave = last.get(subject)
        if wave is None or kind in _FIRST:
            wave = last[subject] = 0 if wave is None else wave + 1
            if wave == len(waves):
                waves.append({})
            waves[wave][subject] = [record]
        else:
            waves[wave][subject].append(record)
    for paths in waves:
        _fold_wave(connection, paths, counted)
    for kind, found in facts.items():
        statement, values = _FACTS[kind]
        connection.executemany(statement, map(values, found))
    counted.write(connection)


def _fold_wave(connection: sqlite3.Connection, paths: dict[str, _Path], counted: Tallies) -> None:
    standing = _add(connection, paths, counted)
    others = [subject for subject in paths if subject not in standing]
    if others:
        for subject, run, state, dropped, *attempt in connection.execute(_STANDING, (ev.encode(others).decode(),)):
            standing[subject] = Standing(run, state, bool(dropped), *attempt)
    archived = [(subject,) for subject in others if paths[subject][0].type in _ARCHIVING]
    if archived:
        connection.executemany(_ARCHIVE, archived)
    rows: dict[tuple[str, ...], list[tuple[object, ...]]] = {}
    for subject, path in paths.items():
        if not path:
            continue
        kinds = tuple([record.type for record in path])
        task = standing.get(subject)
        ends = _ends(kinds, task.state) if task else ()
        if task is None or len(ends) < len(path):
            raise _misfit(task, path[len(ends)], ends)
        decoded = [ev.decode(kind, record.data) for kind, record in zip(kinds, path, strict=True)]
        counted.moved(task, path, decoded, ends)
        rows.setdefault(kinds, []).append(_change(kinds).values(path, decoded))
    for kinds, changes in rows.items():
        connection.executemany(_change(kinds).sql, changes)


def _add(connection: sqlite3.Connection, paths: dict[str, _Path], counted: Tallies) -> dict[str, Standing]:
    """Insert the tasks that are new, take that event off their paths, and return how they stand."""
    added = [path.pop(0) for path in paths.values() if path[0].type == "TaskAdded"]
    if added:
        connection.executemany(_ADD, map(_added, added))
    for record in added:
        counted.added(record)
    return {record.subject: Standing(record.stream, State.PENDING.value, dropped=False) for record in added}


@lru_cache(4096)
def _ends(kinds: Sequence[str], state: str) -> tuple[str, ...]:
    """Return the state after each event; shorter than ``kinds`` where the next one may not happen."""
    ends: list[str] = []
    for kind in kinds:
        if (kind, state) not in _NEXT:
            break
        target = _NEXT[kind, state]
        state = state if target is SAME else target.value
        ends.append(state)
    return tuple(ends)


def _misfit(task: Standing | None, record: RecordedEvent, ends: Sequence[str]) -> IllegalTransition:
    state = "not in the run" if task is None else [task.state, *ends][-1]
    return IllegalTransition(record.subject, record.type, state)


class _Change(NamedTuple):
    """One UPDATE for a path, and which of all its events' values it takes: the last for each column."""

    sql: str
    of_event: tuple[_Values, ...]
    taken: tuple[int, ...]

    def values(self, path: _Path, events: Sequence[Any]) -> tuple[object, ...]:
        everything: list[object] = []
        for values, event, record in zip(self.of_event, events, path, strict=True):
            everything += values(event, record)
        end = path[-1]
        return (*[everything[i] for i in self.taken], end.at, end.subject)


@lru_cache(4096)
def _change(kinds: tuple[str, ...]) -> _Change:
    columns: dict[str, tuple[str, int | None]] = {}
    n = 0
    for kind in kinds:
        targets = {target for event, _, target in TRANSITIONS if event == kind}
        (target,) = targets
        if target is not SAME:
            columns["state"] = (f"'{target.value}'", None)
        for assignment in _UPDATES[kind][0].split(", "):
            column, _, value = assignment.partition(" = ")
            columns[column] = (value, n if value == "?" else None)
            n += value == "?"
    sets = ", ".join(f"{column} = {value}" for column, (value, _) in columns.items())
    return _Change(
        f"UPDATE tasks SET {sets}, changed_at = ? WHERE subject = ?",
        tuple(_UPDATES[kind][1] for kind in kinds),
        tuple(i for _, i in columns.values() if i is not None),
    )
