"""The journal: one file, append only."""

# pathlib costs start-up time

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, TypeVar

from . import archive
from .connection import connect
from .errors import Doing, JournalUnavailable
from .event import NewEvent
from .group import Group
from .lease import IsDead, Lease, Owner, acquire
from .projection import Projection, Projections, build
from .reader import Reader
from .reading import last_position
from .transaction import Transaction

if TYPE_CHECKING:
    from .verify import Report

T = TypeVar("T")


def _clock() -> int:
    return time.time_ns() // 1000


class Journal(Reader):
    """An append-only store of events in one SQLite file.

    One object may be used by several threads, one after another: a group keeps the others waiting.
    Several processes may open the same file; each append is one transaction.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        projections: Sequence[Projection],
        now: Callable[[], int] | None,
        *,
        read_only: bool,
    ) -> None:
        self._projections = Projections(projections, path)
        self._transaction = Transaction(connection, self._projections, path)
        self._group = Group(self._transaction, path)
        super().__init__(connection, path, self._group)
        self.now = now or _clock
        self.read_only = read_only

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        projections: Sequence[Projection] = (),
        create: bool = True,
        read_only: bool = False,
        now: Callable[[], int] | None = None,
    ) -> Self:
        """Return an open journal, a context manager.

        Args:
            path: The file. Missing directories are made with it.
            projections: Tables of current state to keep; built, rebuilt or caught up here where needed.
            create: Make a new journal where there is none.
            read_only: Write nothing; works on files and in directories that may not be written.
            now: The clock, in µs since 1970 UTC.

        Raises:
            JournalUnavailable: It cannot be opened: missing, a directory, read-only, locked, disk full.
            NotAJournal: The file is something else.
            NewerSchema: A newer version wrote it.
            JournalCorrupt: The file is damaged.
        """
        absolute = os.path.abspath(os.fspath(path))
        connection = connect(absolute, create=create, read_only=read_only)
        try:
            journal = cls(connection, absolute, projections, now, read_only=read_only)
            journal._prepare_projections()
        except BaseException:
            connection.close()
            raise
        return journal

    def close(self) -> None:
        """Close the file; what was appended is durable already. Closing twice is harmless."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(
        self,
        stream: str,
        events: Sequence[NewEvent],
        *,
        expected_version: int | None = None,
        lease: Lease | None = None,
        at: int | None = None,
    ) -> int:
        """Append events to a stream, all or none, and return its new version.

        When this returns (within a group: when the group ends), the events survive a power failure.

        Args:
            stream: Its name; a new one begins with its first event.
            events: What to append, in order.
            expected_version: The version the stream must have, 0 for a new one; None for any.
            lease: Append only as long as this lease is the current one.
            at: Time of the events in µs since 1970 UTC; None for now.

        Raises:
            VersionConflict: The stream is not at the expected version.
            LeaseLost: The lease was taken over or released.
            JournalUnavailable: The disk is full, the file is locked or read-only.
            ValueError: The data of an event is not a JSON object in UTF-8.
        """
        moment = self.now() if at is None else at
        with self._group:
            if lease is not None:
                self._transaction.check_lease(lease.stream, lease.epoch)
            return self._transaction.add(stream, events, expected_version, moment)

    def group(self) -> Group:
        """Return a context manager: all appends within become durable together, or none does.

        An exception that leaves the block undoes them. Groups within a group belong to the outer one.
        Projections are folded when the group ends, or before a read within it.
        """
        return self._group

    def write(self, function: Callable[[sqlite3.Connection], T], doing: str) -> T:
        """Return the result of a function that writes to tables other than the events, in one transaction."""
        with self._group, Doing(self.path, doing):
            return function(self._connection)

    def acquire(self, stream: str, *, owner: Owner, ttl_s: float = 30.0, is_dead: IsDead = lambda _: None) -> Lease:
        """Take the lease on a stream; each take raises its epoch by one.

        A free or released lease is taken at once, and so is one whose owner is dead. An owner that lives,
        or of which nothing is known, keeps it until it was silent for the time to live that it asked for.

        Args:
            stream: What to hold; it need not have events yet.
            owner: Who takes it: host, process, start time, …
            ttl_s: Seconds of silence after which others may take it over.
            is_dead: Says of an owner: True dead, False alive, None unknown (on another host).

        Raises:
            LeaseHeld: Somebody else holds it.
            JournalUnavailable: The file cannot be written.
        """
        return acquire(self, stream, owner, ttl_s, is_dead)

    def rebuild(self, name: str | None = None) -> None:
        """Make one projection, or all, anew from the events.

        Raises:
            KeyError: The journal was not opened with a projection of this name.
        """
        chosen = [projection for projection in self._projections if name in (None, projection.name)]
        if name is not None and not chosen:
            raise KeyError(name)

        def rebuild(connection: sqlite3.Connection) -> None:
            for projection in chosen:
                build(connection, projection, last_position(connection))

        self.write(rebuild, "rebuild projections")

    def verify(self, *, projections: bool = True) -> Report:
        """Check the file, every hash, every head, and that the projections equal rebuilt ones.

        Args:
            projections: Check those the journal was opened with, too.

        Returns:
            What was found: ``ok``, the problems, and per stream the last version that can be trusted.
        """
        from .verify import verify  # not needed at start-up

        return verify(self.path, tuple(self._projections) if projections else ())

    def backup(self, destination: str | os.PathLike[str]) -> None:
        """Copy the journal as of now into one new file, while others write.

        Raises:
            JournalUnavailable: The destination exists or cannot be written.
        """
        archive.backup(self.path, os.path.abspath(os.fspath(destination)))

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and empty it, as far as readers allow."""
        self._rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def _prepare_projections(self) -> None:
        with Doing(self.path, "read its projections"):
            current = self._projections.are_current(self._connection)
        if current:
            return
        if self.read_only:
            raise JournalUnavailable(
                f"{self.path}: its projections are not those of this program. Nothing was changed; open it "
                f"once for writing to bring them up to date.",
                path=self.path,
            )
        self.write(self._projections.prepare, "build projections")
