"""The budget of a run: where it is given and recorded, and what the run has used of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from journal import Journal
from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.budget import BUDGET, HOUR_S, Meter, Spending, budget_problem, core_seconds
from matterstack.core.machine import RUNNING
from matterstack.errors import RunError
from matterstack.runtime.specs import JournalSpecs
from matterstack.runtime.state import load_attempts

if TYPE_CHECKING:
    from matterstack.runtime.offers import Specs


def checked_budget(value: object) -> float:
    """Return the budget that was asked for, in core hours.

    Raises:
        RunError: It is none.
    """
    if problem := budget_problem(value):
        raise RunError(f"the budget {problem}. Nothing was started.")
    assert isinstance(value, (int, float))  # else there is a problem
    return float(value)


def budget_of(profiles: Iterable[Mapping[str, Any]]) -> float | None:
    """Return the budget of a run with these profiles: the smallest of theirs; None where none has one."""
    return min((one[BUDGET] for one in profiles if one.get(BUDGET) is not None), default=None)


class Budget:
    """What a run may use and has used; ``limit`` in core hours, None for no limit: then nothing is counted.

    Args:
        limit: The budget.
        meter: What has been used so far.
        clock: Seconds since 1970.
    """

    def __init__(
        self, limit: float | None = None, meter: Meter | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.limit, self._meter, self._clock = limit, meter or Meter(), clock
        self.over: Spending | None = None
        """How it stood when it was found to be reached."""

    def take(self, specs: Specs, attempt: Attempt, event: ev.Event) -> None:
        """Take in an event of a task, after which its newest attempt is ``attempt``."""
        if self.limit is not None:
            self._meter.take(specs[attempt.task_id], attempt, event)

    def reached(self) -> bool:
        """Return whether nothing more is to be submitted; once that is so, it stays so."""
        if self.limit is not None and self.over is None:
            now = Spending(self.limit, self._meter.used_s(self._clock()) / HOUR_S, stopped=True)
            self.over = now if now.reached else None
        return self.over is not None


def load_meter(journal: Journal, run: str, attempts: Mapping[str, Attempt], specs: Specs) -> Meter:
    """Return what the run's attempts have used, as recorded; of those that run since their start."""
    meter = Meter()
    rows = journal.query(
        "SELECT task, attempt, elapsed_s, cpus, asked_cores FROM history_attempt_usage WHERE run = ?", (run,)
    )
    for task, number, elapsed_s, cpus, cores in rows:
        meter.ended(task, number, core_seconds(elapsed_s, cpus, cores))
    for attempt in attempts.values():
        if attempt.state is RUNNING:
            meter.stands(attempt, specs[attempt.task_id].cores)
    return meter


def load_spending(journal: Journal, run: str) -> Spending | None:
    """Return how the run stands against the budget it last had; None where it had none."""
    ((profile, others, why),) = journal.query("SELECT profile, profiles, why FROM runs WHERE run = ?", (run,))
    limit = budget_of([ev.profile_of(profile), *ev.profile_of(others).values()])
    if limit is None:
        return None
    return Spending(limit, load_used(journal, run), stopped=why == "budget")


def load_used(journal: Journal, run: str) -> float:
    """Return the core hours that the run's attempts have used up to now."""
    meter = load_meter(journal, run, load_attempts(journal, run), JournalSpecs(journal, run))
    return meter.used_s(time.time()) / HOUR_S
