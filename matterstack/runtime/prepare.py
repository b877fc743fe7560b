"""What a workflow changes in a run: compared with what the journal has of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from journal import Journal, Lease, NewEvent
from matterstack import __version__
from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.machine import Reason, State
from matterstack.core.policy import UNDECIDED
from matterstack.core.schedule import Schedule
from matterstack.core.spec import spec_hash
from matterstack.core.workflow import Workflow, id_problem
from matterstack.errors import RunError, UnknownName
from matterstack.runtime.specs import JournalSpecs, WorkflowSpecs
from matterstack.runtime.state import KnownTask, known_tasks

_BLOCK = 5_000


class Plan(Struct):
    """Events by task id that bring the run up to the workflow, and the live tasks that stand against it."""

    facts: list[tuple[str, ev.Event]]
    in_the_way: list[str]

    def summary(self) -> str:
        """Return what it changes, for instance ``changed: a; to run again with them: b; added: c``."""
        groups = {
            "changed": [t for t, e in self.facts if isinstance(e, ev.TaskChanged) and not e.upstream],
            "to run again with them": [t for t, e in self.facts if isinstance(e, ev.TaskChanged) and e.upstream],
            "added": [t for t, e in self.facts if isinstance(e, ev.TaskAdded)],
            "dropped": [t for t, e in self.facts if isinstance(e, ev.TaskDropped)],
        }
        return "; ".join(f"{what}: {_listed(tasks)}" for what, tasks in groups.items() if tasks)


def checked_run_id(workflow: Workflow, run_id: str | None, rerun: Iterable[str] = ()) -> str:
    """Return the id to run the workflow under: the one given, else its name.

    Raises:
        RunError: It cannot be one.
        UnknownName: A task that is to run again is not in the workflow.
    """
    chosen = run_id or workflow.name
    problem = (
        id_problem(chosen) if chosen else "must be given: the workflow has no name; pass run_id, or Workflow(name)"
    )
    if problem:
        raise RunError(f"run id {chosen!r}: {problem}. Nothing was started.")
    for task_id in rerun:
        if task_id not in workflow:
            raise UnknownName("task", task_id, workflow.tasks, "Nothing was started")
    return chosen


def make_plan(
    journal: Journal,
    run: str,
    workflow: Workflow,
    specs: WorkflowSpecs,
    needs: Mapping[str, Sequence[str]],
    *,
    rerun: Collection[str] = (),
) -> Plan:
    """Return what has to be recorded so that the run's tasks are those of the workflow, ``rerun`` as if changed.

    Raises:
        SpecError: An input file is missing.
    """
    old = known_tasks(journal, run)
    known = JournalSpecs(journal, run)
    facts: list[tuple[str, ev.Event]] = []
    changed: dict[str, ev.Event] = {}
    for order, task in enumerate(workflow):
        before = old.get(task.task_id)
        spec = specs.spec(task, known if before else None)
        hashed = spec_hash(spec)
        if before is None:
            facts.append((task.task_id, ev.TaskAdded(order, hashed, spec)))
        elif before.spec_hash != hashed or before.dropped or task.task_id in rerun:
            changed[task.task_id] = ev.TaskChanged(order, hashed, spec)
    again = _downstream(changed, workflow, specs, needs, old) if changed else {}
    gone = old.keys() - workflow.tasks.keys()
    dropped = {t: ev.TaskDropped() for t in old if t in gone and not old[t].dropped} if gone else {}
    in_the_way = [t for t in (*changed, *again, *dropped) if t in old and old[t].live]
    return Plan([*facts, *changed.items(), *again.items(), *dropped.items()], in_the_way)


def _downstream(
    changed: Mapping[str, ev.Event],
    workflow: Workflow,
    specs: WorkflowSpecs,
    needs: Mapping[str, Sequence[str]],
    old: Mapping[str, KnownTask],
) -> dict[str, ev.Event]:
    """Return the tasks that ran, run or failed on account of changed ones, and so have to run again."""
    affected = Schedule(needs, ()).downstream(changed)
    return {
        task_id: ev.TaskChanged(order, old[task_id].spec_hash, specs.spec(task, None), upstream="changed")
        for order, (task_id, task) in enumerate(workflow.tasks.items())
        if task_id in affected
        and task_id in old
        and task_id not in changed
        and (old[task_id].live or old[task_id].state is not State.PENDING)
    }


def wished(attempts: Iterable[Attempt], *, failed: bool, interrupted: bool) -> set[str]:
    """Return the tasks to try again: all that ``failed`` by themselves, or those of which no end is known."""
    return {
        one.task_id
        for one in attempts
        if one.state is State.FAILED and not one.dropped
        if (failed and one.reason != Reason.DEPENDENCY_FAILED) or (interrupted and one.reason in UNDECIDED)
    }


def _listed(task_ids: Sequence[str]) -> str:
    return ", ".join(task_ids[:5]) + (f" and {len(task_ids) - 5} more" if len(task_ids) > 5 else "")


def refuse_live(run: str, task_ids: Sequence[str]) -> RunError:
    """Return the error for changes to tasks whose attempt is live."""
    return RunError(
        f"run {run!r}: the workflow changes tasks that are submitted or running: {_listed(task_ids)}. Nothing was "
        f"changed or started. Let them end first (`matterstack resume {run}`), or cancel them with --replace."
    )


def record_plan(journal: Journal, run: str, name: str, plan: Plan, lease: Lease, profile: Mapping[str, Any]) -> None:
    """Append the plan's events, and the run's creation where it is new, in one transaction."""
    exists = journal.query("SELECT 1 FROM runs WHERE run = ?", (run,))
    with journal.group():
        if not exists:
            created = ev.RunCreated(os.urandom(16).hex(), name, __version__, dict(profile))
            journal.append(run, [NewEvent("RunCreated", run, ev.encode(created))], lease=lease)
        for start in range(0, len(plan.facts), _BLOCK):
            block = plan.facts[start : start + _BLOCK]
            journal.append(
                run,
                [NewEvent(type(event).__name__, f"{run}/{task_id}", ev.encode(event)) for task_id, event in block],
                lease=lease,
            )
