"""One owner per stream, fenced by an epoch that every take raises.

A lease does not protect by its time: a holder that slept past it is still refused only when somebody else
took the stream, because an append under a lease compares the epoch in its own transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .errors import LeaseHeld, LeaseLost

if TYPE_CHECKING:
    from .store import Journal

Owner = Mapping[str, str | int]
IsDead = Callable[[Owner], bool | None]


class LeaseInfo(NamedTuple):
    """A lease as recorded; ``owner`` is None once released, ``heartbeat`` is in µs since 1970 UTC."""

    stream: str
    epoch: int
    owner: dict[str, str | int] | None
    heartbeat: int
    ttl_s: float


class Lease:
    """A stream held by this process. Append with it; renew it now and then; release it at the end."""

    def __init__(self, journal: Journal, stream: str, epoch: int, ttl_s: float, renewed: int) -> None:
        self.stream, self.epoch, self.ttl_s = stream, epoch, ttl_s
        self._journal = journal
        self._renewed = renewed

    def renew(self, *, force: bool = False) -> None:
        """Record that the owner lives; does nothing when a quarter of the time to live has not passed.

        Raises:
            LeaseLost: Somebody took the stream over.
        """
        now = self._journal.now()
        if not force and 0 <= now - self._renewed < self.ttl_s * 250_000:
            return
        self._write("heartbeat = ?", now)
        self._renewed = now

    def release(self) -> None:
        """Let the next owner take the stream at once.

        Raises:
            LeaseLost: Somebody took the stream over; there is nothing to release.
        """
        self._write("owner = NULL, heartbeat = ?", self._journal.now())

    def _write(self, change: str, now: int) -> None:
        update = f"UPDATE leases SET {change} WHERE stream = ? AND epoch = ? AND owner IS NOT NULL"

        def write(connection: sqlite3.Connection) -> int:
            return connection.execute(update, (now, self.stream, self.epoch)).rowcount

        if self._journal.write(write, "renew or release the lease") != 1:
            raise LeaseLost(self.stream, self.epoch, path=self._journal.path)


def find(connection: sqlite3.Connection, stream: str) -> LeaseInfo | None:
    """Return the lease of a stream as recorded, None if it was never taken."""
    from json import loads

    row = connection.execute(
        "SELECT stream, epoch, owner, heartbeat, ttl FROM leases WHERE stream = ?", (stream,)
    ).fetchone()
    if row is None:
        return None
    return LeaseInfo(row[0], row[1], None if row[2] is None else loads(row[2]), row[3], row[4] / 1e6)


def acquire(journal: Journal, stream: str, owner: Owner, ttl_s: float, is_dead: IsDead) -> Lease:
    """Take a stream; see ``Journal.acquire``."""
    from json import dumps

    seen = journal.lease(stream)
    while True:
        if seen and seen.owner is not None:
            _refuse_while_held(journal, seen, seen.owner, is_dead)
        now = journal.now()
        epoch = seen.epoch + 1 if seen else 1
        row = (stream, epoch, dumps(dict(owner)), now, int(ttl_s * 1e6))

        def take(
            connection: sqlite3.Connection,
            expected: LeaseInfo | None = seen,
            row: tuple[str, int, str, int, int] = row,
        ) -> LeaseInfo | None:
            current = find(connection, stream)
            if current == expected:
                connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", row)
            return current

        current = journal.write(take, "take the lease")
        if current == seen:
            return Lease(journal, stream, epoch, ttl_s, now)
        seen = current  # somebody was faster: judge what is there now


def _refuse_while_held(journal: Journal, seen: LeaseInfo, owner: Owner, is_dead: IsDead) -> None:
    age_s = (journal.now() - seen.heartbeat) / 1e6
    if is_dead(owner) is not True and age_s < seen.ttl_s:
        raise LeaseHeld(seen.stream, owner, age_s, path=journal.path)
