"""The journal through its public interface, beside the same rows in bare SQLite."""

import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from measure import Row, in_turns, progress

from journal import Journal, NewEvent, RecordedEvent

PAYLOAD = b'{"token":"ms-abcdefghijklmnopqrstuvwxyz","job_id":"123456","note":"' + b"x" * 51 + b'"}'
STATES = ("PENDING", "RUNNING", "COMPLETED")
EVENTS_PER_SUBJECT = 10
SIDE_BY_SIDE = 100
GROUP = 1000
SINGLES = 1000
LOOKUPS = 5000


class Latest:
    """The latest state of each subject, and how many subjects are in each: what runners ask all the time."""

    name = "bench"
    version = 1
    schema = """
    CREATE TABLE latest (subject TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE counts (state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TRIGGER latest_added AFTER INSERT ON latest BEGIN
      INSERT INTO counts VALUES (new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
    END;
    CREATE TRIGGER latest_moved AFTER UPDATE ON latest WHEN new.state <> old.state BEGIN
      UPDATE counts SET n = n - 1 WHERE state = old.state;
      INSERT INTO counts VALUES (new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
    END;
    """

    def apply(self, connection: sqlite3.Connection, events: list[RecordedEvent]) -> None:
        rows = [(event.subject, event.type) for event in events]
        sql = "INSERT INTO latest VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state"
        connection.executemany(sql, rows)


def subject(number: int) -> str:
    return f"bench/task-{number:06d}"


def new_events(first: int, amount: int) -> list[NewEvent]:
    """Return events as a run makes them: SIDE_BY_SIDE tasks at a time, each of them moving on in turn."""
    events = []
    for i in range(first, first + amount):
        block, within = divmod(i, SIDE_BY_SIDE * EVENTS_PER_SUBJECT)
        stage, task = divmod(within, SIDE_BY_SIDE)
        events.append(NewEvent(STATES[min(stage, 2)], subject(block * SIDE_BY_SIDE + task), PAYLOAD))
    return events


def rate(amount: int, do: Callable[[], None]) -> float:
    begin = time.perf_counter()
    do()
    return amount / (time.perf_counter() - begin)


class Bare:
    """A table of the same columns, with the same durability."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute(
            "CREATE TABLE events (position INTEGER PRIMARY KEY, stream TEXT, version INTEGER, subject TEXT, "
            "type TEXT, at INTEGER, data BLOB)"
        )
        self.versions = count(1)

    def append(self, events: list[NewEvent]) -> None:
        rows = [("bench", next(self.versions), e.subject, e.type, time.time_ns() // 1000, e.data) for e in events]
        self.connection.execute("BEGIN IMMEDIATE")
        sql = "INSERT INTO events (stream, version, subject, type, at, data) VALUES (?, ?, ?, ?, ?, ?)"
        self.connection.executemany(sql, rows)
        self.connection.execute("COMMIT")


def append_rates(place: Path, grouped: int, repeats: int) -> Iterator[Row]:
    bare = Bare(place / "bare.db")
    with Journal.open(place / "rates.db", projections=[Latest()]) as journal:
        singles = new_events(0, SINGLES)
        groups = [new_events(first, GROUP) for first in range(0, grouped, GROUP)]

        def one_by_one() -> None:
            for event in singles:
                journal.append("singles", [event])

        def in_groups() -> None:
            for events in groups:
                journal.append("groups", events)

        found = in_turns(
            {
                "bare, one a commit": lambda: rate(SINGLES, lambda: [bare.append([e]) for e in singles]),
                "one a commit": lambda: rate(SINGLES, one_by_one),
                "bare, grouped": lambda: rate(grouped, lambda: [bare.append(group) for group in groups]),
                "grouped": lambda: rate(grouped, in_groups),
            },
            repeats,
        )
        total = journal.position()
        journal.checkpoint()
    bare.connection.close()
    per_event = (place / "rates.db").stat().st_size / total - len(PAYLOAD)
    per_row = (place / "bare.db").stat().st_size / total - len(PAYLOAD)
    yield Row(
        "journal: one durable event a commit",
        *(found["one a commit"], "/s", found["bare, one a commit"], "bare sqlite3"),
        goal="5,000/s, better 7,000/s",
    )
    yield Row(
        f"journal: {GROUP:,} events a commit",
        *(found["grouped"], "/s", found["bare, grouped"], "bare executemany"),
        goal="80,000/s, better 110,000/s",
    )
    yield Row(
        f"journal: bytes an event beside {len(PAYLOAD)} of payload",
        per_event,
        " B",
        per_row,
        "bare sqlite3",
        goal="120 B",
    )


def many_events(place: Path, amount: int) -> Iterator[Row]:
    """Fill a journal and ask for the state of subjects by chance, and for the counts."""
    with Journal.open(place / "many.db", projections=[Latest()]) as journal:
        begin = time.perf_counter()
        for first in range(0, amount, 10 * GROUP):
            progress(f"filling: {first:,} of {amount:,} events")
            journal.append("bench", new_events(first, min(10 * GROUP, amount - first)))
        seconds = time.perf_counter() - begin
        chance = random.Random(1)
        subjects = [subject(chance.randrange(amount // EVENTS_PER_SUBJECT)) for _ in range(LOOKUPS)]
        latest = "SELECT state FROM latest WHERE subject = ?"
        states = timed(journal.query, [(latest, (name,)) for name in subjects])
        histories = timed(lambda name: list(journal.read_subject(name)), [(name,) for name in subjects[:1000]])
        counts = timed(journal.query, [("SELECT state, n FROM counts",)] * 1000)
    among = f"among {amount:,} events"
    yield Row(f"journal with projection: appending {amount:,} events", amount / seconds, "/s")
    yield Row(f"latest state of one subject {among}, p50", percentile(states, 50), " ms")
    yield Row(f"latest state of one subject {among}, p99", percentile(states, 99), " ms", goal="below 1 ms")
    yield Row(f"all {EVENTS_PER_SUBJECT} events of one subject {among}, p50", percentile(histories, 50), " ms")
    yield Row(f"counts by state {among}, p50", percentile(counts, 50), " ms", goal="below 1 ms")


def timed(ask: Callable[..., object], questions: list[tuple[object, ...]]) -> list[float]:
    """Return the milliseconds each question took."""
    taken = []
    for question in questions:
        begin = time.perf_counter()
        ask(*question)
        taken.append(1000 * (time.perf_counter() - begin))
    return taken


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
