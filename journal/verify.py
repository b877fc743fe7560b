"""Is every event still the one that was appended, and is every table what the events say?"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from . import reading
from .connection import open_beside_memory
from .errors import translated
from .event import NO_HASH, Head, RecordedEvent, event_hash, pack_prefix
from .projection import Projection
from .rebuilt import Rebuilt


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
        connection = open_beside_memory(path)
        connection.execute("BEGIN")
    except sqlite3.Error as error:
        raise translated(error, path, "verify it") from error
    check = _Check(connection)
    try:
        check.file()
        rebuilt = [Rebuilt(connection, projection) for projection in projections]
        for events in check.events(wanted=bool(rebuilt)):
            for one in rebuilt:
                one.apply(events)
        check.heads()
        for one in rebuilt if not check.problems else ():  # from bad events nothing follows
            check.problems += [Problem(None, None, None, what) for what in one.differences()]
    except sqlite3.DatabaseError as error:
        check.problems.append(Problem(check.position + 1, None, None, f"cannot be read from here on: {error}"))
    finally:
        connection.close()
    last_good = {check.names[key]: head.version for key, head in check.good.items() if key in check.names}
    return Report(check.position, len(check.good), check.problems, last_good)


# Every event has a subject of its own row, but there are few streams and types: those are looked up in memory.
_EVENTS = (
    "SELECT e.position, e.stream, e.version, u.name, e.type, e.at, CAST(e.data AS BLOB), e.hash "
    "FROM stored.events AS e LEFT JOIN stored.subjects AS u ON u.id = e.subject ORDER BY e.position"
)


class _Check:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.position = 0
        self.problems: list[Problem] = []
        self.names: dict[int, str] = {}
        self.good: dict[int, Head] = {}  # by stream: its last good event
        self._bad: set[int] = set()

    def file(self) -> None:
        """Let SQLite check its pages."""
        for (line,) in self.connection.execute("PRAGMA stored.quick_check"):
            if line != "ok":
                self.problems.append(Problem(None, None, None, f"SQLite: {line}"))

    def events(self, *, wanted: bool) -> Iterator[list[RecordedEvent]]:
        """Walk all events by position, each stream's chain beside the others; yield those wanted while all is good.

        Where an event is not exactly what must come next, `_suspect` finds out why.
        """
        self.names, streams = self._texts("streams")
        _, types = self._texts("types")
        good, new, before = self.good, tuple.__new__, 0
        nothing = Head(0, 0, NO_HASH)
        unknown: Any = (None, None)  # its encoding fails, and the event is looked at more closely
        chunk: list[RecordedEvent] = []
        for position, key, version, subject, kind, at, data, digest in self.connection.execute(_EVENTS):
            stream, stream_utf8 = streams.get(key, unknown)
            type_, type_utf8 = types.get(kind, unknown)
            last_version, _, last_hash = good.get(key, nothing)
            try:
                utf8 = subject.encode()
                prefix = pack_prefix(last_hash, version, at, len(stream_utf8), len(type_utf8), len(utf8), len(data))
                right = (
                    sha256(prefix + stream_utf8 + type_utf8 + utf8 + data).digest() == digest
                    and version == last_version + 1
                    and position == before + 1
                )
            except (TypeError, AttributeError, ValueError, struct.error):
                right = False
            if right:
                good[key] = new(Head, (version, position, digest))
                self.position = position
            else:
                self._suspect(key, new(RecordedEvent, (position, stream, version, subject, type_, at, data, digest)))
            before = position
            if wanted and not self.problems:
                chunk.append(new(RecordedEvent, (position, stream, version, subject, type_, at, data, digest)))
                if len(chunk) == reading.FOLD_CHUNK:
                    yield chunk
                    chunk = []
        if chunk and not self.problems:
            yield chunk

    def _texts(self, table: str) -> tuple[dict[int, str], dict[int, Any]]:
        names = dict(self.connection.execute(f"SELECT id, name FROM stored.{table}"))  # a constant
        return names, {key: (name, name.encode()) for key, name in names.items() if isinstance(name, str)}

    def _suspect(self, key: int, event: RecordedEvent) -> None:
        """Report what is wrong with an event, if it is the first bad one of its stream."""
        if event.position != self.position + 1:
            self._report(event, f"positions {self.position + 1} to {event.position - 1} are missing")
        self.position = event.position
        if key in self._bad:
            return
        last = self.good.get(key) or Head(0, 0, NO_HASH)
        wrong = _wrong(event, last)
        if wrong:
            self._report(event, wrong)
            self._bad.add(key)
            if event.stream is not None:
                self.good.setdefault(key, last)
        else:
            self.good[key] = Head(event.version, event.position, event.hash)

    def heads(self) -> None:
        """Compare each stream's last event with the head recorded for it: finds a tail that was cut off."""
        rows = self.connection.execute("SELECT id, name, version, position, hash FROM stored.streams ORDER BY id")
        for key, name, *head in rows:
            last = self.good.setdefault(key, Head(0, 0, NO_HASH))
            if key in self._bad or tuple(head) == last:
                continue
            what = f"the stream's head names version {head[0]} at position {head[1]}"
            if head[0] != last.version:
                what += f", but its events end with version {last.version}: later ones were removed"
            else:
                what += ", which is not its last event"
            self.problems.append(Problem(None, name, last.version, what))

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
