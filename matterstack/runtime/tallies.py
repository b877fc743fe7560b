"""How many tasks are in each state, when they came there and what they used: counted beside the tables of tasks.

Counted here for a whole fold, not by triggers for every row: those took half of the time of a rebuild.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from journal import RecordedEvent
from matterstack.core.machine import State

SCHEMA: Final = """
CREATE TABLE counts (
  run TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (run, state)
) WITHOUT ROWID;
CREATE TABLE moves (
  run TEXT NOT NULL, second INTEGER NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, n INTEGER NOT NULL,
  PRIMARY KEY (run, second, before, after)
) WITHOUT ROWID;
CREATE TABLE usage (
  run TEXT NOT NULL, profile TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, run_us INTEGER NOT NULL,
  PRIMARY KEY (run, profile, state)
) WITHOUT ROWID;
"""

_COUNT: Final = "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"
_MOVE: Final = "INSERT INTO moves VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"
_USE: Final = (
    "INSERT INTO usage VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts, run_us = run_us + excluded.run_us"
)
_LONGEST_S: Final = 1e9  # what a broken clock says is no run time, and must not overflow a sum
_ENDED: Final = frozenset({State.COMPLETED.value, State.FAILED.value})


class Standing(NamedTuple):
    """What of a task's row decides how it counts; ``token`` is empty where no attempt was requested."""

    run: str
    state: str
    dropped: bool
    profile: str = ""
    token: str = ""
    started_at: float | None = None


class Tallies:
    """The changes that one fold makes to the counts, written once at its end."""

    def __init__(self) -> None:
        self._moves: dict[tuple[str, int, str, str], int] = {}
        self._uses: dict[tuple[str, str, str], list[int]] = {}

    def added(self, record: RecordedEvent) -> None:
        """Count a task that the tables did not have."""
        self._move(record, record.stream, "", State.PENDING.value)

    def moved(
        self, task: Standing, records: Sequence[RecordedEvent], events: Sequence[Any], ends: Sequence[str]
    ) -> None:
        """Count what a task's events change, in their order; ``ends`` are the states they lead to."""
        run, state, dropped, profile, token, started_at = task
        for record, event, end in zip(records, events, ends, strict=True):
            gone = dropped
            match record.type:
                case "SubmitRequested":
                    profile, token, started_at = event.profile, event.token, None
                case "JobStarted":
                    started_at = event.started_at
                case "JobRequeued":
                    started_at = None
                case "TaskRetried":
                    profile, token, started_at = "", "", None
                case "TaskChanged":
                    profile, token, started_at, gone = "", "", None, False
                case "TaskDropped":
                    gone = True
            if end == state and gone == dropped:
                continue
            self._move(record, run, "" if dropped else state, "" if gone else end)
            if token and end != state and end in _ENDED:
                self._use(run, profile, end, _span_us(started_at, getattr(event, "ended_at", None)))
            state, dropped = end, gone

    def _move(self, record: RecordedEvent, run: str, before: str, after: str) -> None:
        key = (run, record.at // 1_000_000, before, after)
        self._moves[key] = self._moves.get(key, 0) + 1

    def _use(self, run: str, profile: str, state: str, span_us: int) -> None:
        use = self._uses.setdefault((run, profile, state), [0, 0])
        use[0] += 1
        use[1] += span_us

    def write(self, connection: sqlite3.Connection) -> None:
        """Add it all to the tables."""
        counts: dict[tuple[str, str], int] = {}
        for (run, _, before, after), n in self._moves.items():
            for state, change in ((before, -n), (after, n)):
                if state:
                    counts[run, state] = counts.get((run, state), 0) + change
        connection.executemany(_COUNT, [(*key, n) for key, n in counts.items()])
        connection.executemany(_MOVE, [(*key, n) for key, n in self._moves.items()])
        connection.executemany(_USE, [(*key, *use) for key, use in self._uses.items()])


def _span_us(start: float | None, end: float | None) -> int:
    if start is None or end is None:
        return 0
    return round(max(-_LONGEST_S, min(end - start, _LONGEST_S)) * 1e6)
