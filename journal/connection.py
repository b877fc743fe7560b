"""Opening the file: checks first, then the settings that durability rests on."""

# pathlib costs start-up time

from __future__ import annotations

import os
import sqlite3
import time

from . import filesystem, schema
from .errors import JournalUnavailable, translated

BUSY_TIMEOUT_S = 10.0
WALK_CACHE_KB = 65_536


def connect(path: str, *, create: bool, read_only: bool) -> sqlite3.Connection:
    """Return a connection in autocommit mode to a journal of the current schema.

    Args:
        path: Absolute path of the file.
        create: Make the file and its directories where they are missing.
        read_only: Write nothing, not even the schema.

    Raises:
        JournalError: One of its kinds, see ``journal.errors``.
    """
    _check_place(path, create=create and not read_only, read_only=read_only)
    try:
        if read_only:
            return _checked_read_only(path)
        filesystem.make_directory(os.path.dirname(path))
        connection = raw(path, "rwc" if create else "rw")
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise translated(error, path, "open it") from error
    return connection


def raw(path: str, mode: str) -> sqlite3.Connection:
    """Return an unprepared connection; ``mode`` is SQLite's: ro, rw, rwc, or ``ro&immutable=1``."""
    return sqlite3.connect(
        _uri(path, mode),
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_S,
        cached_statements=256,
    )


def _uri(path: str, mode: str) -> str:
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file://{quoted}?mode={mode}"


def _check_place(path: str, *, create: bool, read_only: bool) -> None:
    if os.path.isdir(path):
        raise JournalUnavailable(f"{path}: is a directory. Give the path of a file in it.", path=path)
    if not os.path.exists(path):
        if not create:
            raise JournalUnavailable(f"{path}: there is no journal here. Nothing was created.", path=path)
    elif not read_only and not os.access(path, os.W_OK):
        raise JournalUnavailable(
            f"{path}: the file is read-only for this user. Open it read-only, or change its mode.", path=path
        )
    directory = os.path.dirname(path)
    if not read_only and os.path.isdir(directory) and not os.access(directory, os.W_OK | os.X_OK):
        raise JournalUnavailable(
            f"{path}: its directory is read-only for this user, and SQLite writes files beside the journal. "
            f"Open it read-only, or change the mode of {directory}.",
            path=path,
        )


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    version = _schema_version(connection, path)
    network = filesystem.network_type(path)
    if network:
        _settle_on_network(path, network)
    _choose_log(connection, "DELETE" if network else "WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    if version < len(schema.STEPS):
        _write_schema(connection, path)
        filesystem.sync_directory(os.path.dirname(path))


def _choose_log(connection: sqlite3.Connection, mode: str) -> None:
    # SQLite does not wait by itself when two processes change the mode of a new file at once.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def _schema_version(connection: sqlite3.Connection, path: str) -> int:
    connection.execute("BEGIN")  # one snapshot: another process may be creating the file just now
    try:
        return schema.stored_version(connection, path)
    finally:
        connection.execute("ROLLBACK")


def _write_schema(connection: sqlite3.Connection, path: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = schema.stored_version(connection, path)  # another process may have been faster
        if version == 0:
            schema.create(connection)
        elif version < len(schema.STEPS):
            schema.migrate(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _settle_on_network(path: str, kind: str) -> None:
    import warnings

    directory = os.path.dirname(path)
    if not filesystem.locks_work(directory):
        raise JournalUnavailable(
            f"{path}: file locks do not work on this {kind} file system, two writers could destroy the "
            f"journal. Nothing was recorded; put it on a local disk.",
            path=path,
        )
    warnings.warn(
        f"{path} lies on a network file system ({kind}): a rollback journal is used instead of WAL, which "
        f"is slower. All its writers must lock through this file system; a local disk is better.",
        stacklevel=2,
    )


def open_read_only(path: str) -> sqlite3.Connection:
    """Return a connection that cannot write, also to a file in a directory that we may not write."""
    connection = raw(path, "ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        # SQLite cannot make its -shm there; without a -wal no writer has the file open.
        if os.path.exists(f"{path}-wal"):
            raise
        connection = raw(path, "ro&immutable=1")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def open_beside_memory(path: str) -> sqlite3.Connection:
    """Return a connection to an empty database in memory, with the file as ``stored``, which it cannot write.

    The cache of the file is for one walk over a large journal: what is looked up for every event stays in it.
    """
    open_read_only(path).close()  # raises what is to be raised
    connection = sqlite3.connect(":memory:", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    try:
        try:
            connection.execute("ATTACH ? AS stored", (_uri(path, "ro"),))
            connection.execute("SELECT 1 FROM stored.sqlite_master").fetchone()
        except sqlite3.OperationalError:
            if os.path.exists(f"{path}-wal"):
                raise
            if any(name == "stored" for _, name, _ in connection.execute("PRAGMA database_list")):
                connection.execute("DETACH stored")
            connection.execute("ATTACH ? AS stored", (_uri(path, "ro&immutable=1"),))
        connection.execute(f"PRAGMA stored.cache_size = -{WALK_CACHE_KB}")
    except BaseException:
        connection.close()
        raise
    return connection


def _checked_read_only(path: str) -> sqlite3.Connection:
    connection = open_read_only(path)
    try:
        version = _schema_version(connection, path)
    except BaseException:
        connection.close()
        raise
    if version < len(schema.STEPS):
        connection.close()
        raise JournalUnavailable(
            f"{path}: schema {version or 'missing'}, this program reads {len(schema.STEPS)}. Nothing was "
            f"changed; open it once for writing to bring it up to date.",
            path=path,
        )
    return connection
