"""Attempts as the journal's tables have them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from journal import Journal
from matterstack.core.attempt import Attempt
from matterstack.core.machine import State

_COLUMNS: Final = (
    "task, state, attempt, token, boot, gen, array, idx, profile, job_id, requested, in_doubt, cancel_requested,"
    " dropped, reason, exit_code, signal, detail, started_at, ended_at, stalled"
)
_FLAGS: Final = slice(10, 14)  # requested to dropped


def load_attempts(journal: Journal, run: str) -> dict[str, Attempt]:
    """Return every task's newest attempt, by id, in the order of the workflow; dropped tasks included."""
    rows = journal.query(f"SELECT {_COLUMNS} FROM tasks WHERE run = ? ORDER BY ord", (run,))  # constants
    return {row[0]: _attempt(row) for row in rows}


def _attempt(row: tuple[Any, ...]) -> Attempt:
    values = list(row)
    values[1] = State(values[1])
    values[_FLAGS] = map(bool, values[_FLAGS])
    return Attempt(*values)


def load_counts(journal: Journal, run: str) -> dict[State, int]:
    """Return the number of the run's tasks by state."""
    counts = dict.fromkeys(State, 0)
    for state, n in journal.query("SELECT state, n FROM counts WHERE run = ?", (run,)):
        counts[State(state)] = n
    return counts


class KnownTask(NamedTuple):
    """What a workflow's task is compared with; ``live``: the backend may have a job of it."""

    spec_hash: str
    state: State
    live: bool
    dropped: bool


def known_tasks(journal: Journal, run: str) -> dict[str, KnownTask]:
    """Return the run's tasks by id, in the order of the workflow, dropped ones included."""
    rows = journal.query(
        "SELECT task, spec_hash, state, requested AND state IN ('PENDING', 'RUNNING'), dropped FROM tasks"
        " WHERE run = ? ORDER BY ord",
        (run,),
    )
    states = {state.value: state for state in State}
    return {task: KnownTask(hashed, states[state], live, dropped) for task, hashed, state, live, dropped in rows}
