"""Events as they were recorded: of runs, of tasks, of attempts; and a task's life as a timeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from matterstack.core import events as ev
from matterstack.core.machine import next_states
from matterstack.history.filters import (
    Time,
    Where,
    Words,
    is_pattern,
    known_run,
    known_task,
    microseconds,
    some_task,
    words,
)
from matterstack.history.prefix import pieces, position_at, stream_of, version_at
from matterstack.history.rows import EventRow, Query, Rows, StepRow, made

_EVENT: Final = (
    "e.position, e.at, s.name, substr(u.name, length(s.name) + 2), t.name, e.data FROM events e"
    " JOIN streams s ON s.id = e.stream JOIN subjects u ON u.id = e.subject JOIN types t ON t.id = e.type WHERE "
)


def events(
    query: Query, *, run: str | None, task: str | None, kind: Words, since: Time | None, until: Time | None
) -> Iterator[tuple[Any, ...]]:
    """Yield the events that were recorded, by position."""
    where = Where()
    if names := words("type", kind, ev.TYPES):
        where.add(f"e.type IN (SELECT id FROM types WHERE name IN ({', '.join('?' * len(names))}))", *names)
    if run is not None:
        yield from _of_run(query, where, run, task, since, until)
        return
    where.add("s.name NOT GLOB '*/requests'")
    if task is not None:
        some_task(query, task)
        where.add("substr(u.name, length(s.name) + 2) GLOB ?", task)
    first = position_at(query, microseconds(query, since) - 1) if since is not None else 0
    ((last,),) = query("SELECT coalesce(max(position), 0) FROM events", ())
    last = position_at(query, microseconds(query, until)) if until is not None else last
    sql = f"SELECT e.position, {_EVENT}{where}"
    for piece in pieces(query, sql, "e.position", where.params, first, last):
        yield from (record[1:] for record in piece)


def _of_run(
    query: Query, where: Where, run: str, task: str | None, since: Time | None, until: Time | None
) -> Iterator[tuple[Any, ...]]:
    stream, newest = stream_of(query, known_run(query, run))
    first = version_at(query, stream, newest, microseconds(query, since) - 1) if since is not None else 0
    last = version_at(query, stream, newest, microseconds(query, until)) if until is not None else newest
    if task is not None and not is_pattern(task):
        where.add("e.subject = (SELECT id FROM subjects WHERE name = ?)", known_task(query, run, task))
    elif task is not None:
        where.add("(u.name = ? OR u.name GLOB ?)", f"{run}/{task}", f"{_literally(run)}/{task}")
    where.add("e.stream = ?", stream)
    # One task's events are few, and found by their own index; the plus keeps SQLite from the stream's.
    key = "+e.version" if task is not None and not is_pattern(task) else "e.version"
    sql = f"SELECT e.version, {_EVENT}{where}"
    for piece in pieces(query, sql, key, where.params, first, last):
        yield from (record[1:] for record in piece)


def _literally(name: str) -> str:
    """Return a pattern that only this name fits."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def of_attempts(records: Iterable[tuple[Any, ...]], wanted: set[tuple[str, str, int]]) -> Iterator[tuple[Any, ...]]:
    """Yield those events that belong to one of the attempts (run, task, number); 0 has those before the first."""
    current: dict[tuple[str, str], int] = {}
    for record in records:
        run, task, kind, data = record[2:6]
        if kind == "SubmitRequested":
            event: Any = ev.decode(kind, data)
            current[run, task] = event.attempt
        if (run, task, current.get((run, task), 0)) in wanted:
            yield record


def timeline(query: Query, run: str, task: str) -> Rows[StepRow]:
    """Return what happened to a task, in order."""
    rows = Rows(StepRow)
    state, attempt, before = "PENDING", 0, None
    for row in made(EventRow, events(query, run=run, task=task, kind=None, since=None, until=None)):
        event: Any = ev.decode(row.type, row.data) if row.type in ev.TYPES else None
        state = str(next_states().get((row.type, state), state))
        attempt = event.attempt if row.type == "SubmitRequested" else attempt
        after_s = (row.time - before).total_seconds() if before else 0.0
        rows.append(StepRow(row.time, attempt, row.type, state, after_s, _what(event)))
        before = row.time
    return rows


def _what(event: Any) -> str:
    """Return what an event has to say beside its type, in a few words."""
    said = []
    for field in (
        "job_id",
        "node",
        "profile",
        "reason",
        "word",
        "exit_code",
        "signal",
        "why",
        "by",
        "upstream",
        "detail",
    ):
        value = getattr(event, field, None)
        if value not in ("", None):
            said.append(f"{field.replace('_', ' ')} {value}")
    return ", ".join(said)
