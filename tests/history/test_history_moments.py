"""What a run was at a moment in the past is what was seen at that moment, and the fold of the events up to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import matterstack.history
from journal import NewEvent
from matterstack.core import events as ev
from matterstack.core.attempt import fold
from matterstack.core.machine import TRANSITIONS, next_states
from matterstack.core.usage import Usage
from matterstack.runtime.opening import open_journal

TASKS = ("a", "b")
BEGIN = 1_790_000_000_000_000


def moments_of(path):
    with open_journal(path, read_only=True, create=False) as journal:
        return [at for (at,) in journal.query("SELECT DISTINCT at FROM events ORDER BY at")]


def time_of(at):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)


class Walk:
    """Appends one event after another to a run, each legal after those before it."""

    def __init__(self, path, draw):
        self.path, self.draw, self.at = path, draw, BEGIN
        self.dropped: set[str] = set()
        self.renewed = set(TASKS)  # those whose next attempt has another number, as an engine gives it
        self.states, self.numbers, self.orders = dict.fromkeys(TASKS), dict.fromkeys(TASKS, 0), count()
        with open_journal(path) as journal:
            created = ev.RunCreated(key="k", name="run", version="1")
            journal.append("run", [NewEvent("RunCreated", "run", ev.encode(created))], at=self.at)

    def step(self):
        task = self.draw(st.sampled_from(TASKS))
        event = self.next_event(task)
        self.append(task, event, self.draw(st.sampled_from([0, 1, 999_999, 3_000_000])))

    def append(self, task, event, after):
        self.at += after
        with open_journal(self.path) as journal:
            kind = type(event).__name__
            journal.append("run", [NewEvent(kind, f"run/{task}", ev.encode(event))], at=self.at)
        before = self.states[task]
        self.states[task] = "PENDING" if before is None else str(next_states()[kind, before])

    def next_event(self, task):
        if self.states[task] is None:
            return ev.TaskAdded(next(self.orders), "h", {})
        kinds = [kind for kind, sources, _ in TRANSITIONS if self.states[task] in sources]
        # An engine does nothing with a dropped task but take it back.
        kinds = ["TaskChanged"] if task in self.dropped else kinds
        kind, n = self.draw(st.sampled_from(kinds)), self.draw(st.integers(1, 3))
        self.dropped = self.dropped - {task} | ({task} if kind == "TaskDropped" else set())
        if kind == "SubmitRequested":
            self.numbers[task] += task in self.renewed
            self.renewed.discard(task)
        elif kind in ("TaskRetried", "TaskChanged"):
            self.renewed.add(task)
        made = {
            "SubmitRequested": ev.SubmitRequested(max(self.numbers[task], 1), f"t{n}", profile=["", "p", "q"][n - 1]),
            "JobSubmitted": ev.JobSubmitted(str(n)),
            "SubmitUnknown": ev.SubmitUnknown('"reason"'),
            "SubmitRefused": ev.SubmitRefused('{"reason": 1}') if n > 1 else ev.SubmitRefused("no", "LOST"),
            "JobStalled": ev.JobStalled("QOS", 2.0),
            "JobStarted": ev.JobStarted(1000.5 + n, f"node{n}", n) if n > 1 else ev.JobStarted(),
            "TaskCompleted": ev.TaskCompleted(2000.25 + n, detail="done"),
            "TaskFailed": ev.TaskFailed("TIMEOUT", 2000.25 if n > 1 else None, n, 9, "late", "TIMEOUT"),
            "TaskChanged": ev.TaskChanged(next(self.orders), "h2", {}),
            "UsageRecorded": ev.UsageRecorded(n, Usage("sacct", max_rss=n)),
            "FilesRecorded": ev.FilesRecorded(n, {"out": ev.FileSum("0" * 64, n)}),
        }
        return made[kind] if kind in made else ev.TYPES[kind]()


def by_task(rows, **replaced):
    return {row.task: row._replace(**replaced) for row in rows}


def folds(path, at):
    """Return the core's own fold of each task's events up to a moment."""
    events: dict[str, list[ev.Event]] = {}
    with open_journal(path, read_only=True, create=False) as journal:
        for record in journal.read("run"):
            task = record.subject.partition("/")[2]
            if task and record.at <= at:
                events.setdefault(task, []).append(ev.decode(record.type, record.data))
    found = {task: fold(task, given) for task, given in events.items()}
    return {task: attempt for task, attempt in found.items() if not attempt.dropped}


def facts(attempt):
    return (
        *(attempt.state, attempt.number, attempt.reason, attempt.exit_code, attempt.signal, attempt.detail),
        *(attempt.token, attempt.profile, attempt.job_id, attempt.cancel_requested, attempt.stage),
        *(None if s is None else datetime.fromtimestamp(s, UTC) for s in (attempt.started_at, attempt.ended_at)),
    )


def facts_of_row(row):
    return (
        *(row.state, row.attempt, row.reason, row.exit_code, row.signal, row.detail),
        *(row.token, row.profile, row.job_id, row.cancel_requested, row.stage, row.started_at, row.ended_at),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_a_moment_is_what_was_seen_then_and_the_fold_of_the_events_up_to_it(data):
    with TemporaryDirectory() as place:
        path = Path(place) / "j.db"
        walk, seen = Walk(path, data.draw), {}
        for _ in range(data.draw(st.integers(1, 14))):
            walk.step()
            with matterstack.history.open(path) as past:
                seen[walk.at] = by_task(past.tasks(), cancel_requested=False)
        check_moments(path, seen, walk.at + 1)


def check_moments(path, seen, end):
    with matterstack.history.open(path) as past:
        for at in (BEGIN - 1, *moments_of(path), end):
            then = past.at(time_of(at), run="run")
            assert {row.task: facts_of_row(row) for row in then} == {
                task: facts(attempt) for task, attempt in folds(path, at).items()
            }
            if at in seen:
                assert by_task(then, cancel_requested=False) == seen[at]
        check_counts(past)


LIFE = [
    ev.TaskAdded(0, "h", {}),
    ev.SubmitRequested(1, "t1", profile="p"),
    ev.SubmitUnknown("no answer"),
    ev.SubmitAbsent(),
    ev.SubmitRequested(1, "t1", gen=2),
    ev.JobSubmitted("7"),
    ev.JobStalled("QOS", 2.0),
    ev.JobStarted(1000.5, "node1", 12),
    ev.JobRequeued(),
    ev.JobStarted(1001.5, "node2", 13),
    ev.CancelRequested(),
    ev.TaskFailed("CANCELLED", 1002.0, None, 15, "by hand"),
    ev.TaskRetried("asked for"),
    ev.UsageRecorded(1, Usage("sacct", cpu_s=1.5)),
    ev.FilesRecorded(1, {"out": ev.FileSum("0" * 64, 3)}),
    ev.SubmitRequested(2, "t2"),
    ev.JobSubmitted("8"),
    ev.CancelRequested(),
    ev.SubmitAbsent(),
    ev.SubmitRequested(2, "t2", gen=2),
    ev.SubmitRefused("no account"),
    ev.TaskChanged(1, "h2", {}),
    ev.TaskDropped(),
    ev.TaskChanged(2, "h3", {}),
    ev.SubmitRequested(3, "t3"),
    ev.TaskCompleted(1003.0),
]


def test_every_event_has_its_moment(tmp_path):
    assert {type(event).__name__ for event in LIFE} == {"TaskAdded", *(event for event, _, _ in TRANSITIONS)}
    walk, seen = Walk(tmp_path / "j.db", None), {}
    for event in LIFE:
        walk.append("a", event, 700_000)
        with matterstack.history.open(walk.path) as past:
            seen[walk.at] = by_task(past.tasks(), cancel_requested=False)
    check_moments(walk.path, seen, walk.at + 1)


def check_counts(past):
    for row in past.counts_over_time("run", step_s=2):
        states = [task.state for task in past.at(row.time - timedelta(microseconds=1), run="run")]
        counted = tuple(states.count(state) for state in ("PENDING", "RUNNING", "COMPLETED", "FAILED"))
        assert counted == row[1:], row.time


@pytest.mark.parametrize("tasks", [1, 20_001])
def test_runs_larger_than_a_piece_are_folded_whole(tmp_path, tasks):
    added = [NewEvent("TaskAdded", f"run/{i}", ev.encode(ev.TaskAdded(i, "h", {}))) for i in range(tasks)]
    with open_journal(tmp_path / "j.db") as journal:
        created = ev.RunCreated(key="k", name="run", version="1")
        journal.append("run", [NewEvent("RunCreated", "run", ev.encode(created)), *added], at=BEGIN)
    with matterstack.history.open(tmp_path / "j.db") as past:
        assert [row.task for row in past.at(time_of(BEGIN))] == [str(i) for i in range(tasks)]
        assert past.at(time_of(BEGIN - 1)) == []
