"""Reading events by pieces: each is a query of its own, so that no reader keeps the file busy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from matterstack.history.rows import Query

CHUNK: Final = 20_000


def stream_of(query: Query, run: str) -> tuple[int, int]:
    """Return key and newest version of the run's stream."""
    ((key, version),) = query("SELECT id, version FROM streams WHERE name = ?", (run,))
    return key, version


def version_at(query: Query, stream: int, newest: int, at: int) -> int:
    """Return the version of a stream's last event up to a moment (µs since 1970), 0 for none.

    By halving: events stand in the order of their times, but for a clock that was set back between two of them.
    """
    low, high = 0, newest
    while low < high:
        middle = (low + high + 1) // 2
        ((found,),) = query("SELECT at FROM events WHERE stream = ? AND version = ?", (stream, middle))
        low, high = (middle, high) if found <= at else (low, middle - 1)
    return low


def position_at(query: Query, at: int) -> int:
    """Return the position of the last event of all up to a moment, as `version_at` does."""
    ((high,),) = query("SELECT coalesce(max(position), 0) FROM events", ())
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        ((found,),) = query("SELECT at FROM events WHERE position = ?", (middle,))
        low, high = (middle, high) if found <= at else (low, middle - 1)
    return low


def pieces(
    query: Query, sql: str, key: str, params: list[Any], after: int, until: int
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the records of a SELECT from ``after`` (exclusive) to ``until``, by ``key``, which is its first column."""
    while after < until:
        found = query(f"{sql} AND {key} > ? AND {key} <= ? ORDER BY {key} LIMIT {CHUNK}", [*params, after, until])
        if found:
            yield found
        if len(found) < CHUNK:
            return
        after = found[-1][0]
