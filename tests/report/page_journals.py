"""Journals of runs that never ran, for the pages about them."""

from __future__ import annotations

from itertools import groupby

from journal import NewEvent
from matterstack.core import events as ev
from matterstack.runtime.opening import open_journal

BEGIN = 1_790_000_000  # seconds since 1970
RUN = "run"
NODES = 40


class Story:
    """Events of a run, appended in order of their time."""

    def __init__(self, path, name="A run", profile=None):
        self.path, self.events = path, []
        self.add(0, "", ev.RunCreated(key="k", name=name, version="1", profile=profile or {"backend": "local"}))

    def add(self, after_s, task, event):
        self.events.append(
            (BEGIN + after_s, NewEvent(type(event).__name__, f"{RUN}/{task}".rstrip("/"), ev.encode(event)))
        )

    def task(self, order, name, needs=()):
        spec = {"command": "true"} | ({"dependencies": list(needs)} if needs else {})
        self.add(0, name, ev.TaskAdded(order=order, spec_hash=f"{order:032x}", spec=spec))

    def attempt(self, name, number=1, *, at, waits=5, job_id=None, node="n1", profile=""):
        """Add an attempt that began to run."""
        self.add(at, name, ev.SubmitRequested(attempt=number, token=f"ms-{name}-{number}", profile=profile))
        self.add(at, name, ev.JobSubmitted(job_id=job_id or f"{RUN}/{name}/{number}"))
        self.add(at + waits, name, ev.JobStarted(started_at=BEGIN + at + waits, node=node))

    def completed(self, name, at):
        self.add(at, name, ev.TaskCompleted(ended_at=BEGIN + at, exit_code=0))

    def failed(self, name, at, reason="EXIT_CODE", exit_code=3, detail=""):
        self.add(at, name, ev.TaskFailed(reason=reason, ended_at=BEGIN + at, exit_code=exit_code, detail=detail))

    def write(self):
        """Append what was added since the last time; return the journal's path."""
        self.events.sort(key=lambda one: one[0])
        with open_journal(self.path) as journal, journal.group():
            for at, together in groupby(self.events, key=lambda one: one[0]):
                journal.append(RUN, [event for _, event in together], at=round(at * 1e6))
        self.events = []
        return self.path


def large(path, tasks=10_000, name="relax-{:05d}-of-a-long-campaign", job_id=None):
    """Write a run of chains of four tasks, each tenth failed, each twentieth after a retry; return the path."""
    story = Story(path)
    for i in range(tasks):
        task, at = name.format(i), 10 + i % 997
        story.task(i, task, [name.format(i - 1)] if i % 4 else [])
        story.attempt(
            task,
            at=at,
            job_id=job_id and job_id.format(i),
            waits=3 + i % 60,
            node=f"nid{i % NODES:05d}",
            profile=("", "gpu")[i % 2],
        )
        end = at + 100 + i % 300
        if i % 20 == 0:
            story.failed(task, end, "NODE_FAIL", None, f"node nid{i % NODES:05d} is gone")
            story.add(end + 1, task, ev.TaskRetried(why="policy"))
            story.attempt(task, 2, at=end + 2, node="nid00099")
            end += 200
        if i % 10 == 0:
            story.failed(task, end)
        else:
            story.completed(task, end)
    return story.write()
