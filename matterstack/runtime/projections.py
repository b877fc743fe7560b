"""Runs, tasks and attempts as tables of the journal: the fold of the events, kept in the append's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from journal import RecordedEvent
from matterstack.core import events as ev
from matterstack.core.usage import Usage
from matterstack.runtime import tallies, task_rows, views

REQUESTS: Final = "/requests"  # ends the name of the stream in which other processes ask a run for something

_USAGE: Final = ", ".join(Usage.__struct_fields__)

_SCHEMA: Final = f"""
CREATE TABLE runs (
  run TEXT PRIMARY KEY, key TEXT NOT NULL, name TEXT NOT NULL, profile TEXT NOT NULL,
  profiles TEXT NOT NULL DEFAULT '{{}}', version TEXT NOT NULL,
  created_at INTEGER NOT NULL, host TEXT, pid INTEGER, boot_id TEXT, started_at INTEGER, stopped_at INTEGER,
  why TEXT NOT NULL DEFAULT '', requests_taken INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE contacts (
  run TEXT NOT NULL, profile TEXT NOT NULL, lost_at INTEGER NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (run, profile)
) WITHOUT ROWID;
CREATE TABLE tasks (
  subject TEXT PRIMARY KEY, run TEXT NOT NULL, task TEXT NOT NULL, ord INTEGER NOT NULL, state TEXT NOT NULL,
  spec_hash TEXT NOT NULL, spec_position INTEGER NOT NULL, dropped INTEGER NOT NULL DEFAULT 0,
  requested INTEGER NOT NULL DEFAULT 0, in_doubt INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0,
  token TEXT NOT NULL DEFAULT '', boot TEXT NOT NULL DEFAULT '', gen INTEGER NOT NULL DEFAULT 0,
  array TEXT NOT NULL DEFAULT '', idx INTEGER, profile TEXT NOT NULL DEFAULT '', job_id TEXT,
  reason TEXT NOT NULL DEFAULT '', exit_code INTEGER, signal INTEGER,
  detail TEXT NOT NULL DEFAULT '', word TEXT NOT NULL DEFAULT '', requested_at INTEGER, submitted_at INTEGER,
  started_at REAL, ended_at REAL, recorded_at INTEGER, node TEXT NOT NULL DEFAULT '', pid INTEGER,
  cancel_requested INTEGER NOT NULL DEFAULT 0, cpu_s REAL, stalled TEXT NOT NULL DEFAULT '', stalled_at REAL,
  changed_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tasks_by_run ON tasks (run, ord);
CREATE INDEX tasks_failed ON tasks (run) WHERE state = 'FAILED';
CREATE TABLE past_attempts AS SELECT subject, run, task, state, {task_rows.ATTEMPT} FROM tasks;
CREATE UNIQUE INDEX past_attempts_key ON past_attempts (subject, attempt);
CREATE VIEW attempts AS
  SELECT subject, run, task, state, {task_rows.ATTEMPT} FROM past_attempts
  UNION ALL SELECT subject, run, task, state, {task_rows.ATTEMPT} FROM tasks WHERE token <> '';
{tallies.SCHEMA}CREATE TABLE notices (
  run TEXT NOT NULL, due INTEGER NOT NULL, data TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
  state TEXT NOT NULL DEFAULT 'owed', detail TEXT NOT NULL DEFAULT '', PRIMARY KEY (run, due)
) WITHOUT ROWID;
CREATE INDEX notices_owed ON notices (run) WHERE state = 'owed';
CREATE TABLE usage_rows (
  subject TEXT NOT NULL, attempt INTEGER NOT NULL, run TEXT NOT NULL, recorded_at INTEGER NOT NULL,
  cores INTEGER NOT NULL, asked_memory INTEGER, limit_s REAL, {_USAGE}, PRIMARY KEY (subject, attempt)
) WITHOUT ROWID;
CREATE TABLE recorded_files (
  subject TEXT NOT NULL, attempt INTEGER NOT NULL, run TEXT NOT NULL, recorded_at INTEGER NOT NULL, files TEXT NOT NULL,
  PRIMARY KEY (subject, attempt)
) WITHOUT ROWID;
{views.SCHEMA}"""


class TaskTables:
    """The projection. An event that does not fit its task's state is refused, and the append with it."""

    name = "matterstack"
    version = 10
    schema = _SCHEMA

    def apply(self, connection: sqlite3.Connection, events: Sequence[RecordedEvent]) -> None:
        """Fold events into the tables."""
        of_tasks: list[RecordedEvent] = []
        for record in events:
            kind = record.type
            if kind in ev.TYPES and not record.stream.endswith(REQUESTS):
                if kind in _RUN_EVENTS:
                    _RUN_EVENTS[kind](connection, record, ev.decode(kind, record.data))
                else:
                    of_tasks.append(record)
        task_rows.fold(connection, of_tasks)


def _run_created(connection: sqlite3.Connection, record: RecordedEvent, event: Any) -> None:
    connection.execute(
        "INSERT INTO runs (run, key, name, profile, version, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (record.stream, event.key, event.name, _json(event.profile), event.version, record.at),
    )


def _run_started(connection: sqlite3.Connection, record: RecordedEvent, event: Any) -> None:
    connection.execute("DELETE FROM contacts WHERE run = ?", (record.stream,))
    connection.execute(
        "UPDATE runs SET host = ?, pid = ?, boot_id = ?, version = ?, profile = ?, profiles = ?, started_at = ?,"
        " stopped_at = NULL, why = '' WHERE run = ?",
        (
            event.host,
            event.pid,
            event.boot_id,
            event.version,
            _json(event.profile),
            _json(event.profiles),
            record.at,
            record.stream,
        ),
    )


def _contact_lost(connection: sqlite3.Connection, record: RecordedEvent, event: Any) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO contacts VALUES (?, ?, ?, ?)", (record.stream, event.profile, record.at, event.detail)
    )


def _contact_restored(connection: sqlite3.Connection, record: RecordedEvent, event: Any) -> None:
    connection.execute("DELETE FROM contacts WHERE run = ? AND profile = ?", (record.stream, event.profile))


def _run_stopped(connection: sqlite3.Connection, record: RecordedEvent, event: Any) -> None:
    connection.execute("DELETE FROM contacts WHERE run = ?", (record.stream,))
    connection.execute("UPDATE runs SET stopped_at = ?, why = ? WHERE run = ?", (record.at, event.why, record.stream))


def _notice_due(connection: sqlite3.Connection, record: RecordedEvent, event: Any) -> None:
    connection.execute(
        "INSERT INTO notices (run, due, data) VALUES (?, ?, ?)", (record.stream, record.version, _json(event))
    )


def _notice_tried(connection: sqlite3.Connection, record: RecordedEvent, event: Any) -> None:
    failed = isinstance(event, ev.NotificationFailed)
    state = ("given up" if event.given_up else "owed") if failed else "delivered"
    connection.execute(
        "UPDATE notices SET state = ?, detail = ?, tries = tries + 1 WHERE run = ? AND due = ?",
        (state, event.detail if failed else "", record.stream, event.due),
    )


def _requests_taken(connection: sqlite3.Connection, record: RecordedEvent, event: Any) -> None:
    connection.execute("UPDATE runs SET requests_taken = ? WHERE run = ?", (event.version, record.stream))


def _ignored(_connection: sqlite3.Connection, _record: RecordedEvent, _event: Any) -> None:
    return None


_RUN_EVENTS: Final[dict[str, Callable[[sqlite3.Connection, RecordedEvent, Any], None]]] = {
    "RunCreated": _run_created,
    "RunStarted": _run_started,
    "RunStopped": _run_stopped,
    "ContactLost": _contact_lost,
    "ContactRestored": _contact_restored,
    "NotificationDue": _notice_due,
    "NotificationDelivered": _notice_tried,
    "NotificationFailed": _notice_tried,
    "RequestsTaken": _requests_taken,
    "RetryRequested": _ignored,
}


def _json(value: object) -> str:
    return ev.encode(value).decode()
