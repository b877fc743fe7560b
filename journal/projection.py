"""Tables of current state, kept in the append's own transaction and rebuildable from the events."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Protocol

from . import reading
from .errors import JournalCorrupt, JournalError, JournalUnavailable
from .event import RecordedEvent


class Projection(Protocol):
    """A fold of the events into tables of its own.

    ``version`` changes whenever ``schema`` or ``apply`` change their meaning: the tables are then rebuilt.
    ``schema`` is an SQL script that creates the tables, with names nobody else uses.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def schema(self) -> str: ...

    def apply(self, connection: sqlite3.Connection, events: Sequence[RecordedEvent]) -> None:
        """Fold events, in order, into the tables. Touches nothing but its tables, and does not commit."""


class Projections:
    """The projections of one open journal, and the position up to which they are folded."""

    def __init__(self, projections: Sequence[Projection], path: str) -> None:
        self._all = tuple(projections)
        self._path = path
        self._position: int | None = None  # None: unknown, to be looked up
        self._prepared = False
        if len({projection.name for projection in self._all}) < len(self._all):
            raise ValueError("two projections have the same name")

    def __bool__(self) -> bool:
        return bool(self._all)

    def __iter__(self) -> Iterator[Projection]:
        return iter(self._all)

    def are_current(self, connection: sqlite3.Connection) -> bool:
        """Return whether all tables exist in the right version and hold every event."""
        last = reading.last_position(connection)
        stored = _stored(connection)
        ahead = [position for p in self._all if (position := stored.get(p.name, (0, 0))[1]) > last]
        if ahead:
            raise JournalCorrupt(
                f"{self._path}: its tables are of event {ahead[0]}, but its events end with {last}: some were deleted. "
                "Nothing was recorded; verify() without projections says what can still be trusted."
            )
        self._prepared = all(stored.get(p.name) == (p.version, last) for p in self._all)
        return self._prepared

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Build, rebuild or catch up what is not current. The caller holds the write transaction."""
        last = reading.last_position(connection)
        for projection in self._all:
            version, position = _stored(connection).get(projection.name, (None, 0))
            if version != projection.version:
                build(connection, projection, last)
            elif position < last:
                _fold(connection, projection, position, last)
                self._mark(connection, projection, last)
        self._position, self._prepared = last, True

    def begin(self, connection: sqlite3.Connection, last: int) -> None:
        """Fold what another process appended without these projections, before a write."""
        if self._prepared and self._position != last:
            for projection in self._all:
                version, position = _stored(connection).get(projection.name, (None, 0))
                if version != projection.version:
                    raise self._replaced(projection)
                if position < last:
                    _fold(connection, projection, position, last)
                    self._mark(connection, projection, last)
            self._position = last

    def apply(self, connection: sqlite3.Connection, events: Sequence[RecordedEvent]) -> None:
        """Fold events that were just appended."""
        last = events[-1].position
        for projection in self._all:
            self._mark(connection, projection, last)  # first: it tells whether these are still our tables
            projection.apply(connection, events)
        self._position = last

    def forget(self) -> None:
        """Look the position up again at the next write: this transaction was rolled back."""
        self._position = None

    def _mark(self, connection: sqlite3.Connection, projection: Projection, position: int) -> None:
        changed = connection.execute(
            "UPDATE projections SET position = ? WHERE name = ? AND version = ?",
            (position, projection.name, projection.version),
        )
        if changed.rowcount != 1:
            raise self._replaced(projection)

    def _replaced(self, projection: Projection) -> JournalUnavailable:
        return JournalUnavailable(
            f"{self._path}: projection {projection.name!r} was rebuilt by another version of this program. "
            f"Nothing was recorded; close the journal and open it again with one version.",
            path=self._path,
        )


def build(connection: sqlite3.Connection, projection: Projection, last: int) -> None:
    """Make a projection's tables anew from the events. The caller holds the write transaction."""
    row = connection.execute("SELECT tables FROM projections WHERE name = ?", (projection.name,)).fetchone()
    for table in row[0].split("\n") if row and row[0] else ():
        kind = connection.execute("SELECT type FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        if kind:
            connection.execute(f'DROP {kind[0]} "{table}"')
    tables = create_tables(connection, projection)
    connection.execute(
        "INSERT OR REPLACE INTO projections (name, version, position, tables) VALUES (?, ?, ?, ?)",
        (projection.name, projection.version, last, "\n".join(tables)),
    )
    _fold(connection, projection, 0, last)


def create_tables(connection: sqlite3.Connection, projection: Projection) -> list[str]:
    """Execute a projection's schema within the caller's transaction and return what it made."""
    before = set(_names(connection))
    for statement in _statements(projection.schema):
        connection.execute(statement)
    made = [name for name in _names(connection) if name not in before]
    if not made:
        raise JournalError(f"the schema of projection {projection.name!r} creates no table of its own")
    return made


def _fold(connection: sqlite3.Connection, projection: Projection, after: int, until: int) -> None:
    for events in reading.chunks(connection, after, until):
        projection.apply(connection, events)


def _stored(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    rows = connection.execute("SELECT name, version, position FROM projections")
    return {name: (version, position) for name, version, position in rows}


def _names(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    return [name for (name,) in rows]


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; ``executescript`` would commit the transaction around it."""
    pending = ""
    for part in script.split(";"):
        pending += part + ";"
        if sqlite3.complete_statement(pending):
            if pending.strip(" \t\r\n;"):
                yield pending
            pending = ""
