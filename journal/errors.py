"""Every exception of the journal, and the one place where SQLite's errors become them."""

# they say what is, as in the sentence "the lease is lost"

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Mapping


class JournalError(Exception):
    """Anything that a journal refuses or cannot do; ``path`` names the file."""

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = path
        super().__init__(message)


class JournalUnavailable(JournalError):
    """The file cannot be opened, read or written now. Nothing was recorded."""


class JournalCorrupt(JournalError):
    """The file is damaged. Nothing was recorded."""


class NotAJournal(JournalError):
    """The file is something else; it was left as it is."""


class NewerSchema(JournalError):
    """The file was written by a newer version; it was left as it is."""


class VersionConflict(JournalError):
    """The stream is not at the expected version: somebody else appended to it. Nothing was recorded."""

    def __init__(self, stream: str, expected: int, actual: int, *, path: str = "") -> None:
        self.stream, self.expected, self.actual = stream, expected, actual
        super().__init__(
            f"stream {stream!r} is at version {actual}, not {expected}: another writer appended to it. "
            f"Nothing was recorded; read the stream again before deciding.",
            path=path,
        )


class LeaseHeld(JournalError):
    """Another owner holds the stream and may be alive."""

    def __init__(self, stream: str, owner: Mapping[str, str | int], heartbeat_age_s: float, *, path: str = "") -> None:
        self.stream, self.owner, self.heartbeat_age_s = stream, dict(owner), heartbeat_age_s
        who = ", ".join(f"{key} {value}" for key, value in self.owner.items())
        super().__init__(
            f"stream {stream!r} is held by {who}, last heard of {heartbeat_age_s:.0f} s ago. "
            f"Nothing was taken; stop that owner, or try again when it has been silent for its time to live.",
            path=path,
        )


class LeaseLost(JournalError):
    """The lease was taken over or released. Nothing was recorded."""

    def __init__(self, stream: str, epoch: int, *, path: str = "") -> None:
        self.stream, self.epoch = stream, epoch
        super().__init__(
            f"the lease on stream {stream!r} (epoch {epoch}) is no longer ours: it was taken over or "
            f"released. Nothing was recorded; stop, the new owner goes on from the journal.",
            path=path,
        )


_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: "the disk or the quota is full",
    sqlite3.SQLITE_IOERR: "reading or writing failed (a full quota, or a failing disk)",
    sqlite3.SQLITE_BUSY: "another process kept it locked",
    sqlite3.SQLITE_LOCKED: "another connection kept it locked",
    sqlite3.SQLITE_PROTOCOL: "another process kept it locked",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_AUTH: "permission denied",
    sqlite3.SQLITE_NOMEM: "out of memory",
}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def translated(error: sqlite3.Error | OSError, path: str, doing: str) -> JournalError:
    """Return the journal's error for one of SQLite or of the system.

    Args:
        error: What was raised.
        path: The journal's file, for the message.
        doing: What was tried, as an infinitive: ``"append"``.
    """
    intro = f"{path}: could not {doing}"
    if isinstance(error, OSError):
        cause = _UNAVAILABLE[sqlite3.SQLITE_FULL] if error.errno in _FULL else error.strerror or str(error)
        return JournalUnavailable(f"{intro}: {cause}. Nothing was recorded.", path=path)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _UNAVAILABLE:
        return JournalUnavailable(
            f"{intro}: {_UNAVAILABLE[code]} ({error}). Nothing was recorded; the events before it are safe. "
            f"Remove the cause, then try again.",
            path=path,
        )
    if code == sqlite3.SQLITE_NOTADB:
        return NotAJournal(f"{intro}: it is not an SQLite file. It was left as it is.", path=path)
    if code == sqlite3.SQLITE_CORRUPT:
        return JournalCorrupt(
            f"{intro}: the file is damaged ({error}). Nothing was recorded; verify says what can still be "
            f"trusted, a backup has the rest.",
            path=path,
        )
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return JournalUnavailable(f"{intro}: the journal is closed. Nothing was recorded.", path=path)
    return JournalError(f"{intro}: {error}. Nothing was recorded.", path=path)


class Doing:
    """A context manager under which SQLite's errors become the journal's."""

    __slots__ = ("_doing", "_path")

    def __init__(self, path: str, doing: str) -> None:
        self._path, self._doing = path, doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise translated(error, self._path, self._doing) from error
