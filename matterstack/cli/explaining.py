"""``explain``: what is believed of a task, on which witnesses, and what is awaited."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from msgspec.structs import asdict, fields

from matterstack.cli.text import as_json, moment, printable
from matterstack.config.profiles import open_backend
from matterstack.core.evidence import Evidence, JobStatus
from matterstack.core.machine import State
from matterstack.core.reconcile import status_of
from matterstack.errors import MatterStackError
from matterstack.history import History, RunStatus, TaskStatus
from matterstack.runtime.opening import find_journal

# What the end of each stage depends on.
_AWAITED = {
    "waiting": "the tasks that it depends on",
    "submitting": "the backend's answer, or that no job of its name is there when the settling time is over",
    "queued": "its start",
}


def explain(arguments: argparse.Namespace) -> int:
    """Say what is believed of a task, and why."""
    with History(find_journal(arguments.journal)) as history:
        run = history.status(history.run(arguments.run))
        task = history.task(run.run, arguments.task)
        facts = [event for event in history.events(run.run, task.task) if event.type != "TaskAdded"]
        evidence, problem = (None, "") if arguments.no_ask else _asked(run, task)
        waits_for = history.unfinished_needs(run.run, task.task) if task.stage == "waiting" else []
    if arguments.json:
        found = None if evidence is None else {"kind": type(evidence).__name__, **asdict(evidence)}
        told = {"run": run.run, **task._asdict(), "facts": [fact._asdict() for fact in facts]}
        print(as_json({**told, "evidence": found, "problem": problem, "waits_for": waits_for}))
        return 0
    stage = f" ({task.stage})" if task.stage else ""
    print(f"task        {task.task}, attempt {task.attempt}: {task.state}{stage} {task.reason} {task.detail}".rstrip())
    print(f"job         {task.job_id or 'none'}{f', profile {task.profile}' if task.profile else ''}")
    print(f"controller  {run.controller or 'none; `matterstack resume` goes on'}")
    for lost in run.lost_contacts:
        if lost.profile == task.profile:
            print(f"no contact  since {moment(lost.since)}: {lost.detail}")
    print("recorded")
    for fact in facts:
        words = {key: value for key, value in fact.data.items() if key != "spec"}
        print(f"  {fact.time}  {fact.type:<16}  {printable(as_json(words)) if words else ''}".rstrip())
    for line in _witnesses(evidence, problem):
        print(line)
    print(f"awaited     {_awaited(task, waits_for, evidence)}")
    return 0


def _asked(run: RunStatus, task: TaskStatus) -> tuple[Evidence | None, str]:
    """Return what the backend answers just now, or why it cannot be asked."""
    if task.job_id is None:
        return None, ""
    backend = open_backend(run.profiles.get(task.profile, run.profile))
    try:
        return backend.poll_many([task.job_id]).get(task.job_id), ""
    except MatterStackError as error:
        return None, str(error)
    finally:
        backend.close()


def _witnesses(evidence: Evidence | None, problem: str) -> Iterator[str]:
    if problem:
        yield f"asked now   {problem}"
    elif evidence is not None:
        yield "asked now"
        for field in fields(evidence):
            value = getattr(evidence, field.name)
            if value != field.default and field.name != "job_id":
                yield f"  {field.name:<24}  {printable(str(value))}"
        status = status_of(evidence)
        if not isinstance(evidence, JobStatus):
            yield f"  adds up to                {status.state} {status.reason} {status.detail}".rstrip()


def _awaited(task: TaskStatus, waits_for: list[str], evidence: Evidence | None) -> str:
    if task.state in (State.COMPLETED, State.FAILED):
        return "nothing"
    if waits_for:
        return f"the end of {', '.join(waits_for[:5])}{f' and {len(waits_for) - 5} more' if len(waits_for) > 5 else ''}"
    if task.state == State.PENDING:
        return _AWAITED[task.stage]
    if evidence is not None and status_of(evidence).state in (State.COMPLETED, State.FAILED):
        return "that a controller records its end, and retrieves its results"
    return "its exit record; or, once the queue has not shown it for so long as the profile's waits say, a decision"
