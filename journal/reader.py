"""Everything that can be asked of a journal."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import archive, reading
from .connection import open_read_only
from .errors import Doing, JournalError
from .event import Head, RecordedEvent
from .group import Group
from .lease import LeaseInfo
from .lease import find as find_lease

if TYPE_CHECKING:
    from sqlite_utils import Database

_QUERIES = ("SELECT", "WITH", "VALUES", "EXPLAIN")


class Reader:
    """The reading half of a journal. Reads come in chunks, so none of them keeps the file busy."""

    def __init__(self, connection: sqlite3.Connection, path: str, group: Group) -> None:
        self.path = path
        self._connection = connection
        self._group = group
        self._lock = group.lock
        self.id: str = self._rows("SELECT max(value) FROM meta WHERE key = 'id'")[0][0]
        self._data_version = self._rows("PRAGMA data_version")

    def read(self, stream: str, *, after_version: int = 0, limit: int | None = None) -> Iterator[RecordedEvent]:
        """Yield the events of a stream by version; nothing for an unknown stream.

        Args:
            stream: Its name.
            after_version: Begin with the version after this one.
            limit: The most events to yield.

        Raises:
            JournalError: The file cannot be read.
        """
        return self._chunked(reading.IN_STREAM, (stream,), after_version, limit, key=2)

    def read_subject(
        self, subject: str, *, stream: str | None = None, after_position: int = 0
    ) -> Iterator[RecordedEvent]:
        """Yield the events about a subject by position, of one stream or of all."""
        if stream is None:
            return self._chunked(reading.OF_SUBJECT, (subject,), after_position, None)
        return self._chunked(reading.OF_SUBJECT_IN_STREAM, (subject, stream), after_position, None)

    def read_all(
        self, *, after_position: int = 0, limit: int | None = None, types: Iterable[str] | None = None
    ) -> Iterator[RecordedEvent]:
        """Yield the events of all streams by position, of some types or of all."""
        sql, parameters = (reading.ALL, ()) if types is None else reading.of_types(types)
        return self._chunked(sql, parameters, after_position, limit)

    def follow(
        self,
        *,
        stream: str | None = None,
        after_position: int = 0,
        poll_s: float = 0.2,
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[RecordedEvent]:
        """Yield the events after a position, then wait for those that anybody appends.

        Args:
            stream: Only this one's events.
            after_position: Begin after this position; 0 for the beginning.
            poll_s: Seconds between two looks at the file.
            stop: Asked before each look; once True, what is there by then is yielded and the iteration ends.
        """
        after = after_position
        if stream is not None:
            rows = self._rows(reading.VERSION_AT, (stream, after_position))
            after = rows[0][0] if rows else 0
        while True:
            ending = stop()  # asked first: what was appended before it turned True is still yielded
            found = self.read_all(after_position=after) if stream is None else self.read(stream, after_version=after)
            for event in found:
                yield event
                after = event.position if stream is None else event.version
            if ending:
                return
            time.sleep(poll_s)

    def head(self, stream: str) -> Head:
        """Return the end of a stream; version 0 if it does not exist."""
        rows = self._rows("SELECT version, position, hash FROM streams WHERE name = ?", (stream,))
        return reading.head_of(rows[0] if rows else None)

    def streams(self) -> list[str]:
        """Return the names of all streams, oldest first."""
        return [name for (name,) in self._rows("SELECT name FROM streams ORDER BY id")]

    def position(self) -> int:
        """Return the position of the last event, 0 without any."""
        position: int = self._rows("SELECT coalesce(max(position), 0) FROM events")[0][0]
        return position

    def changed(self) -> bool:
        """Return whether another connection has committed since the last call (at first: since opening)."""
        before, self._data_version = self._data_version, self._rows("PRAGMA data_version")
        return before != self._data_version

    def lease(self, stream: str) -> LeaseInfo | None:
        """Return the lease of a stream as recorded, None if it was never taken."""
        with self._lock, Doing(self.path, "read the lease"):
            return find_lease(self._connection, stream)

    def query(self, sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT over events and projections.

        Raises:
            JournalError: The statement is no query, or SQLite refuses it.
        """
        word = sql.lstrip()[:8].upper()
        if not word.startswith(_QUERIES):
            raise JournalError(f"only queries are answered here, not {sql.strip()[:40]!r}", path=self.path)
        if word.startswith("SELECT"):
            return self._rows(sql, params)
        with self._lock:
            self._rows("PRAGMA query_only = ON")
            try:
                return self._rows(sql, params)
            finally:
                self._rows("PRAGMA query_only = OFF")

    def sqlite_utils(self) -> Database:
        """Return a read-only ``sqlite_utils.Database`` on a connection of its own; the caller closes it."""
        from sqlite_utils import Database  # 0.1 s, and only those who ask pay

        with Doing(self.path, "open it for sqlite-utils"):
            return Database(open_read_only(self.path), execute_plugins=False)

    def export(self, stream: str | None = None) -> Iterator[str]:
        """Yield one line of JSON per event, without the line end, of one stream or of all by position."""
        return archive.lines(self.read_all() if stream is None else self.read(stream))

    def _chunked(
        self, sql: str, parameters: tuple[str, ...], after: int, limit: int | None, key: int = 0
    ) -> Iterator[RecordedEvent]:
        left = limit
        while left is None or left > 0:
            size = reading.CHUNK if left is None else min(reading.CHUNK, left)
            events = list(reading.recorded(self._rows(sql, (*parameters, after, size))))
            yield from events
            if len(events) < size:
                return
            after = events[-1][key]
            left = None if left is None else left - size

    def _rows(self, sql: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            self._group.settle()
            with Doing(self.path, "read it"):
                return self._connection.execute(sql, params).fetchall()
