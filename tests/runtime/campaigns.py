"""Small campaigns, and what their journals must satisfy afterwards."""

from __future__ import annotations

from pathlib import Path

from matterstack import Task, Workflow, WorkflowResult, run_workflow
from matterstack.core import events as ev
from matterstack.core.attempt import fold
from matterstack.runtime.opening import open_journal
from matterstack.runtime.projections import REQUESTS
from matterstack.runtime.state import load_attempts, load_counts


def states(result: WorkflowResult) -> dict[str, str]:
    """Return state, or reason where there is one, by task id."""
    return {task_id: task.reason or str(task.state) for task_id, task in result.items()}


def events(journal: Path, run: str, kind: str = "") -> list[tuple[str, str]]:
    """Return (task, event type) in the order in which they were recorded."""
    with open_journal(journal, read_only=True, create=False) as opened:
        records = list(opened.read(run))
    return [(r.subject.partition("/")[2], r.type) for r in records if kind in ("", r.type)]


def check_journal(path: Path) -> None:
    """Fail unless the journal verifies, its tables are the fold of its events, and no attempt started twice."""
    with open_journal(path, read_only=True, create=False) as journal:
        report = journal.verify()
        assert report.ok, report.problems
        for (run,) in journal.query("SELECT run FROM runs"):
            attempts = load_attempts(journal, run)
            by_task: dict[str, list[ev.Event]] = {task: [] for task in attempts}
            for record in journal.read(run):
                task = record.subject.partition("/")[2]
                if task:
                    by_task[task].append(ev.decode(record.type, record.data))
            assert not run.endswith(REQUESTS)
            for task, known in attempts.items():
                assert fold(task, by_task[task]) == known
                check_attempts(by_task[task])
            counts = dict.fromkeys(load_counts(journal, run), 0)
            for known in attempts.values():
                counts[known.state] += not known.dropped
            assert counts == load_counts(journal, run)


def check_attempts(history: list[ev.Event]) -> None:
    """Fail when an attempt started or ended twice, or a job was recorded before its intent."""
    number, started, finished, requested = 0, 0, 0, False
    for event in history:
        match event:
            case ev.SubmitRequested():
                assert event.attempt >= number
                if event.attempt > number:
                    started = finished = 0
                number, requested = event.attempt, True
            case ev.JobSubmitted():
                assert requested, "a job before its intent"
            case ev.JobStarted():
                started += 1
                assert started == 1, f"attempt {number} started twice"
            case ev.TaskCompleted() | ev.TaskFailed():
                finished += 1
                assert finished == 1, f"attempt {number} ended twice"
            case ev.TaskRetried() | ev.TaskChanged():
                finished, requested = 0, False


def diamond(log: Path) -> Workflow:
    """Return six tasks: a chain of files into a fork, a join, one that fails and one that depends on it."""
    workflow = Workflow("diamond")

    def mark(name: str, command: str = ":") -> str:
        return f"echo started >>{log}/{name}; {command}"

    top = workflow.add(Task(mark("top", "echo 1 >out"), "top", outputs=["out"]))
    for side in ("left", "right"):
        files = {"in": top.output("out")}
        workflow.add(Task(mark(side, f"(cat in; echo {side}) >out"), side, files=files))
    sides = {f"{side}.txt": workflow[side].output("out") for side in ("left", "right")}
    workflow.add(Task(mark("join", "cat left.txt right.txt"), "join", files=sides))
    workflow.add(Task(mark("fails", "exit 3"), "fails"))
    workflow.add(Task(mark("blocked"), "blocked", dependencies=["fails"]))
    return workflow


DIAMOND_ENDS = {
    "top": "COMPLETED",
    "left": "COMPLETED",
    "right": "COMPLETED",
    "join": "COMPLETED",
    "fails": "EXIT_CODE",
    "blocked": "DEPENDENCY_FAILED",
}


def simple(name: str, *tasks: Task) -> Workflow:
    """Return a workflow of the tasks."""
    return Workflow(name, tasks)


__all__ = ["DIAMOND_ENDS", "check_journal", "diamond", "events", "run_workflow", "simple", "states"]
