"""``explain``: what is believed of a task, on which witnesses, and what is awaited."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from msgspec.structs import asdict, fields

from matterstack.cli.text import as_json, moment
from matterstack.config.profiles import open_backend
from matterstack.core.evidence import Evidence, JobStatus, SlurmEvidence
from matterstack.core.machine import State
from matterstack.core.policy import UNDECIDED
from matterstack.core.printable import printable
from matterstack.core.reconcile import status_of
from matterstack.core.slurm_words import stall_of
from matterstack.errors import MatterStackError
from matterstack.history import History, PastEvent, RunStatus, TaskStatus
from matterstack.runtime.opening import find_journal

_LISTED = 5


def explain(arguments: argparse.Namespace) -> int:
    """Say what is believed of a task, and why."""
    with History(find_journal(arguments.journal)) as history:
        run = history.status(history.run(arguments.run))
        task = history.task(run.run, arguments.task)
        facts = [event for event in history.events(run.run, task.task) if event.type != "TaskAdded"]
        evidence, problem = (None, "") if arguments.no_ask else _asked(run, task)
        needs = _needs(history, run, task) if task.stage == "waiting" else []
    waits_for = [need.task for need in needs]
    awaited = _awaited(run, task, needs, facts, evidence)
    if arguments.json:
        found = None if evidence is None else {"kind": type(evidence).__name__, **asdict(evidence)}
        told = {"run": run.run, **task._asdict(), "facts": [fact._asdict() for fact in facts]}
        print(as_json({**told, "evidence": found, "problem": problem, "waits_for": waits_for, "awaited": awaited}))
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
    print(f"awaited     {printable(awaited)}")
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


def _needs(history: History, run: RunStatus, task: TaskStatus) -> list[TaskStatus]:
    """Return the tasks without whose end, or without a decision on which, this one does not go on."""
    names = history.unfinished_needs(run.run, task.task)
    needs = [history.task(run.run, name) for name in names]
    return [need for need in needs if need.state != State.FAILED or need.reason in UNDECIDED]


def _awaited(
    run: RunStatus,
    task: TaskStatus,
    needs: Sequence[TaskStatus],
    facts: Sequence[PastEvent],
    evidence: Evidence | None,
) -> str:
    """Return what has to happen before the task goes on."""
    if task.state in (State.COMPLETED, State.FAILED):
        return "nothing"
    if evidence is not None and status_of(evidence).state in (State.COMPLETED, State.FAILED):
        return "that a controller records its end, and retrieves its results"
    match task.stage:
        case "waiting":
            return _awaited_needs(run, needs) if needs else _awaited_controller(run, facts)
        case "submitting":
            asks = f"a controller that asks whether it was submitted: `matterstack resume {run.run}`"
            answer = "the backend's answer, or that no job of its name is there when the settling time is over"
            return answer if run.controller else asks
        case "queued":
            stall = _stall(facts, evidence)
            told = f"; Slurm will not start it as it is: {stall}. `matterstack cancel {run.run} {task.task}` ends it"
            return f"its start{told if stall else ''}"
    return "its exit record; or, once the queue has not shown it for so long as the profile's waits say, a decision"


def _awaited_needs(run: RunStatus, needs: Sequence[TaskStatus]) -> str:
    open_needs = [need.task for need in needs if need.state != State.FAILED]
    if open_needs:
        return f"the end of {_some(open_needs)}"
    unknown = _some([need.task for need in needs])
    return (
        f"your decision on {unknown}, of which it is not known how it ended: "
        f"`matterstack resume {run.run} --retry-interrupted` tries again"
    )


def _awaited_controller(run: RunStatus, facts: Sequence[PastEvent]) -> str:
    """Return what a task awaits that depends on nothing more and of which no backend has a job."""
    again = " again" if facts and facts[-1].type == "SubmitAbsent" else ""
    back = f"; {facts[-1].data.get('detail') or 'it was not submitted'}" if again else ""
    if run.controller is None:
        return f"a controller that submits it{again}: `matterstack resume {run.run}`{back}"
    return f"that its controller submits it{again}, when its turn comes{back}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _stall(facts: Sequence[PastEvent], evidence: Evidence | None) -> str:
    """Return Slurm's word where it will not start the job as it is: the one of just now, else the recorded one."""
    if isinstance(evidence, SlurmEvidence):
        return stall_of(evidence.queue_reason)
    told = [fact.data.get("reason", "") for fact in facts if fact.type in ("JobStalled", "SubmitRequested")]
    return str(told[-1]) if told else ""
