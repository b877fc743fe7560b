"""The tables, as migrations; a new file takes a short way to the same result.

``sqlite_utils`` costs some 0.1 s to import. A new file therefore executes the same statements with the
standard library and writes what ``sqlite_utils.Migrations`` would have recorded; a current file needs
neither. Only a file of an older version pays. A test holds both ways equal, byte by byte.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import UTC, datetime

from .errors import NewerSchema, NotAJournal

APPLICATION_ID = 0x4A524E4C  # "JRNL"
MIGRATION_SET = "journal"

# No REFERENCES in events: the store assigns the keys itself in the same transaction, SQLite's check of
# each row costs 15 % of the speed, and verify finds dangling keys.
EVENTS = (
    """CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)""",
    """CREATE TABLE streams (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL, position INTEGER NOT NULL, hash BLOB NOT NULL)""",
    """CREATE TABLE subjects (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)""",
    """CREATE TABLE types (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)""",
    """CREATE TABLE events (
        position INTEGER PRIMARY KEY, stream INTEGER NOT NULL, version INTEGER NOT NULL,
        subject INTEGER NOT NULL, type INTEGER NOT NULL, at INTEGER NOT NULL,
        data TEXT NOT NULL, hash BLOB NOT NULL)""",
    """CREATE UNIQUE INDEX events_by_version ON events (stream, version)""",
    # The position follows in every index entry by itself: it is the rowid.
    """CREATE INDEX events_by_subject ON events (subject, stream)""",
    """CREATE TRIGGER events_are_not_updated BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never changed'); END""",
    """CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END""",
    """CREATE TABLE projections (
        name TEXT PRIMARY KEY, version INTEGER NOT NULL, position INTEGER NOT NULL, tables TEXT NOT NULL)""",
    """CREATE TABLE leases (
        stream TEXT PRIMARY KEY, epoch INTEGER NOT NULL, owner TEXT,
        heartbeat INTEGER NOT NULL, ttl INTEGER NOT NULL)""",
    """CREATE VIEW event_log AS
        SELECT e.position, s.name AS stream, e.version, u.name AS subject, t.name AS type,
            strftime('%Y-%m-%dT%H:%M:%S', e.at / 1000000, 'unixepoch')
                || printf('.%06dZ', e.at % 1000000) AS time,
            e.data, lower(hex(e.hash)) AS hash
        FROM events AS e
        LEFT JOIN streams AS s ON s.id = e.stream
        LEFT JOIN subjects AS u ON u.id = e.subject
        LEFT JOIN types AS t ON t.id = e.type""",
)

# Append a step to change the schema; never edit one that was released.
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (("events", EVENTS),)

# What sqlite_utils.Migrations keeps its book in, as it writes it.
MIGRATIONS_TABLE = (
    """\
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
)""",
    """\
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name")""",
)


def stored_version(connection: sqlite3.Connection, path: str) -> int:
    """Return the schema version of a file, 0 for an empty one.

    Raises:
        NotAJournal: The SQLite file belongs to something else.
        NewerSchema: A newer version wrote it.
    """
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None and not application:
            return 0
        raise NotAJournal(
            f"{path}: this SQLite file is not a journal. It was left as it is; choose another path.",
            path=path,
        )
    if version > len(STEPS):
        raise NewerSchema(
            f"{path}: written by a newer version (schema {version}, this one knows {len(STEPS)}). It was "
            f"left as it is; update this program.",
            path=path,
        )
    return version


def create(connection: sqlite3.Connection) -> None:
    """Write the current schema into an empty file. The caller holds the transaction."""
    for statement in MIGRATIONS_TABLE:
        connection.execute(statement)
    for name, statements in STEPS:
        for statement in statements:
            connection.execute(statement)
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
            (MIGRATION_SET, name, str(datetime.now(UTC))),
        )
    _stamp(connection)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an older or empty file to the current schema. The caller holds the transaction."""
    from sqlite_utils import Database, Migrations  # 0.1 s that only old files pay

    migrations = Migrations(MIGRATION_SET)
    for name, statements in STEPS:

        def apply(db: Database, statements: tuple[str, ...] = statements) -> None:
            for statement in statements:
                db.execute(statement)

        migrations(name=name)(apply)
    migrations.apply(Database(connection, recursive_triggers=False, execute_plugins=False))
    _stamp(connection)


def _stamp(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('id', ?)", (os.urandom(16).hex(),))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(STEPS)}")
