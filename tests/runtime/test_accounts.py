"""What ended attempts used is asked for beside the work, once each, and never in its way."""

import pytest

from matterstack import Task, Workflow, run_workflow
from matterstack.core.machine import State
from matterstack.core.usage import Usage
from matterstack.errors import BackendUnavailable
from matterstack.runtime import accounts
from matterstack.runtime.accounts import EVERY_S, GIVE_UP_S, Accounts
from matterstack.runtime.backends.base import ComputeBackend, JobStatus, Submission
from matterstack.runtime.opening import open_journal


class Told(ComputeBackend):
    """Runs nothing: every job has ended at once. ``usage``: what is answered, in turn; an error is raised."""

    def __init__(self, *usage, fails=0):
        self.usage, self.asked, self.fails, self.jobs = list(usage), [], fails, 0

    def submit(self, task):
        self.jobs += 1
        return f"job-{self.jobs}"

    def poll(self, job_id):
        failed = int(job_id.partition("-")[2]) <= self.fails
        state, reason = (State.FAILED, "NODE_FAIL") if failed else (State.COMPLETED, "")
        return JobStatus(job_id, state, reason, exit_code=None if failed else 0, started_at=10.0, ended_at=20.0)

    def get_logs(self, job_id):
        return {"stdout": "", "stderr": ""}

    def cancel(self, job_id):
        pass

    def usage_many(self, job_ids):
        self.asked.append(sorted(job_ids))
        answer = self.usage.pop(0) if len(self.usage) > 1 else self.usage[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, dict) else dict.fromkeys(job_ids, answer)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


USED = Usage("sacct", cpus=4, elapsed_s=10.0, cpu_s=20.0, max_rss=2_000_000_000, account="acct")
TASK = Task("true", "a", cores=4, memory_gb=8, time_limit_minutes=60, max_attempts=2, retry="if-not-started")


def owing(backend):
    clock = Clock()
    found = Accounts(backend, clock)
    found.know("job-1", Submission(TASK, "run", 1, "t"))
    found.ended("job-1")
    return found, clock


def recorded(path):
    with open_journal(path, create=False, read_only=True) as opened:
        return [r.data for r in opened.read("run") if r.type == "UsageRecorded"]


def test_it_is_asked_some_time_after_the_end_and_told_once():
    backend = Told(USED)
    found, clock = owing(backend)
    assert found.ask() == []
    assert backend.asked == []
    clock.now = EVERY_S
    (told,) = found.ask()
    assert (told.task_id, told.event.attempt, told.event.usage) == ("a", 1, USED)
    assert (told.event.cores, told.event.memory, told.event.limit_s) == (4, 8_000_000_000, 3600.0)
    found.settle([told])
    clock.now = 9 * EVERY_S
    assert not found.owing
    assert found.ask() == []
    assert len(backend.asked) == 1


def test_what_is_never_known_is_told_as_unknown_with_its_cause():
    found, clock = owing(Told({}, BackendUnavailable("hpc", "sacct", "no route"), {}))
    clock.now = EVERY_S
    assert found.ask() == []
    clock.now = GIVE_UP_S
    assert found.ask() == []
    clock.now = GIVE_UP_S + EVERY_S
    (told,) = found.ask()
    assert (told.event.usage.source, told.event.usage.unknown) == ("", "accounting does not know it")


def test_a_run_at_its_end_asks_at_once_and_forgets_soon():
    found, clock = owing(Told({}))
    found.last_call()
    assert found.ask() == []
    assert found.owing
    clock.now = accounts.END_S
    assert found.ask() == []
    assert not found.owing


@pytest.mark.parametrize("answer", [KeyError("x"), {}])
def test_what_a_run_did_not_learn_its_next_controller_asks_for(tmp_path, monkeypatch, answer):
    monkeypatch.setattr(accounts, "END_S", 0.0)
    path = tmp_path / "journal.db"
    workflow = Workflow("run", [TASK, Task("true", "b")])
    assert run_workflow(workflow, backend=Told(answer), journal=path).ok
    assert recorded(path) == []
    later = Told({"job-2": USED})
    assert run_workflow(workflow, backend=later, journal=path).ok
    assert (later.jobs, later.asked, len(recorded(path))) == (0, [["job-1", "job-2"]], 1)
    monkeypatch.setattr(accounts, "GIVE_UP_S", -1.0)
    last = Told({})
    assert run_workflow(workflow, backend=last, journal=path).ok
    assert last.asked == [["job-1"]]
    assert run_workflow(workflow, backend=last, journal=path).ok
    assert (len(last.asked), len(recorded(path))) == (1, 2)


def test_of_an_earlier_version_of_a_task_nothing_is_asked_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "END_S", 0.0)
    path = tmp_path / "journal.db"
    assert run_workflow(Workflow("run", [TASK]), backend=Told({}), journal=path).ok
    backend = Told({})
    backend.jobs = 7
    assert run_workflow(Workflow("run", [Task("true; true", "a")]), backend=backend, journal=path).ok
    assert backend.asked == [["job-8"]]


class Silent(Told):
    usage_many = ComputeBackend.usage_many


def test_a_backend_of_four_methods_is_not_asked(tmp_path):
    path = tmp_path / "journal.db"
    assert run_workflow(Workflow("run", [TASK]), backend=Silent(), journal=path).ok
    assert recorded(path) == []


@pytest.mark.parametrize("count", [1, 50])
def test_every_attempt_is_recorded_once_by_the_end_of_the_run(tmp_path, count):
    path = tmp_path / "journal.db"
    backend = Told(USED)
    tasks = [Task("true", f"t{n}") for n in range(count)]
    assert run_workflow(Workflow("run", tasks), backend=backend, journal=path).ok
    assert len(recorded(path)) == count
    assert len(backend.asked) <= 3
