"""``cancel`` and ``retry``: done here, or asked of the controller that has the run."""

from __future__ import annotations

import argparse
import sys

from matterstack import api
from matterstack.cli.running import budget_from, go_on
from matterstack.cli.text import as_json
from matterstack.core import events as ev
from matterstack.core.machine import State
from matterstack.errors import RunBusy
from matterstack.history import History
from matterstack.runtime.opening import find_journal, open_journal
from matterstack.runtime.requests import ask, requester
from matterstack.runtime.run import Options


def cancel(arguments: argparse.Namespace) -> int:
    """End tasks."""
    run, tasks = _chosen(arguments, (State.PENDING, State.RUNNING))
    if not tasks:
        return _say(arguments, run, f"run {run!r}: nothing to cancel", tasks)
    try:
        options = Options(cancel=tasks, only_cancel=True)
        result = api.resume(run, journal=arguments.journal, options=options)
    except RunBusy:
        return _ask(arguments, run, ev.CancelRequested(requester()), tasks)
    ended = [task for task in tasks if result[task].state in ("COMPLETED", "FAILED")]
    _say(arguments, run, f"run {run!r}: {len(ended)} of {len(tasks)} tasks have ended", tasks, ended=ended)
    return 0 if ended == tasks else 1


def retry(arguments: argparse.Namespace) -> int:
    """Try failed tasks again."""
    run, tasks = _chosen(arguments, (State.FAILED,))
    if not tasks:
        what = "none of these tasks has failed by itself" if arguments.tasks else "no task has failed"
        return _say(arguments, run, f"run {run!r}: {what}", tasks)
    arguments.run = run
    try:
        return go_on(arguments, Options(retry=tasks, fail_fast=arguments.fail_fast, budget=budget_from(arguments)))
    except RunBusy:
        if arguments.budget is not None:
            raise  # its controller has a budget of its own, which nobody changes from here
        return _ask(arguments, run, ev.RetryRequested(requester()), tasks)


def _chosen(arguments: argparse.Namespace, states: tuple[State, ...]) -> tuple[str, list[str]]:
    with History(find_journal(arguments.journal)) as history:
        run = history.run(arguments.run)
        history.check_tasks(run, arguments.tasks)
        fitting = [task.task for task in history.tasks(run, states) if task.reason != "DEPENDENCY_FAILED"]
        return run, [task for task in fitting if not arguments.tasks or task in arguments.tasks]


def _ask(
    arguments: argparse.Namespace, run: str, event: ev.CancelRequested | ev.RetryRequested, tasks: list[str]
) -> int:
    with open_journal(find_journal(arguments.journal), create=False) as journal:
        ask(journal, run, event, tasks)
    text = f"run {run!r}: asked its controller; `matterstack status {run}` shows what comes of it"
    if not arguments.json:
        print(text, file=sys.stderr)
        return 0
    return _say(arguments, run, text, tasks, asked=True)


def _say(arguments: argparse.Namespace, run: str, text: str, tasks: list[str], **more: object) -> int:
    """Print what was done, for people or machines."""
    print(as_json({"run": run, "tasks": tasks, **more}) if arguments.json else text)
    return 0
