"""The write path: versions, keys and hashes are worked out in memory, rows go down in batches."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from . import reading
from .errors import JournalCorrupt, LeaseLost, VersionConflict
from .event import NO_HASH, NewEvent, RecordedEvent, pack_prefix
from .projection import Projections

BATCH = 4096
KEYS_KEPT = 262_144

_INSERT = (
    "INSERT INTO events (position, stream, version, subject, type, at, data, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_HEAD = (
    "SELECT s.id, s.version, s.position, s.hash, e.hash FROM streams AS s "
    "LEFT JOIN events AS e ON e.stream = s.id AND e.version = s.version WHERE s.name = ?"
)
_NEW_STREAM = "INSERT INTO streams (name, version, position, hash) VALUES (?, 0, 0, ?)"
_MOVE_HEAD = "UPDATE streams SET version = ?, position = ?, hash = ? WHERE id = ?"


class Keys(dict[str, int]):
    """The integer keys of a table of names; a missing one is looked up or made.

    Keys never change once committed, so that only a rollback makes them stale.
    """

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        super().__init__()
        self._connection = connection
        self._find = f"SELECT id FROM {table} WHERE name = ?"
        self._make = f"INSERT INTO {table} (name) VALUES (?)"

    def __missing__(self, name: str) -> int:
        if len(self) >= KEYS_KEPT:
            self.clear()
        row = self._connection.execute(self._find, (name,)).fetchone()
        key: int = row[0] if row else self._connection.execute(self._make, (name,)).lastrowid or 0
        self[name] = key
        return key


class _Head:
    __slots__ = ("hash", "key", "position", "version")

    def __init__(self, key: int | None, version: int, position: int, digest: bytes) -> None:
        self.key, self.version, self.position, self.hash = key, version, position, digest


class Transaction:
    """The one write transaction of a connection, used again and again."""

    def __init__(self, connection: sqlite3.Connection, projections: Projections, path: str) -> None:
        self._connection = connection
        self._projections = projections
        self._path = path
        self._subjects = Keys(connection, "subjects")
        self._types = Keys(connection, "types")
        self._heads: dict[str, _Head] = {}
        self._moved: set[_Head] = set()
        self._rows: list[tuple[Any, ...]] = []
        self._recorded: list[RecordedEvent] = []
        self._position = 0

    def begin(self) -> None:
        """Take the write lock of the file."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._position = reading.last_position(self._connection)
        self._projections.begin(self._connection, self._position)

    def commit(self) -> None:
        """Make everything durable."""
        self.flush()
        self._connection.execute("COMMIT")
        self._heads.clear()

    def rollback(self) -> None:
        """Undo everything, and forget what was only true within."""
        for kept in (self._heads, self._moved, self._rows, self._recorded, self._subjects, self._types):
            kept.clear()
        self._projections.forget()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def check_lease(self, stream: str, epoch: int) -> None:
        """Raise LeaseLost unless the epoch is the current one."""
        held = self._connection.execute(
            "SELECT 1 FROM leases WHERE stream = ? AND epoch = ? AND owner IS NOT NULL", (stream, epoch)
        )
        if held.fetchone() is None:
            raise LeaseLost(stream, epoch, path=self._path)

    def add(self, stream: str, events: Sequence[NewEvent], expected: int | None, at: int) -> int:
        """Append events and return the new version of the stream."""
        head = self._heads.get(stream) or self._look_up(stream)
        if expected is not None and expected != head.version:
            raise VersionConflict(stream, expected, head.version, path=self._path)
        if not events:
            return head.version
        if head.key is None:
            head.key = self._connection.execute(_NEW_STREAM, (stream, NO_HASH)).lastrowid
        for start in range(0, len(events), BATCH):
            self._moved.add(head)
            self._chain(stream, head, events[start : start + BATCH], at)
            if len(self._rows) >= BATCH:
                self.flush()
        return head.version

    def flush(self) -> None:
        """Write the rows that are still in memory, and fold them into the projections."""
        if not self._rows:
            return
        self._connection.executemany(_INSERT, self._rows)
        self._connection.executemany(
            _MOVE_HEAD, [(head.version, head.position, head.hash, head.key) for head in self._moved]
        )
        if self._recorded:
            self._projections.apply(self._connection, self._recorded)
        self._moved.clear()
        self._rows.clear()
        self._recorded = []

    def _look_up(self, stream: str) -> _Head:
        row = self._connection.execute(_HEAD, (stream,)).fetchone()
        if row is None:
            head = _Head(None, 0, 0, NO_HASH)
        elif row[1] and row[3] != row[4]:
            raise JournalCorrupt(
                f"{self._path}: the last event of stream {stream!r} is not the one its head names (version "
                f"{row[1]}). Nothing was recorded; verify says what can still be trusted.",
                path=self._path,
            )
        else:
            head = _Head(*row[:4])
        self._heads[stream] = head
        return head

    def _chain(self, stream: str, head: _Head, events: Sequence[NewEvent], at: int) -> None:
        """The hot loop: one hash and one row per event, nothing else."""
        subjects, types, key = self._subjects, self._types, head.key
        version, position, previous = head.version, self._position, head.hash
        name = stream.encode()
        name_length = len(name)
        add_row, add_recorded = self._rows.append, self._recorded.append
        projecting, new = bool(self._projections), tuple.__new__
        for type_, subject, given in events:
            data = given if type(given) is bytes else _utf8(given)
            text = str(data, "utf-8")
            if text[:1] != "{" or text[-1:] != "}":
                raise ValueError(f"the data of a {type_} event is not a JSON object: {text[:40]!r}")
            version += 1
            position += 1
            kind, about = type_.encode(), subject.encode()
            prefix = pack_prefix(previous, version, at, name_length, len(kind), len(about), len(data))
            previous = sha256(b"".join((prefix, name, kind, about, data))).digest()
            add_row((position, key, version, subjects[subject], types[type_], at, text, previous))
            if projecting:
                add_recorded(new(RecordedEvent, (position, stream, version, subject, type_, at, data, previous)))
        self._position = head.position = position
        head.version, head.hash = version, previous


def _utf8(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data)
