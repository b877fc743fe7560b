"""What of a workflow would still run, and the most core hours that it can use. Nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from journal import Journal
from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.budget import paid_attempts, worst_core_hours
from matterstack.core.machine import COMPLETED, FAILED
from matterstack.core.policy import Outcome, outcome
from matterstack.core.schedule import Schedule
from matterstack.core.workflow import Workflow
from matterstack.runtime.budget import budget_of, load_used
from matterstack.runtime.offers import freed_by
from matterstack.runtime.opening import open_journal
from matterstack.runtime.prepare import make_plan, wished
from matterstack.runtime.settings import Settings
from matterstack.runtime.specs import WorkflowSpecs
from matterstack.runtime.state import load_attempts


class Wishes(Struct, kw_only=True):
    """What of the tasks that ended is to run again; as for `matterstack.api.run_workflow`."""

    rerun: Collection[str] = ()
    retry_failed: bool = False
    retry_interrupted: bool = False


class TaskEstimate(Struct, frozen=True):
    """The most that a task can still use; ``core_hours`` is None where it has no time limit."""

    task: str
    cores: int
    time_limit_minutes: float | None
    attempts: int
    core_hours: float | None


class Estimate(Struct, frozen=True):
    """The most that a workflow can still use, in core hours, beside its tasks without a time limit.

    ``over``: tasks that have ended and would not run again; ``used``: core hours that its attempts have used so far.
    """

    tasks: list[TaskEstimate]
    over: int
    budget: float | None = None
    used: float = 0.0

    @property
    def core_hours(self) -> float:
        """The sum over the tasks that have a time limit."""
        return sum(one.core_hours or 0.0 for one in self.tasks)

    @property
    def no_limit(self) -> list[str]:
        """The tasks that have none."""
        return [one.task for one in self.tasks if one.core_hours is None]


def estimate(workflow: Workflow, path: Path, run: str, settings: Settings, wishes: Wishes) -> Estimate:
    """Return the most that the workflow can still use as this run; ``path`` is its journal, which need not exist.

    Raises:
        WorkflowError, SpecError: It cannot be run as it is.
        JournalError: The journal cannot be read.
    """
    needs = workflow.dependencies()
    budget = budget_of(one.profile for one in settings.each())
    made, used = dict.fromkeys(workflow.tasks, 0), 0.0
    if path.exists():
        with open_journal(path, create=False, read_only=True) as journal:
            if journal.head(run).version:
                made = _still(journal, run, workflow, needs, settings, wishes)
                used = load_used(journal, run)
    tasks = [_task(workflow, task_id, ended, settings) for task_id, ended in made.items()]
    return Estimate(tasks, len(workflow) - len(made), budget, used)


def _task(workflow: Workflow, task_id: str, made: int, settings: Settings) -> TaskEstimate:
    task = workflow[task_id]
    attempts = paid_attempts(task, _retry(settings, task.profile), made=made)
    return TaskEstimate(task_id, task.cores, task.time_limit_minutes, attempts, worst_core_hours(task, attempts))


def _retry(settings: Settings, profile: str) -> str:
    return str(settings.of(profile).profile.get("retry") or "")


def _still(
    journal: Journal,
    run: str,
    workflow: Workflow,
    needs: Mapping[str, Sequence[str]],
    settings: Settings,
    wishes: Wishes,
) -> dict[str, int]:
    """Return the tasks that would run, or run now, each with the number of its attempts that have ended."""
    specs = WorkflowSpecs(workflow)
    plan = make_plan(journal, run, workflow, specs, needs, rerun=wishes.rerun)
    anew = {task_id for task_id, event in plan.facts if not isinstance(event, ev.TaskDropped)}
    known = load_attempts(journal, run)
    attempts = {task_id: known.get(task_id) or Attempt(task_id) for task_id in workflow.tasks}
    again = wished(attempts.values(), failed=wishes.retry_failed, interrupted=wishes.retry_interrupted)
    again |= freed_by(again, Schedule(needs, ()), specs, attempts)

    def runs(task_id: str) -> bool:
        attempt = attempts[task_id]
        if task_id in anew or task_id in again or attempt.state not in (COMPLETED, FAILED):
            return True
        # A controller that died before it tried the task again.
        policy = _retry(settings, attempt.profile)
        return attempt.state is FAILED and outcome(workflow[task_id], attempt, policy) is Outcome.RETRY

    return {one: attempts[one].number - attempts[one].live for one in workflow.tasks if runs(one)}
