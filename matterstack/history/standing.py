"""How runs and tasks stand now, and their events as recorded: what the command line shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from matterstack.core.budget import Spending
from matterstack.core.machine import State
from matterstack.errors import UnknownName
from matterstack.runtime.budget import load_spending
from matterstack.runtime.notices import Notice, load_notices
from matterstack.runtime.opening import chosen_run, lease_of, open_journal, runs
from matterstack.runtime.specs import JournalSpecs
from matterstack.runtime.state import load_counts
from matterstack.runtime.views import STAGE


class RunStatus(NamedTuple):
    """A run as recorded. ``profiles``: those that tasks name themselves, by name.

    Times are seconds since 1970 UTC. ``controller`` is the process that has it, if any.
    """

    run: str
    counts: dict[str, int]
    profile: dict[str, Any]
    profiles: dict[str, dict[str, Any]]
    created_at: float
    started_at: float | None
    stopped_at: float | None
    why: str
    controller: str | None
    lost_contacts: list[LostContact]


class LostContact(NamedTuple):
    """A backend that cannot be asked, since ``since`` (seconds since 1970); ``profile`` is empty for the run's own."""

    profile: str
    since: float
    detail: str


class TaskStatus(NamedTuple):
    """A task's newest attempt. ``stage`` is where a PENDING one stands."""

    task: str
    state: str
    stage: str
    attempt: int
    reason: str
    exit_code: int | None
    signal: int | None
    detail: str
    job_id: str | None
    started_at: float | None
    ended_at: float | None
    cancel_requested: bool
    profile: str = ""


class StalledTask(NamedTuple):
    """A queued task that its scheduler will not start as it is: its word for that, and since when (since 1970)."""

    task: str
    reason: str
    since: float | None


class PastEvent(NamedTuple):
    """One recorded event. ``time`` is ISO 8601 in UTC; ``task`` is empty for events of the run itself."""

    position: int
    time: str
    task: str
    type: str
    data: dict[str, Any]


class History:
    """A journal, opened to be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = open_journal(path, create=False, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def runs(self) -> list[str]:
        """Return the names of all runs, oldest first."""
        return runs(self._journal)

    def run(self, run: str | None) -> str:
        """Return the run's name; None stands for the newest.

        Raises:
            UnknownName: There is no such run.
        """
        return chosen_run(self._journal, run)

    def status(self, run: str) -> RunStatus:
        """Return how a run stands."""
        ((profile, profiles, created, started, stopped, why),) = self._journal.query(
            "SELECT profile, profiles, created_at, started_at, stopped_at, why FROM runs WHERE run = ?", (run,)
        )
        lost = self._journal.query(
            "SELECT profile, lost_at, detail FROM contacts WHERE run = ? ORDER BY profile", (run,)
        )
        counts = {state.value: n for state, n in load_counts(self._journal, run).items()}
        return RunStatus(
            run,
            counts,
            msgspec.json.decode(profile),
            msgspec.json.decode(profiles),
            created / 1e6,
            started / 1e6 if started is not None else None,
            stopped / 1e6 if stopped is not None else None,
            why,
            lease_of(self._journal, run),
            [LostContact(profile, at / 1e6, detail) for profile, at, detail in lost],
        )

    def spending(self, run: str) -> Spending | None:
        """Return how the run stands against its budget; None where it has none."""
        return load_spending(self._journal, run)

    def notices(self, run: str) -> list[Notice]:
        """Return what somebody is still to be told of the run, and what could not be told."""
        return load_notices(self._journal, run)

    def tasks(self, run: str, states: tuple[State, ...] = tuple(State)) -> Iterator[TaskStatus]:
        """Yield the run's tasks in these states, in the order of the workflow."""
        marks = ", ".join("?" * len(states))
        yield from self._tasks(f"run = ? AND NOT dropped AND state IN ({marks}) ORDER BY ord", (run, *states))

    def task(self, run: str, task: str) -> TaskStatus:
        """Return one task.

        Raises:
            UnknownName: The run has no such task.
        """
        self.check_tasks(run, [task])
        return self._tasks("subject = ?", (f"{run}/{task}",))[0]

    def _tasks(self, where: str, params: tuple[str, ...]) -> list[TaskStatus]:
        rows = self._journal.query(
            f"SELECT task, state, {STAGE}, attempt, reason, exit_code, signal, detail, job_id, started_at, ended_at,"
            f" cancel_requested, profile FROM tasks WHERE {where}",
            params,
        )
        return [TaskStatus._make((*fields, bool(cancelled), profile)) for *fields, cancelled, profile in rows]

    def stalled(self, run: str) -> list[StalledTask]:
        """Return the run's stalled tasks in the workflow's order, as the last controller that looked knew them."""
        rows = self._journal.query(
            "SELECT task, stalled, stalled_at FROM tasks"
            " WHERE run = ? AND state = 'PENDING' AND stalled <> '' AND NOT dropped ORDER BY ord",
            (run,),
        )
        return [StalledTask(*row) for row in rows]

    def unfinished_needs(self, run: str, task: str) -> list[str]:
        """Return the tasks that this one waits for and that have not completed, in the order of its spec."""
        rows = self._journal.query("SELECT task FROM tasks WHERE run = ? AND state <> 'COMPLETED'", (run,))
        unfinished = {name for (name,) in rows}
        return [name for name in JournalSpecs(self._journal, run)[task].needs() if name in unfinished]

    def check_tasks(self, run: str, tasks: list[str]) -> None:
        """Do nothing when the run has all these tasks.

        Raises:
            UnknownName: It lacks one.
        """
        for task in tasks:
            if not self._journal.query("SELECT 1 FROM tasks WHERE subject = ?", (f"{run}/{task}",)):
                known = [name for (name,) in self._journal.query("SELECT task FROM tasks WHERE run = ?", (run,))]
                raise UnknownName("task", task, known, f"Run {run!r} has {len(known)} tasks")

    def events(self, run: str, task: str | None = None) -> Iterator[PastEvent]:
        """Yield the events of a run, or of one of its tasks, in the order in which they were recorded."""
        if task is not None:
            self.check_tasks(run, [task])
            records = self._journal.read_subject(f"{run}/{task}", stream=run)
        else:
            records = self._journal.read(run)
        for record in records:
            yield PastEvent(
                record.position,
                record.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                record.subject.partition("/")[2],
                record.type,
                msgspec.json.decode(record.data),
            )
