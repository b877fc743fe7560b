"""``status``, ``history`` and ``logs``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matterstack.cli.text import as_json, duration, line_of_counts, moment, more_budget, number, table, why
from matterstack.config.profiles import open_backend
from matterstack.core.budget import hours
from matterstack.core.machine import State
from matterstack.core.notices import TRIES
from matterstack.core.printable import printable
from matterstack.history import History, RunStatus, StalledTask, TaskStatus
from matterstack.runtime.backends.base import LOG_BYTES
from matterstack.runtime.notices import Notice
from matterstack.runtime.opening import find_journal

_LISTED = 20
_NAMED = 4
_FOLLOW_S = 0.2


def status(arguments: argparse.Namespace) -> int:
    """Show how a run stands."""
    with History(find_journal(arguments.journal)) as history:
        found = history.status(history.run(arguments.run))
        wanted = tuple(State) if arguments.all or arguments.json else (State.RUNNING, State.FAILED)
        tasks = list(history.tasks(found.run, wanted))
        stalled, budget = history.stalled(found.run), history.spending(found.run)
        notices = history.notices(found.run)
        if arguments.json:
            contacts = [lost._asdict() for lost in found.lost_contacts]
            print(
                as_json(
                    {
                        **found._asdict(),
                        "lost_contacts": contacts,
                        "budget": budget,
                        "notices": notices,
                        "stalled": [one._asdict() for one in stalled],
                        "journal": str(history.path),
                        "tasks": [t._asdict() for t in tasks],
                    }
                )
            )
            return 0
        print(f"run         {found.run}  ({what_now(found)})")
        print(f"tasks       {line_of_counts(found.counts)}")
        print(f"profile     {found.profile.get('name')}  {_place(found.profile)}")
        if budget is not None:
            print(f"budget      {hours(budget.used)} of {hours(budget.limit)} core hours are used")
        print(f"started     {moment(found.started_at)}, stopped {moment(found.stopped_at)}")
        for lost in found.lost_contacts if found.controller else ():
            where = f"profile {lost.profile}: " if lost.profile else ""
            print(f"no contact  {where}since {moment(lost.since)}, tried again every minute or sooner: {lost.detail}")
        for line in _stall_lines(found, stalled):
            print(printable(line))
        for line in _notice_lines(notices):
            print(printable(line))
        print(f"journal     {history.path}")
        _list(tasks, {one.task: one.reason for one in stalled}, everything=arguments.all)
    return 0


def _stall_lines(found: RunStatus, stalled: Sequence[StalledTask]) -> Iterator[str]:
    """Yield a line for each reason for which the scheduler will not start jobs as they are, as last heard of it."""
    by_reason: dict[str, list[StalledTask]] = {}
    for one in stalled:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, tasks in by_reason.items():
        names = ", ".join(one.task for one in tasks[:_NAMED]) + (" …" if len(tasks) > _NAMED else "")
        since = min((one.since for one in tasks if one.since is not None), default=None)
        yield f"stalled     {number(len(tasks), 'queued task')} since {moment(since)}: Slurm says {reason}: {names}"
    if stalled:
        yield f"            `matterstack explain {found.run} {stalled[0].task}` asks Slurm; mend it there, or cancel it"


def _notice_lines(notices: Sequence[Notice]) -> Iterator[str]:
    """Yield a line for each notice that could not be told yet, or never will be; a few of them."""
    for one in notices[:_NAMED]:
        what = f"{one.event.on} of {one.event.task}" if one.event.task else one.event.on
        fate = f"given up after {one.tries} tries" if one.given_up else f"owed, {one.tries} of {TRIES} tries so far"
        yield f"notice      {what}: {fate}{f': {one.detail}' if one.detail else ''}"
    if len(notices) > _NAMED:
        yield f"            and {len(notices) - _NAMED} more; --json lists them"


def _place(profile: Mapping[str, Any]) -> str:
    """Return where a profile's jobs are, with the host where it is not this one."""
    host = f"{profile['ssh']['hostname']}:" if "ssh" in profile else ""
    return f"{host}{profile.get('workspace_root', '')}"


def what_now(found: RunStatus) -> str:
    """Return who drives the run, or how it was left and what goes on with it."""
    if found.controller:
        return f"driven by {found.controller}"
    left = found.counts[State.PENDING] + found.counts[State.RUNNING]
    if found.stopped_at is None:
        return f"its controller is gone; `matterstack resume {found.run}` goes on"
    if found.why == "budget":
        return f"its budget is used up; {more_budget(found.run).rstrip('.')}"
    if found.why == "paused":
        return f"paused; `matterstack resume {found.run} --retry-interrupted` goes on"
    return f"{found.why}; `matterstack resume {found.run}` goes on" if left else "finished"


def _list(tasks: list[TaskStatus], stalled: Mapping[str, str], *, everything: bool) -> None:
    shown = tasks if everything else tasks[:_LISTED]
    if not shown:
        return
    rows = []
    for task in shown:
        state = task.state + (f" ({task.stage})" if task.stage else "")
        note = why(task.reason, task.exit_code, task.signal, task.detail) if task.reason else ""
        note = note or printable(stalled.get(task.task, task.detail))
        end = time.time() if task.state == State.RUNNING else task.ended_at
        rows.append([task.task, state, str(task.attempt), duration(task.started_at, end), note])
    print()
    for line in table(["TASK", "STATE", "ATTEMPT", "TIME", "WHY"], rows):
        print(line)
    if len(tasks) > len(shown):
        print(f"… and {len(tasks) - len(shown)} more; --all lists them")


def history(arguments: argparse.Namespace) -> int:
    """Show the events of a run or task."""
    with History(find_journal(arguments.journal)) as journal:
        run = journal.run(arguments.run)
        for event in journal.events(run, arguments.task):
            if arguments.json:
                print(as_json(event._asdict()))
            else:
                facts = {key: value for key, value in event.data.items() if key != "spec"}
                text = printable(as_json(facts)) if facts else ""
                print(f"{event.position:>8}  {event.time}  {event.task or '-':<20}  {event.type:<16}  {text}")
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Print what a task wrote."""
    stream = "stderr" if arguments.stderr else "stdout"
    with History(find_journal(arguments.journal)) as journal:
        run = journal.run(arguments.run)
        settings = journal.status(run)
        named = journal.task(run, arguments.task).profile
        backend = open_backend(settings.profiles.get(named, settings.profile))
        written = 0
        while True:
            task = journal.task(run, arguments.task)
            over = task.state in (State.COMPLETED, State.FAILED)
            # With no controller nobody records the end, so the job itself is asked.
            if not over and journal.status(run).controller is None:
                over = task.job_id is None or backend.poll(task.job_id).state is not State.RUNNING
            more = True
            while more and task.job_id is not None:
                news = backend.read_log(task.job_id, stream, written)
                sys.stdout.buffer.write(news)
                sys.stdout.buffer.flush()
                written += len(news)
                more = len(news) >= LOG_BYTES
            if not arguments.follow or over:
                break
            time.sleep(_FOLLOW_S if backend.cheap_poll else max(_FOLLOW_S, backend.poll_min_s))
        if task.job_id is None:
            note = f"({task.stage})" if task.stage else task.reason
            print(f"matterstack: task {task.task!r} has no job: it is {task.state} {note}".rstrip(), file=sys.stderr)
    return 0
