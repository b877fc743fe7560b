"""Is every event still the one that was appended, and is every table what the events say?"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import reading
from .connection import open_read_only
from .errors import translated
from .event import NO_HASH, Head, RecordedEvent, event_hash
from .projection import Projection, create_tables


class Problem(NamedTuple):
    """Something that is not as it was recorded; position, stream and version where they are known."""

    position: int | None
    stream: str | None
    version: int | None
    what: str


class Report(NamedTuple):
    """What verification found.

    ``problems`` names the first bad event of each stream; ``last_good`` gives, for each stream, the last
    version that can be trusted, as everything up to it is proven by the chain.
    """

    events: int
    streams: int
    problems: list[Problem]
    last_good: dict[str, int]

    @property
    def ok(self) -> bool:
        """Return whether nothing was found."""
        return not self.problems


def verify(path: str, projections: Sequence[Projection]) -> Report:
    """Return what is wrong with a journal, as of one moment, while others may write.

    Raises:
        JournalUnavailable: The file cannot be opened.
    """
    try:
        connection = open_read_only(path)
        connection.execute("BEGIN")
    except sqlite3.Error as error:
        raise translated(error, path, "verify it") from error
    check = _Check(connection)
    try:
        check.file()
        check.events()
        check.heads()
        for projection in projections if not check.problems else ():  # from bad events nothing follows
            check.projection(projection)
    except sqlite3.DatabaseError as error:
        check.problems.append(Problem(check.position + 1, None, None, f"cannot be read from here on: {error}"))
    finally:
        connection.close()
    return Report(check.position, len(check.good), check.problems, {s: h.version for s, h in check.good.items()})


class _Check:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.position = 0
        self.problems: list[Problem] = []
        self.good: dict[str, Head] = {}  # the last good event of each stream
        self._bad: set[str] = set()

    def file(self) -> None:
        """Let SQLite check its pages."""
        for (line,) in self.connection.execute("PRAGMA quick_check"):
            if line != "ok":
                self.problems.append(Problem(None, None, None, f"SQLite: {line}"))

    def events(self) -> None:
        """Walk all events by position, each stream's chain beside the others."""
        for row in self.connection.execute(reading.EVENTS + "ORDER BY e.position"):
            event = tuple.__new__(RecordedEvent, row)
            if event.position != self.position + 1:
                self._report(event, f"positions {self.position + 1} to {event.position - 1} are missing")
            self.position = event.position
            stream = event.stream
            if stream in self._bad:
                continue
            last = self.good.get(stream) or Head(0, 0, NO_HASH)
            wrong = _wrong(event, last)
            if wrong:
                self._report(event, wrong)
                self._bad.add(stream)
                if stream is not None:
                    self.good.setdefault(stream, last)
            else:
                self.good[stream] = Head(event.version, event.position, event.hash)

    def heads(self) -> None:
        """Compare each stream's last event with the head recorded for it: finds a tail that was cut off."""
        rows = self.connection.execute("SELECT name, version, position, hash FROM streams ORDER BY id")
        for name, *head in rows:
            last = self.good.setdefault(name, Head(0, 0, NO_HASH))
            if name in self._bad or tuple(head) == last:
                continue
            what = f"the stream's head names version {head[0]} at position {head[1]}"
            if head[0] != last.version:
                what += f", but its events end with version {last.version}: later ones were removed"
            else:
                what += ", which is not its last event"
            self.problems.append(Problem(None, name, last.version, what))

    def projection(self, projection: Projection) -> None:
        """Fold the events anew in memory and compare the tables row by row."""
        fresh = sqlite3.connect(":memory:", isolation_level=None)
        try:
            tables = create_tables(fresh, projection)
            for events in reading.chunks(self.connection, 0, self.position):
                projection.apply(fresh, events)
            for table in tables:
                if fresh.execute("SELECT 1 FROM sqlite_master WHERE name = ? AND type = 'view'", (table,)).fetchone():
                    self._view(projection, table, fresh)
                    continue
                try:
                    what = _difference(_sorted(self.connection, table), _sorted(fresh, table))
                except sqlite3.OperationalError as error:
                    what = str(error)
                if what:
                    self.problems.append(
                        Problem(None, None, None, f"projection {projection.name}, table {table}: {what}")
                    )
        finally:
            fresh.close()

    def _view(self, projection: Projection, view: str, fresh: sqlite3.Connection) -> None:
        """Compare a view's text; its rows follow from the tables, and it may read the events, too."""
        sql = "SELECT sql FROM sqlite_master WHERE name = ?"
        if self.connection.execute(sql, (view,)).fetchone() != fresh.execute(sql, (view,)).fetchone():
            what = f"projection {projection.name}, view {view}: it is not what the program made; rebuild it"
            self.problems.append(Problem(None, None, None, what))

    def _report(self, event: RecordedEvent, what: str) -> None:
        self.problems.append(Problem(event.position, event.stream, event.version, what))


def _wrong(event: RecordedEvent, last: Head) -> str | None:
    """Return what is wrong with an event that follows ``last`` in its stream."""
    for name in ("stream", "subject", "type"):
        if getattr(event, name) is None:
            return f"its {name} is an unknown key"
    if event.version != last.version + 1:
        return f"version {last.version + 1} was expected here, not {event.version}"
    try:
        expected = event_hash(event, last.hash)
    except (TypeError, AttributeError, struct.error) as error:
        return f"a column has the wrong type: {error}"
    if event.hash != expected:
        return "its hash does not match its content and the events before it"
    return None


def _sorted(connection: sqlite3.Connection, table: str) -> Iterator[tuple[object, ...]]:
    width = len(connection.execute(f'SELECT * FROM "{table}" LIMIT 0').description)
    order = ", ".join(str(column + 1) for column in range(width))
    return connection.execute(f'SELECT * FROM "{table}" ORDER BY {order}')


def _difference(stored: Iterator[tuple[object, ...]], rebuilt: Iterator[tuple[object, ...]]) -> str | None:
    end = object()
    while True:
        left, right = next(stored, end), next(rebuilt, end)
        if left is end and right is end:
            return None
        if left != right:
            return (
                f"{'no row' if left is end else left} stands where the events give "
                f"{'no row' if right is end else right}; rebuild it"
            )
