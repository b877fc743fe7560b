"""The SELECTs behind every reader."""

# put together from constants and marks

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial

from .event import NO_HASH, Head, RecordedEvent

CHUNK = 1000
FOLD_CHUNK = 10_000  # a fold is faster the more it sees of a subject at once

EVENTS = (
    "SELECT e.position, s.name, e.version, u.name, t.name, e.at, CAST(e.data AS BLOB), e.hash "
    "FROM events AS e LEFT JOIN streams AS s ON s.id = e.stream LEFT JOIN subjects AS u ON u.id = e.subject "
    "LEFT JOIN types AS t ON t.id = e.type "
)
IN_STREAM = (
    EVENTS + "WHERE e.stream = (SELECT id FROM streams WHERE name = ?) AND e.version > ? ORDER BY e.version LIMIT ?"
)
OF_SUBJECT = (
    EVENTS + "WHERE e.subject = (SELECT id FROM subjects WHERE name = ?) AND e.position > ? ORDER BY e.position LIMIT ?"
)
OF_SUBJECT_IN_STREAM = (
    EVENTS + "WHERE e.subject = (SELECT id FROM subjects WHERE name = ?) "
    "AND e.stream = (SELECT id FROM streams WHERE name = ?) AND e.position > ? ORDER BY e.position LIMIT ?"
)
ALL = EVENTS + "WHERE e.position > ? ORDER BY e.position LIMIT ?"
VERSION_AT = (
    "SELECT version FROM events WHERE stream = (SELECT id FROM streams WHERE name = ?) AND position <= ? "
    "ORDER BY version DESC LIMIT 1"
)

recorded = partial(map, partial(tuple.__new__, RecordedEvent))


def of_types(types: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Return the SELECT of all events of some types, and its first parameters."""
    names = tuple(types)
    marks = ", ".join("?" * len(names))
    where = f"WHERE e.type IN (SELECT id FROM types WHERE name IN ({marks})) "
    return EVENTS + where + "AND e.position > ? ORDER BY e.position LIMIT ?", names


def last_position(connection: sqlite3.Connection) -> int:
    """Return the position of the last event, 0 without any."""
    position: int = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
    return position


def chunks(connection: sqlite3.Connection, after: int, until: int) -> Iterator[list[RecordedEvent]]:
    """Yield all events after one position until another one, in chunks, within the caller's transaction."""
    while after < until:
        found = list(recorded(connection.execute(ALL, (after, min(FOLD_CHUNK, until - after)))))
        if not found:
            return
        yield found
        after = found[-1].position


def head_of(row: tuple[int, int, bytes] | None) -> Head:
    """Return the head from a row of streams."""
    return Head(*row) if row else Head(0, 0, NO_HASH)
