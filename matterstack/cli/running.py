"""``run`` and ``resume``."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from matterstack import api
from matterstack.cli.live import progress
from matterstack.cli.text import as_json, failure_lines, line_of_counts, more_budget, number
from matterstack.config.workflow_file import load_workflow
from matterstack.core.machine import State
from matterstack.errors import AccessError
from matterstack.runtime.budget import checked_budget
from matterstack.runtime.result import WorkflowResult
from matterstack.runtime.run import Options

_AS_RECORDED = "The profile was taken as the run recorded it. If you have mended it since, name it: --profile NAME."


def run(arguments: argparse.Namespace) -> int:
    """Run a workflow file."""
    workflow = load_workflow(Path(arguments.workflow))
    if arguments.dry_run:
        from matterstack.cli.dry_run import dry_run  # only where it is asked for

        return dry_run(workflow, arguments)
    if arguments.estimate:
        from matterstack.cli.estimating import estimate

        return estimate(workflow, arguments)
    budget = budget_from(arguments)
    with progress(arguments.run_id or workflow.name, quiet=arguments.quiet or arguments.json) as observe:
        result = api.run_workflow(
            workflow,
            arguments.profile,
            journal=arguments.journal,
            run_id=arguments.run_id,
            config=arguments.config,
            fail_fast=arguments.fail_fast,
            replace=arguments.replace,
            rerun=arguments.rerun,
            announce=lambda text: print(f"{workflow.name}: {text}", file=sys.stderr),
            retry_failed=arguments.retry_failed,
            retry_interrupted=arguments.retry_interrupted,
            budget_core_hours=budget,
            progress=observe,
        )
    return report(result, arguments)


def resume(arguments: argparse.Namespace) -> int:
    """Go on with a run."""
    return go_on(
        arguments,
        Options(
            fail_fast=arguments.fail_fast,
            retry_failed=arguments.retry_failed,
            retry_interrupted=arguments.retry_interrupted,
            budget=budget_from(arguments),
        ),
    )


def budget_from(arguments: argparse.Namespace) -> float | None:
    """Return the budget that was asked for, in core hours.

    Raises:
        RunError: It is none.
    """
    if arguments.budget is None:
        return None
    budget: object = arguments.budget
    with suppress(ValueError):
        budget = float(arguments.budget)
    return checked_budget(budget)


def go_on(arguments: argparse.Namespace, options: Options) -> int:
    """Drive a run from its journal with these options."""
    try:
        with progress(arguments.run or "", quiet=arguments.quiet or arguments.json) as observe:
            options.observe = observe
            result = api.resume(
                arguments.run,
                arguments.profile,
                journal=arguments.journal,
                config=arguments.config,
                options=options,
            )
    except AccessError as error:
        if arguments.profile is None:
            error.add_note(_AS_RECORDED)
        raise
    return report(result, arguments)


def report(result: WorkflowResult, arguments: argparse.Namespace) -> int:
    """Print what came of the run; return the exit code."""
    if arguments.json:
        print(
            as_json(
                {
                    "run": result.run_id,
                    "ok": result.ok,
                    "counts": result.counts,
                    **({"budget": result.budget} if result.budget is not None else {}),
                    "journal": str(result.journal),
                }
            )
        )
        return 0 if result.ok else 1
    print(f"{result.run_id}: {line_of_counts(result.counts)}")
    failed = result.failed() if result.counts[State.FAILED] else []
    for line in failure_lines(failed):
        print(line)
    if result.budget is not None and result.budget.stopped:
        print(f"Stopped: {result.budget}; nothing more is submitted. {more_budget(result.run_id)}", file=sys.stderr)
    if result.undecided:
        print(
            f"Paused: it is not known how {number(len(result.undecided), 'task')} ended; what depends on that waits. "
            f"`matterstack resume {result.run_id} --retry-interrupted` tries again.",
            file=sys.stderr,
        )
    elif failed:
        print(f"`matterstack retry {result.run_id}` tries what failed again.", file=sys.stderr)
    return 0 if result.ok else 1
