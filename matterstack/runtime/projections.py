"""Runs, tasks and attempts as tables of the journal: the fold of the events, kept in the append's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Final

from msgspec.structs import astuple

from journal import RecordedEvent
from matterstack.core import events as ev
from matterstack.core.machine import SAME, TRANSITIONS
from matterstack.core.usage import Usage
from matterstack.errors import IllegalTransition
from matterstack.runtime import views

REQUESTS: Final = "/requests"  # ends the name of the stream in which other processes ask a run for something

_ATTEMPT: Final = (
    "attempt, token, gen, array, idx, profile, job_id, reason, exit_code, signal, detail, word, requested_at,"
    " submitted_at, started_at, ended_at, recorded_at, node, pid, cancel_requested"
)

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
  cancel_requested INTEGER NOT NULL DEFAULT 0, stalled TEXT NOT NULL DEFAULT '', stalled_at REAL,
  changed_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tasks_by_run ON tasks (run, ord);
CREATE INDEX tasks_failed ON tasks (run) WHERE state = 'FAILED';
CREATE TABLE past_attempts AS SELECT subject, run, task, state, {_ATTEMPT} FROM tasks;
CREATE UNIQUE INDEX past_attempts_key ON past_attempts (subject, attempt);
CREATE VIEW attempts AS
  SELECT subject, run, task, state, {_ATTEMPT} FROM past_attempts
  UNION ALL SELECT subject, run, task, state, {_ATTEMPT} FROM tasks WHERE token <> '';
CREATE TABLE counts (
  run TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (run, state)
) WITHOUT ROWID;
CREATE TABLE moves (
  run TEXT NOT NULL, second INTEGER NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (run, second, before, after)
) WITHOUT ROWID;
CREATE TRIGGER tasks_added AFTER INSERT ON tasks BEGIN
  INSERT INTO counts VALUES (new.run, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
  INSERT INTO moves VALUES (new.run, new.changed_at / 1000000, '', new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER tasks_moved AFTER UPDATE OF state, dropped ON tasks
WHEN new.state <> old.state OR new.dropped <> old.dropped BEGIN
  UPDATE counts SET n = n - (old.dropped = 0) WHERE run = old.run AND state = old.state;
  INSERT INTO counts VALUES (new.run, new.state, new.dropped = 0)
    ON CONFLICT DO UPDATE SET n = n + (new.dropped = 0);
  INSERT INTO moves VALUES (new.run, new.changed_at / 1000000,
      iif(old.dropped, '', old.state), iif(new.dropped, '', new.state), 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TABLE usage (
  run TEXT NOT NULL, profile TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, run_us INTEGER NOT NULL,
  PRIMARY KEY (run, profile, state)
) WITHOUT ROWID;
CREATE TRIGGER tasks_ended AFTER UPDATE OF state ON tasks
WHEN new.state IN ('COMPLETED', 'FAILED') AND old.state <> new.state AND new.token <> '' BEGIN
  INSERT INTO usage VALUES (new.run, new.profile, new.state, 1,
      CAST(round(coalesce(new.ended_at - new.started_at, 0) * 1e6) AS INTEGER))
    ON CONFLICT DO UPDATE SET attempts = attempts + 1, run_us = run_us + excluded.run_us;
END;
CREATE TABLE usage_rows (
  subject TEXT NOT NULL, attempt INTEGER NOT NULL, run TEXT NOT NULL, recorded_at INTEGER NOT NULL,
  cores INTEGER NOT NULL, asked_memory INTEGER, limit_s REAL, {_USAGE}, PRIMARY KEY (subject, attempt)
) WITHOUT ROWID;
{views.SCHEMA}"""

_NO_ATTEMPT: Final = (
    "requested = 0, in_doubt = 0, token = '', boot = '', gen = 0, array = '', idx = NULL, profile = '',"
    " job_id = NULL, reason = '', exit_code = NULL, signal = NULL, detail = '', word = '',"
    " requested_at = NULL, submitted_at = NULL, started_at = NULL, ended_at = NULL, recorded_at = NULL,"
    " node = '', pid = NULL, cancel_requested = 0, stalled = '', stalled_at = NULL"
)
_ARCHIVE: Final = (
    f"INSERT INTO past_attempts SELECT subject, run, task, state, {_ATTEMPT} FROM tasks"  # constants
    " WHERE subject = ? AND token <> ''"
)

_PROFILE_AT: Final = "profile = ?, requested_at = ?"

_Values = Callable[[Any, RecordedEvent], tuple[object, ...]]

# By event type: what it sets on the task's row, and the values for it.
_UPDATES: Final[dict[str, tuple[str, _Values]]] = {
    "SubmitRequested": (
        f"{_NO_ATTEMPT}, requested = 1, attempt = ?, token = ?, boot = ?, gen = ?, array = ?, idx = ?, {_PROFILE_AT}",
        lambda e, r: (e.attempt, e.token, e.boot, e.gen, e.array, e.index, e.profile, r.at),
    ),
    "JobSubmitted": ("job_id = ?, submitted_at = ?, in_doubt = 0", lambda e, r: (e.job_id, r.at)),
    "SubmitUnknown": ("in_doubt = 1, detail = ?", lambda e, _: (e.detail,)),
    "SubmitAbsent": (
        "requested = 0, in_doubt = 0, job_id = NULL, stalled = '', stalled_at = NULL",
        lambda _e, _r: (),
    ),
    "SubmitRefused": ("reason = ?, detail = ?, recorded_at = ?", lambda e, r: (e.reason, e.detail, r.at)),
    "JobStalled": ("stalled = ?, stalled_at = ?", lambda e, _: (e.reason, e.since)),
    "JobStarted": (
        "started_at = ?, node = ?, pid = ?, stalled = '', stalled_at = NULL",
        lambda e, _: (e.started_at, e.node, e.pid),
    ),
    "JobRequeued": ("started_at = NULL", lambda _e, _r: ()),
    "CancelRequested": ("cancel_requested = 1", lambda _e, _r: ()),
    "TaskCompleted": (
        "ended_at = ?, exit_code = ?, detail = ?, recorded_at = ?",
        lambda e, r: (e.ended_at, e.exit_code, e.detail, r.at),
    ),
    "TaskFailed": (
        "reason = ?, ended_at = ?, exit_code = ?, signal = ?, detail = ?, word = ?, recorded_at = ?",
        lambda e, r: (e.reason, e.ended_at, e.exit_code, e.signal, e.detail, e.word, r.at),
    ),
    "TaskRetried": (_NO_ATTEMPT, lambda _e, _r: ()),
    "TaskChanged": (
        f"{_NO_ATTEMPT}, ord = ?, spec_hash = ?, spec_position = ?, dropped = 0",
        lambda e, r: (e.order, e.spec_hash, r.position),
    ),
    "TaskDropped": ("dropped = 1", lambda _e, _r: ()),
}


@cache
def _statement(kind: str) -> str:
    """Return the UPDATE for an event type; the transition table decides to which rows it may apply."""
    targets = {target for event, _, target in TRANSITIONS if event == kind}
    sources = ", ".join(f"'{s}'" for event, froms, _ in TRANSITIONS if event == kind for s in froms)
    (target,) = targets
    state = "" if target is SAME else f"state = '{target}', "
    return f"UPDATE tasks SET {state}{_UPDATES[kind][0]}, changed_at = ? WHERE subject = ? AND state IN ({sources})"


class TaskTables:
    """The projection. An event that does not fit its task's state is refused, and the append with it."""

    name = "matterstack"
    version = 6
    schema = _SCHEMA

    def apply(self, connection: sqlite3.Connection, events: Sequence[RecordedEvent]) -> None:
        """Fold events into the tables."""
        for kind, group in groupby(events, key=lambda event: event.type):
            records = [record for record in group if not record.stream.endswith(REQUESTS)]
            if not records or kind not in ev.TYPES:
                continue
            if kind == "TaskAdded":
                connection.executemany(_ADD, map(_added, records))
            elif kind == "UsageRecorded":
                connection.executemany(_USED, map(_used, records))
            elif kind in _UPDATES:
                _update(connection, kind, records)
            else:
                for record in records:
                    _RUN_EVENTS[kind](connection, record, ev.decode(kind, record.data))


_ADD: Final = (
    "INSERT INTO tasks (subject, run, task, ord, state, spec_hash, spec_position, changed_at)"
    " VALUES (?, ?, ?, ?, 'PENDING', ?, ?, ?)"
)


def _added(record: RecordedEvent) -> tuple[object, ...]:
    event = ev.decode("TaskAdded", record.data)
    assert isinstance(event, ev.TaskAdded)
    task = record.subject.partition("/")[2]
    return record.subject, record.stream, task, event.order, event.spec_hash, record.position, record.at


# What was recorded first counts; a second record of an attempt would be a mistake that must not end a run.
_USED: Final = f"INSERT OR IGNORE INTO usage_rows VALUES ({', '.join('?' * (7 + len(Usage.__struct_fields__)))})"


def _used(record: RecordedEvent) -> tuple[object, ...]:
    event = ev.decode("UsageRecorded", record.data)
    assert isinstance(event, ev.UsageRecorded)
    asked = (event.cores, event.memory, event.limit_s)
    return record.subject, event.attempt, record.stream, record.at, *asked, *astuple(event.usage)


def _update(connection: sqlite3.Connection, kind: str, records: list[RecordedEvent]) -> None:
    values = _UPDATES[kind][1]
    # A task may have two events of a type in a row only across attempts; each round has it once.
    for batch in _rounds(records):
        if kind in ("TaskRetried", "TaskChanged"):
            connection.executemany(_ARCHIVE, [(record.subject,) for record in batch])
        rows = [(*values(ev.decode(kind, record.data), record), record.at, record.subject) for record in batch]
        if connection.executemany(_statement(kind), rows).rowcount != len(rows):
            raise _misfit(connection, kind, batch)


def _rounds(records: list[RecordedEvent]) -> Iterator[list[RecordedEvent]]:
    if len({record.subject for record in records}) == len(records):
        yield records
    else:
        yield from ([record] for record in records)


def _misfit(connection: sqlite3.Connection, kind: str, batch: list[RecordedEvent]) -> IllegalTransition:
    for record in batch:
        row = connection.execute("SELECT task, state FROM tasks WHERE subject = ?", (record.subject,)).fetchone()
        if row is None or f"'{row[1]}'" not in _statement(kind).rpartition("state IN")[2]:
            return IllegalTransition(record.subject, kind, row[1] if row else "not in the run")
    return IllegalTransition(batch[0].subject, kind, "in another state")


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
    "RequestsTaken": _requests_taken,
    "RetryRequested": _ignored,
}


def _json(value: object) -> str:
    return ev.encode(value).decode()
