"""The one door to what a journal holds."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, Unpack

from matterstack.core import events as ev
from matterstack.errors import UnknownName
from matterstack.history import filters, spans, steps
from matterstack.history.filters import Filters, Time, Words
from matterstack.history.ledger import ledger
from matterstack.history.moments import tasks_at
from matterstack.history.rows import (
    AttemptRow,
    CountRow,
    EventRow,
    LedgerRow,
    RetryRow,
    Rows,
    RunRow,
    StepRow,
    TaskRow,
    UsageRow,
    WaitRow,
    made,
)
from matterstack.runtime.opening import JOURNAL, find_journal, open_journal
from matterstack.runtime.views import COUNTS, STAGE, VIEWS

_FACTS: Final = (
    "run, task, state, attempt, reason, exit_code, signal, detail, profile, job_id, node, token, requested_at,"
    " submitted_at, CAST(round(started_at * 1e6) AS INTEGER), CAST(round(ended_at * 1e6) AS INTEGER), recorded_at,"
    " cancel_requested"
)


class Past:
    """A journal, opened to be asked what happened; each answer is a snapshot of its moment.

    All methods raise `UnknownName` for a filter, run, task, state, reason, type, view or moment that there cannot be,
    and `JournalError` when the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = located(path)
        self._journal = open_journal(self.path, create=False, read_only=True)
        self._query = self._journal.query

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._journal.close()

    def runs(self) -> Rows[RunRow]:
        """Return all runs, oldest first."""
        facts = "run, name, created_at, started_at, stopped_at, why, host, pid"
        return made(RunRow, self._query(f"SELECT {facts}, {COUNTS} FROM runs r ORDER BY created_at", ()))

    def tasks(self, **which: Unpack[Filters]) -> Rows[TaskRow]:
        """Return tasks with their newest attempts, by run, in the order of the workflow; without dropped ones."""
        where = filters.of_attempts(self._query, **which)
        where.add("NOT dropped")
        # The plus: failed tasks are few, and have an index that is not in the workflow's order.
        order = "+ord" if "state = 'FAILED'" in where.conditions else "ord"
        sql = f"SELECT {_FACTS}, {STAGE} FROM tasks WHERE {where} ORDER BY run, {order}"
        return made(TaskRow, self._query(sql, where.params))

    def attempts(self, **which: Unpack[Filters]) -> Rows[AttemptRow]:
        """Return all attempts, also those that were followed by others, by run and task."""
        where = filters.of_attempts(self._query, **which)
        sql = f"SELECT {_FACTS} FROM attempts WHERE {where} ORDER BY run, task, attempt"
        return made(AttemptRow, self._query(sql, where.params))

    def events(self, *, type: Words = None, **which: Unpack[Filters]) -> Rows[EventRow]:  # noqa: A002  # its word
        """Return events by position; ``since`` and ``until`` bound the time at which they were recorded.

        Where a state, reason, profile, node, job id or token is given, the events are those of the attempts that
        fit it now.
        """
        query, run, task = self._query, which.get("run"), which.get("task")
        since, until = which.pop("since", None), which.pop("until", None)
        filters.check_names(which)
        if all(value is None for name, value in which.items() if name not in ("run", "task")):
            return made(EventRow, steps.events(query, run=run, task=task, kind=type, since=since, until=until))
        where = filters.of_attempts(query, **which)
        # A task that failed before its first attempt is in the one table only.
        sql = " UNION ".join(f"SELECT run, task, attempt FROM {table} WHERE {where}" for table in ("attempts", "tasks"))
        wanted = {(run, task, attempt) for run, task, attempt in query(sql, where.params * 2)}
        found: list[tuple[Any, ...]] = []
        for one_run, one_task in dict.fromkeys((run, task) for run, task, _ in wanted):
            all_of_it = steps.events(query, run=one_run, task=one_task, kind=None, since=None, until=until)
            found += steps.of_attempts(all_of_it, wanted)
        return self._within(found, type, since, until)

    def _within(
        self, found: list[tuple[Any, ...]], kind: Words, since: Time | None, until: Time | None
    ) -> Rows[EventRow]:
        first = filters.microseconds(self._query, since) if since is not None else 0
        last = filters.microseconds(self._query, until) if until is not None else float("inf")
        kinds = filters.words("type", kind, ev.TYPES) or ev.TYPES
        return made(EventRow, sorted(record for record in found if first <= record[1] <= last and record[4] in kinds))

    def at(self, time: Time, *, run: str | None = None) -> Rows[TaskRow]:
        """Return the tasks of a run, or of all, as they were at a moment: its events up to then, folded."""
        moment = filters.microseconds(self._query, time)
        runs = [filters.known_run(self._query, run)] if run is not None else [found.run for found in self.runs()]
        return Rows(TaskRow, (row for name in runs for row in tasks_at(self._query, name, moment)))

    def timeline(self, run: str, task: str) -> Rows[StepRow]:
        """Return what happened to a task, in order: each event with the state and the attempt it led to."""
        filters.known_task(self._query, run, task)
        return steps.timeline(self._query, run, task)

    def counts_over_time(self, run: str, step_s: int = 60) -> Rows[CountRow]:
        """Return how many tasks were in each state, every ``step_s`` whole seconds (1 or more).

        Raises:
            UnknownName: There is no such run, or the step is no whole number of seconds.
        """
        if not isinstance(step_s, int) or step_s < 1:
            raise UnknownName("step", str(step_s), (), "Give whole seconds, 1 or more, such as step_s=60")
        return spans.counts_over_time(self._query, filters.known_run(self._query, run), step_s)

    def waits(self, **which: Unpack[Filters]) -> Rows[WaitRow]:
        """Return how long attempts waited in the queue and ran."""
        where = filters.of_attempts(self._query, **which)
        return made(WaitRow, self._query(f"{spans.WAITS}{where} ORDER BY run, task, attempt", where.params))

    def retries(self, **which: Unpack[Filters]) -> Rows[RetryRow]:
        """Return the failed attempts that were followed by another try, and why there was one."""
        return spans.retries(self._query, filters.of_attempts(self._query, **which))

    def usage(self, run: str | None = None) -> Rows[UsageRow]:
        """Return how many attempts ended and how long they ran, by profile and state."""
        return spans.usage(self._query, filters.known_run(self._query, run) if run is not None else None)

    def ledger(
        self,
        by: str = "run",
        *,
        run: str | None = None,
        task: str | None = None,
        profile: str | None = None,
        account: str | None = None,
    ) -> Rows[LedgerRow]:
        """Return what attempts cost, by ``run``, ``task`` pattern, ``profile``, ``account`` or ``reason``."""
        return ledger(self._query, by=by, run=run, task=task, profile=profile, account=account)

    def view(self, name: str, run: str | None = None) -> Rows[Any]:
        """Return the rows of one of the journal's views, such as ``history_waits``, as its columns name them."""
        if name not in VIEWS:
            raise UnknownName("view", name, VIEWS, "For example view('history_tasks')")
        where = filters.Where()
        if run is not None:
            where.add("run = ?", filters.known_run(self._query, run))
        columns = [column for (column,) in self._query("SELECT name FROM pragma_table_info(?)", (name,))]
        kind: Any = namedtuple(name, columns)  # type: ignore[misc]  # noqa: PYI024  # known only now
        return Rows(kind, map(kind._make, self._query(f"SELECT * FROM {name} WHERE {where}", where.params)))


def located(given: str | os.PathLike[str] | None) -> Path:
    """Return the journal's path; a directory stands for the journal in it.

    Raises:
        UnknownName: There is none.
    """
    path = find_journal(given)
    if path.is_dir():
        path = path / JOURNAL
    if not path.exists():
        raise UnknownName(
            "journal",
            str(path),
            (),
            "Nothing was created; give the path of a journal, or of a directory with .matterstack/journal.db, "
            "or make one with `matterstack run WORKFLOW`",
        )
    return path
