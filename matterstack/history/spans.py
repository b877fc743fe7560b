"""Durations and numbers: waits, retries, use of profiles, states over time."""

from __future__ import annotations

from typing import Final

from matterstack.core.machine import State
from matterstack.history.filters import Where
from matterstack.history.rows import CountRow, Query, RetryRow, Rows, UsageRow, made, moment
from matterstack.runtime import views

WAITS: Final = f"SELECT run, task, attempt, state, profile, node, {views.WAITS} FROM attempts WHERE "
_RETRIES: Final = (
    "SELECT a.run, a.task, a.attempt, a.reason, a.exit_code, a.signal, a.detail, e.at, json_extract(e.data, '$.why')"
    f" FROM (SELECT * FROM past_attempts WHERE {{where}}) a {views.RETRY} ORDER BY e.position"
)


def retries(query: Query, where: Where) -> Rows[RetryRow]:
    """Return the failed attempts that were followed by another try, in the order of these."""
    where.add("state = 'FAILED'")
    records = query(_RETRIES.format(where=where), where.params)
    return made(RetryRow, [(*record[:-1], record[-1] or "") for record in records])


def usage(query: Query, run: str | None) -> Rows[UsageRow]:
    """Return the attempts that ended and how long they ran, by profile and state."""
    where = Where()
    if run is not None:
        where.add("run = ?", run)
    sql = f"SELECT run, profile, state, attempts, run_us / 1e6 FROM usage WHERE {where} ORDER BY run, profile, state"
    return made(UsageRow, query(sql, where.params))


def counts_over_time(query: Query, run: str, step_s: int) -> Rows[CountRow]:
    """Return the number of tasks in each state at every step from the first change to after the last."""
    moves = query(
        "SELECT second / ?, before, after, sum(n) FROM moves WHERE run = ? GROUP BY 1, 2, 3 ORDER BY 1", (step_s, run)
    )
    by_step: dict[int, list[tuple[str, str, int]]] = {}
    for step, before, after, n in moves:
        by_step.setdefault(step, []).append((before, after, n))
    counts: dict[str, int] = dict.fromkeys([*State, ""], 0)  # "": not in the run
    rows = Rows(CountRow)
    for step in range(min(by_step, default=0), max(by_step, default=-1) + 1):
        for before, after, n in by_step.get(step, ()):
            counts[before] -= n
            counts[after] += n
        numbers = [counts[state] for state in State]
        rows.append(CountRow(moment((step + 1) * step_s * 1_000_000), *numbers))
    return rows
