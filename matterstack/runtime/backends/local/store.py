"""The queue and the slots of one workspace, on disk, shared by all processes that use it.

Jobs are kept so that a queued one outlives the process that submitted it. Slots are tickets: a granted one
names the process that holds it, and is void when that process is gone; a waiting one keeps others from
taking slots out of turn. The database needs no flush of its own where a journal has the intents already.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from journal.filesystem import network_type
from matterstack.errors import BackendUnavailable
from matterstack.runtime.backends.local.processes import ProcessId, alive, boot_id, host, own

_BUSY_S: Final = 10.0  # for so long other processes are waited for
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
  seq INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE, spec_hash TEXT NOT NULL, spec TEXT NOT NULL,
  owner_pid INTEGER NOT NULL, owner_ticks INTEGER NOT NULL, boot_id TEXT NOT NULL,
  alone INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0, refused TEXT NOT NULL DEFAULT '',
  doubtful INTEGER NOT NULL DEFAULT 0, token TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS jobs_open ON jobs (seq) WHERE NOT ended;
CREATE TABLE IF NOT EXISTS slots (
  ticket INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, ticks INTEGER NOT NULL,
  boot_id TEXT NOT NULL, cores INTEGER NOT NULL, granted INTEGER NOT NULL, asked_at REAL NOT NULL);
"""

# Who waits asks many times a second; who has not for this long was stopped, and is passed over until it asks again.
WAITING_S: Final = 2.0


class JobRow(NamedTuple):
    """A submitted job. ``alone``: submitted without a run, so nobody else remembers it."""

    job_id: str
    spec_hash: str
    spec: bytes | str
    alone: bool
    doubtful: bool = False
    refused: str = ""
    owner: ProcessId | None = None
    ended: bool = False
    token: str = ""


class JobStore:
    """Jobs and slots of one ``workspace_root``. May be used by several threads of a process."""

    def __init__(self, root: Path) -> None:
        self.path = root / ".matterstack" / "queue.db"
        self._lock = threading.RLock()
        self._host = host()
        self.me = own()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            # WAL needs memory that all processes share, which a network file system does not give.
            mode = "DELETE" if network_type(str(self.path.parent)) else "WAL"
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._change_mode(mode)
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise BackendUnavailable("local", f"open the workspace {str(root)!r}", str(error)) from error

    def _change_mode(self, mode: str) -> None:
        """Set the journal mode; SQLite does not wait for another process that does so, or makes the file, just now."""
        until = time.monotonic() + _BUSY_S
        while True:
            try:
                self._db.execute(f"PRAGMA journal_mode = {mode}")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self, *, flush: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if flush:
                    self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise BackendUnavailable("local", f"write {str(self.path)!r}", str(error)) from error
                raise
            finally:
                if flush:
                    self._db.execute("PRAGMA synchronous = NORMAL")

    def _select(self, query: str, params: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, params).fetchall()
            except sqlite3.Error as error:
                raise BackendUnavailable("local", f"read {str(self.path)!r}", str(error)) from error

    def add(self, rows: Iterable[JobRow], *, flush: bool) -> None:
        """Record jobs as submitted by this process; one that is there is taken over, not doubled."""
        with self._transaction(flush=flush) as db:
            db.executemany(
                "INSERT INTO jobs (job_id, spec_hash, spec, owner_pid, owner_ticks, boot_id, alone, ended, refused,"
                " doubtful, token) VALUES (?, ?, ?, ?, ?, ?, ?, ?, '', ?, ?)"
                " ON CONFLICT (job_id) DO UPDATE SET owner_pid = excluded.owner_pid,"
                " owner_ticks = excluded.owner_ticks, boot_id = excluded.boot_id, doubtful = excluded.doubtful",
                [(r.job_id, r.spec_hash, r.spec, *self.me, r.alone, r.doubtful, r.doubtful, r.token) for r in rows],
            )

    def find(self, job_id: str) -> JobRow | None:
        """Return the job as it was submitted, or None."""
        rows = self._read("WHERE job_id = ?", (job_id,))
        return rows[0] if rows else None

    def _read(self, where: str, params: tuple[object, ...]) -> list[JobRow]:
        columns = "job_id, spec_hash, spec, alone, doubtful, refused, owner_pid, owner_ticks, boot_id, ended, token"
        rows = self._select(f"SELECT {columns} FROM jobs {where}", params)
        return [
            JobRow(
                job_id,
                spec_hash,
                spec,
                bool(alone),
                bool(doubtful),
                refused,
                ProcessId(pid, ticks, boot),
                bool(ended),
                token,
            )
            for job_id, spec_hash, spec, alone, doubtful, refused, pid, ticks, boot, ended, token in rows
        ]

    def strangers(self, rows: Iterable[JobRow]) -> list[JobRow]:
        """Return what is known here under the ids of these jobs but has another token: jobs of another journal."""
        find = "SELECT job_id FROM jobs WHERE job_id = ? AND token <> ?"
        found = [job_id for row in rows for (job_id,) in self._select(find, (row.job_id, row.token))]
        return [row for job_id in found if (row := self.find(job_id))]

    def orphans(self) -> list[JobRow]:
        """Take over and return the jobs that were submitted alone, have no end, and whose process is gone."""
        others = "WHERE NOT ended AND alone AND NOT (owner_pid = ? AND owner_ticks = ?) ORDER BY seq"
        found = [row for row in self._read(others, self.me[:2]) if row.owner and not alive(row.owner)]
        if found:
            self.add(found, flush=True)
        return found

    def disown(self, job_ids: Sequence[str]) -> None:
        """Leave these jobs to whoever looks next."""
        if job_ids:
            with self._transaction() as db:
                ids = [(job_id,) for job_id in job_ids]
                db.executemany("UPDATE jobs SET owner_pid = 0, owner_ticks = 0 WHERE job_id = ?", ids)

    def end(self, job_ids: Iterable[str]) -> None:
        """Record that these jobs have ended; it only shortens later look-ups, the records are the truth."""
        with self._transaction() as db:
            db.executemany("UPDATE jobs SET ended = 1 WHERE job_id = ?", [(job_id,) for job_id in job_ids])

    def refuse(self, job_id: str, why: str) -> None:
        """Record that the job cannot be started."""
        with self._transaction() as db:
            db.execute("UPDATE jobs SET ended = 1, refused = ? WHERE job_id = ?", (why, job_id))

    def forget(self, job_ids: Iterable[str]) -> None:
        """Remove jobs that were taken back."""
        with self._transaction() as db:
            db.executemany("DELETE FROM jobs WHERE job_id = ?", [(job_id,) for job_id in job_ids])

    def acquire(self, cores: int, limit: int, waiting: int | None) -> tuple[int, bool]:
        """Ask for ``cores`` of the ``limit`` cores of this host.

        Args:
            cores: 1 to ``limit``.
            limit: Cores that all processes together may use here.
            waiting: The ticket of an earlier request that was not granted.

        Returns:
            The ticket, and whether it is granted; where it is not, ask again with it.
        """
        with self._transaction() as db:
            rows = db.execute(
                "SELECT ticket, pid, ticks, boot_id, cores, granted, asked_at FROM slots WHERE host = ?", (self._host,)
            )
            used, first_waiting, now = 0, None, time.monotonic()
            for ticket, pid, ticks, boot, held, granted, asked_at in rows.fetchall():
                if ticket == waiting:
                    continue
                if not alive(ProcessId(pid, ticks, boot)):
                    db.execute("DELETE FROM slots WHERE ticket = ?", (ticket,))
                elif granted:
                    used += held
                elif first_waiting is None and now - asked_at < WAITING_S:
                    first_waiting = ticket
            turn = first_waiting is None or (waiting is not None and waiting < first_waiting)
            granted = turn and used + cores <= limit
            if waiting is None:
                cursor = db.execute(
                    "INSERT INTO slots (host, pid, ticks, boot_id, cores, granted, asked_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (self._host, *self.me, cores, granted, now),
                )
                waiting = cursor.lastrowid
                assert waiting is not None
            else:
                db.execute(
                    "UPDATE slots SET cores = ?, granted = ?, asked_at = ? WHERE ticket = ?",
                    (cores, granted, now, waiting),
                )
            return waiting, granted

    def hand_over(self, ticket: int, holder: ProcessId) -> None:
        """Make the slot that of ``holder``: it lasts as long as that process."""
        with self._transaction() as db:
            db.execute(
                "UPDATE slots SET pid = ?, ticks = ?, boot_id = ? WHERE ticket = ?",
                (*holder, ticket),
            )

    def release(self, tickets: Iterable[int]) -> None:
        """Give slots, or places in the line for them, back."""
        with self._transaction() as db:
            db.executemany("DELETE FROM slots WHERE ticket = ?", [(ticket,) for ticket in tickets])

    def others_wait(self, mine: int | None) -> bool:
        """Return whether anybody but the holder of ticket ``mine`` waits for slots on this host."""
        waiting = self._select(
            "SELECT 1 FROM slots WHERE NOT granted AND host = ? AND boot_id = ? AND ticket <> ? AND asked_at > ?",
            (self._host, boot_id(), mine or 0, time.monotonic() - WAITING_S),
        )
        return bool(waiting)
