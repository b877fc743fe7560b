"""Questions of ``matterstack.history`` to a large journal, beside the time they may take."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from events import percentile, timed
from measure import Row, progress

import matterstack.history
from journal import NewEvent
from matterstack.core import events as ev
from matterstack.history.past import Past
from matterstack.runtime.opening import open_journal

TASKS_A_RUN = 100_000
BLOCK = 1000  # tasks that go through their states together, as one group of appends
FAILS_EVERY = 2000
PROFILES = ("", "gpu", "large")
BEGIN = 1_790_000_000  # seconds since 1970
SECONDS_A_BLOCK = 40
ASKED = 500


def fill(path: Path, tasks: int) -> int:
    """Make a journal of runs of up to TASKS_A_RUN tasks, five events each, and return how many events it has."""
    now = BEGIN * 1_000_000
    with open_journal(path) as journal:
        for number, first in enumerate(range(0, tasks, TASKS_A_RUN)):
            run, size = f"run-{number:02d}", min(TASKS_A_RUN, tasks - first)
            created = ev.RunCreated(key=f"{number:08d}", name=run, version="bench")
            journal.append(run, [NewEvent("RunCreated", run, ev.encode(created))], at=now)
            for block in range(0, size, BLOCK):
                progress(f"filling: {first + block:,} of {tasks:,} tasks")
                with journal.group():
                    for after_s, events in enumerate(stages(run, range(block, min(block + BLOCK, size)), now / 1e6)):
                        journal.append(run, events, at=now + 10_000_000 * after_s)
                now += SECONDS_A_BLOCK * 1_000_000
        journal.checkpoint()
        return journal.position()


def stages(run: str, numbers: range, now_s: float) -> Iterator[list[NewEvent]]:
    """Yield the events that a block of tasks has at a time: added and requested, submitted, started, ended."""

    def new(make: Callable[[int], ev.Event]) -> list[NewEvent]:
        made = [(f"{run}/task-{number:06d}", make(number)) for number in numbers]
        return [NewEvent(type(event).__name__, subject, ev.encode(event)) for subject, event in made]

    spec = {"command": "vasp_std > out", "cores": 16, "env": {"OMP_NUM_THREADS": "1"}, "time_limit_minutes": 240}
    added = new(lambda n: ev.TaskAdded(order=n, spec_hash=f"{n:064x}", spec={**spec, "task_id": f"task-{n:06d}"}))
    yield added + new(
        lambda n: ev.SubmitRequested(attempt=1, token=f"ms-{run}-{n:012d}", boot="b" * 36, profile=PROFILES[n % 3])
    )
    yield new(lambda n: ev.JobSubmitted(job_id=str(4_000_000 + n)))
    yield new(lambda n: ev.JobStarted(started_at=now_s + 15 + n % 5, node=f"nid{n % 500:05d}"))
    yield new(lambda n: ended(n, now_s + 25 + n % 5))


def ended(number: int, at_s: float) -> ev.Event:
    if number % FAILS_EVERY == 0:
        return ev.TaskFailed(reason="EXIT_CODE", exit_code=1, ended_at=at_s, detail="exit code 1")
    return ev.TaskCompleted(ended_at=at_s)


def rows(place: Path, tasks: int) -> Iterator[Row]:
    path = place / "audit.db"
    begin = time.perf_counter()
    amount = fill(path, tasks)
    among = f"{tasks:,} tasks, {amount:,} events"
    yield Row(f"appended with tables: {among}", amount / (time.perf_counter() - begin), "/s")
    with matterstack.history.open(path) as past:
        yield from small_questions(past)
        yield from large_questions(past)
    yield from verifying(path, amount)


def small_questions(past: Past) -> Iterator[Row]:
    chance = random.Random(1)
    runs = past.runs()
    asked = []
    for _ in range(ASKED):
        run = chance.choice(runs)
        asked.append((run.run, f"task-{chance.randrange(run.completed + run.failed):06d}"))
    questions: dict[str, tuple[Callable[..., object], list[tuple[object, ...]]]] = {
        "latest state of a task": (lambda run, task: past.tasks(run=run, task=task), list(asked)),
        "history of a task": (lambda run, task: past.events(run=run, task=task), list(asked)),
        "timeline of a task": (past.timeline, list(asked)),
        "failed tasks of a run": (lambda run, _: past.tasks(run=run, state="FAILED"), list(asked)),
        "counts by state, all runs": (past.runs, [()] * ASKED),
    }
    for name, (ask, given) in questions.items():
        progress(name)
        taken = timed(ask, given)
        yield Row(f"{name}, p50", percentile(taken, 50), " ms", limit=5, limit_name="at most")
        yield Row(f"{name}, p99", percentile(taken, 99), " ms", limit=5, limit_name="at most")


def large_questions(past: Past) -> Iterator[Row]:
    run = past.runs()[0]
    middle = run.created_at + timedelta(seconds=SECONDS_A_BLOCK * 50)
    end = run.created_at + timedelta(days=3)
    questions: dict[str, tuple[Callable[[], object], float | None]] = {
        "counts over time of a run": (lambda: past.counts_over_time(run.run), 0.5),
        "usage by profile, all runs": (past.usage, 0.5),
        "at(time), its middle, one run": (lambda: past.at(middle, run=run.run), 2),
        "at(time), its end, one run": (lambda: past.at(end, run=run.run), 2),
        "all tasks of a run as rows": (lambda: past.tasks(run=run.run), None),
        "queue wait and run time of a run's attempts": (lambda: past.waits(run=run.run), None),
        "tasks of a run by job id": (lambda: past.tasks(run=run.run, job_id="4000007"), None),
    }
    for name, (ask, limit) in questions.items():
        progress(name)
        taken = sorted(timed(lambda ask=ask: ask(), [()] * 3))[1] / 1000
        yield Row(name, taken, limit=limit, limit_name="at most")


def verifying(path: Path, amount: int) -> Iterator[Row]:
    for name, projections, goal in (("chain", False, 300_000), ("chain and rebuilt tables", True, 100_000)):
        progress(f"verify: {name}")
        with open_journal(path, create=False, read_only=True) as journal:
            begin = time.perf_counter()
            report = journal.verify(projections=projections)
            seconds = time.perf_counter() - begin
        if not report.ok:
            raise SystemExit(f"the journal does not verify: {report.problems[:3]}")
        yield Row(f"verify: {name}", amount / seconds, " events/s", goal=f"{goal:,} events/s")
