"""``run --estimate``: the most core hours that a workflow can still use, from its time limits."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final

from matterstack import api
from matterstack.cli.dry_run import check_inputs
from matterstack.cli.running import budget_from
from matterstack.cli.text import as_json, number, table
from matterstack.core.budget import hours
from matterstack.core.workflow import Workflow
from matterstack.runtime.estimate import Estimate, TaskEstimate, Wishes
from matterstack.runtime.estimate import estimate as estimated
from matterstack.runtime.opening import find_journal
from matterstack.runtime.prepare import checked_run_id

_LISTED: Final = 20
_NAMED: Final = 4


def estimate(workflow: Workflow, arguments: argparse.Namespace) -> int:
    """Print what the workflow can use at worst; connect to nothing, write nothing."""
    run = checked_run_id(workflow, arguments.run_id, arguments.rerun)
    check_inputs(workflow)
    journal = find_journal(arguments.journal)
    named = {task.profile for task in workflow if task.profile}
    settings = api.chosen_settings(arguments.profile, None, journal, arguments.config, named)
    wishes = Wishes(
        rerun=arguments.rerun, retry_failed=arguments.retry_failed, retry_interrupted=arguments.retry_interrupted
    )
    found = estimated(workflow, journal, run, settings.with_budget(budget_from(arguments)), wishes)
    print(as_json(_plain(run, found)) if arguments.json else "\n".join(_lines(run, found)))
    return 0


def _plain(run: str, found: Estimate) -> dict[str, object]:
    return {
        "run": run,
        "core_hours": found.core_hours,
        "no_limit": found.no_limit,
        "over": found.over,
        "budget_core_hours": found.budget,
        "used_core_hours": found.used,
        "tasks": found.tasks,
    }


def _lines(run: str, found: Estimate) -> Iterator[str]:
    # Those without a limit first, then what costs most.
    shown = sorted(found.tasks, key=lambda one: (one.core_hours is not None, -(one.core_hours or 0.0)))
    if shown:
        yield from table(["TASK", "CORES", "MINUTES", "ATTEMPTS", "CORE HOURS"], [_row(one) for one in shown[:_LISTED]])
    if len(shown) > _LISTED:
        yield f"… and {len(shown) - _LISTED} more; --json lists them"
    limited = len(found.tasks) - len(found.no_limit)
    yield f"{run}: at most {hours(found.core_hours)} core hours for {number(limited, 'task')} with a time limit."
    if found.no_limit:
        names = ", ".join(found.no_limit[:_NAMED]) + (", …" if len(found.no_limit) > _NAMED else "")
        yield f"no limit: {number(len(found.no_limit), 'task')} can use any number beside that: {names}"
    if found.over:
        yield f"{number(found.over, 'task')} ended before and would not run again."
    if found.budget is not None:
        yield f"{hours(found.used)} of the budget of {hours(found.budget)} core hours are used."
    yield "Nothing was submitted."


def _row(one: TaskEstimate) -> list[str]:
    limit = "no limit" if one.time_limit_minutes is None else f"{one.time_limit_minutes:g}"
    cost = "no limit" if one.core_hours is None else hours(one.core_hours)
    return [one.task, str(one.cores), limit, str(one.attempts), cost]
