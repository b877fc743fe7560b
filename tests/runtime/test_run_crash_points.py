"""The controller dies at every point where it can: before and after each commit and each effect.

The backend's tasks go on, the next controller has the same journal and workspace. Each point is tried.
"""

from __future__ import annotations

import threading
from functools import partial

import pytest
from campaigns import DIAMOND_ENDS, check_journal, diamond, states
from example_backend import PopenBackendWithFiles

from matterstack import Task, Workflow, run_workflow
from matterstack.core import events as ev
from matterstack.errors import BackendBroken
from matterstack.runtime import run as runs
from matterstack.runtime.backends.local import LocalBackend
from matterstack.runtime.writer import InlineWriter


class Crash(BaseException):
    """The end of the controller; no handler of exceptions survives it."""


# A commit of several events goes by the first of these.
TOLD = {
    ev.TaskAdded: "a new run",
    ev.SubmitRequested: "intents to submit",
    ev.JobSubmitted: "job ids",
    ev.CancelRequested: "intents to cancel",
    ev.TaskCompleted: "ends",
    ev.TaskFailed: "ends",
    ev.JobStarted: "starts",
    ev.RunStopped: "the end of the run",
}


class Fuse:
    """Burns down by one at each point and ends the controller at the last; from then on nothing happens.

    ``where``: in words, the point at which it blew.
    """

    def __init__(self, length):
        self.left = length
        self.blown = False
        self.where = ""

    def point(self, where):
        if self.blown:
            raise Crash
        self.left -= 1
        if self.left <= 0:
            self.blown, self.where = True, where
            raise Crash


class CrashingWriter(InlineWriter):
    """Dies around commits, and between the effects that a commit releases."""

    fuse: Fuse

    def __init__(self, journal, run, lease):
        super().__init__(journal, run, lease)
        self.version = lambda: journal.head(run).version

    def write(self, facts, effects):
        kinds = {type(event) for _, event in facts}
        what = next((words for kind, words in TOLD.items() if kind in kinds), "other events")
        self.fuse.point(f"before the commit of {what}")
        committed = self.version() + len(facts)

        def release(effect):
            assert self.version() == committed, "an effect before its commit"
            self.fuse.point(f"after the commit of {what}, before an effect")
            effect()
            self.fuse.point(f"after the commit of {what} and an effect")

        super().write(facts, [partial(release, effect) for effect in effects])
        self.fuse.point(f"after the commit of {what} and all effects")


class CrashingBackend(LocalBackend):
    """Dies around what it does to the world."""

    fuse: Fuse

    def submit_many(self, submissions):
        answers = []
        for submission in submissions:
            self.fuse.point("before a submission")
            answers += super().submit_many([submission])
            self.fuse.point("after a submission")
        return answers

    def cancel_many(self, job_ids):
        self.fuse.point("before a cancel")
        super().cancel_many(job_ids)
        self.fuse.point("after a cancel")

    def withdraw(self, job_ids):
        self.fuse.point("before a withdrawal")
        taken = super().withdraw(job_ids)
        self.fuse.point("after a withdrawal")
        return taken

    def retrieve(self, job_id, name):
        self.fuse.point("before a retrieval")
        return super().retrieve(job_id, name)

    def wait(self, timeout_s, interrupted):
        if self.fuse.blown:
            raise Crash
        super().wait(timeout_s, interrupted)


def run_until_crash(length, workflow, root, journal, monkeypatch, **options):
    """Return the result of a run that outlived its fuse, or None, and where it died."""
    fuse = Fuse(length)
    monkeypatch.setattr(CrashingWriter, "fuse", fuse, raising=False)
    monkeypatch.setattr(CrashingBackend, "fuse", fuse, raising=False)
    backend = CrashingBackend(root, max_concurrent_tasks=2, grace_s=1)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(runs, "InlineWriter", CrashingWriter)
            return run_workflow(workflow, backend=backend, journal=journal, **options), ""
    except (Crash, BackendBroken):
        assert fuse.blown
        return None, fuse.where
    finally:
        backend.close()


def finish(workflow, root, journal, **options):
    backend = LocalBackend(root, max_concurrent_tasks=2, grace_s=1)
    result = run_workflow(workflow, backend=backend, journal=journal, **options)
    backend.close()
    return result


@pytest.mark.parametrize("parity", [0, 1])
def test_every_task_starts_once_wherever_the_controller_dies(tmp_path, monkeypatch, died, parity):
    for length in range(1 + parity, 1000, 2):
        here = tmp_path / str(length)
        log, root, journal = here / "log", here / "results", here / "journal.db"
        log.mkdir(parents=True)
        survived, where = run_until_crash(length, diamond(log), root, journal, monkeypatch)
        result = finish(diamond(log), root, journal)
        assert states(result) == DIAMOND_ENDS, f"point {length}"
        assert result["join"].logs()["stdout"] == "1\nleft\n1\nright\n"
        starts = {path.name: path.read_text() for path in log.iterdir()}
        assert starts == dict.fromkeys(DIAMOND_ENDS.keys() - {"blocked"}, "started\n"), f"point {length}"
        assert {task: result[task].attempts for task in result} == {**dict.fromkeys(starts, 1), "blocked": 0}
        check_journal(journal)
        died("LocalBackend", where)
        if survived is not None:
            assert length > 20, "the fuse did not meet the run"
            return
    pytest.fail("no run outlived its fuse")


def test_what_has_started_is_not_refused_when_its_input_is_gone_since(tmp_path, monkeypatch, died):
    """The output that a task takes is removed while no controller is there; the attempt in doubt has its own copy."""
    ends = set()
    for length in range(1, 1000):
        here = tmp_path / str(length)
        log, root, journal = here / "log", here / "results", here / "journal.db"
        log.mkdir(parents=True)
        workflow = Workflow("run")
        first = workflow.add(Task(f"echo started >>{log}/first; echo 1 >out", "first", outputs=["out"]))
        workflow.add(Task(f"echo started >>{log}/second; cat in", "second", files={"in": first.output("out")}))
        survived, where = run_until_crash(length, workflow, root, journal, monkeypatch)
        (root / "run/first/1/out").unlink(missing_ok=True)
        end = states(finish(workflow, root, journal))
        starts = {path.name: path.read_text() for path in log.iterdir()}
        assert starts["first"] == "started\n", f"point {length}"
        assert starts.get("second") == ("started\n" if end["second"] == "COMPLETED" else None), f"point {length}: {end}"
        check_journal(journal)
        ends.add(end["second"])
        died("LocalBackend", where)
        if survived is not None:
            assert ends == {"COMPLETED", "SUBMIT_REFUSED"}
            return
    pytest.fail("no run outlived its fuse")


def test_a_controller_that_dies_again_and_again_gets_done(tmp_path, monkeypatch):
    log, root, journal = tmp_path / "log", tmp_path / "results", tmp_path / "journal.db"
    log.mkdir()
    for length in range(6, 400):
        if run_until_crash(length, diamond(log), root, journal, monkeypatch)[0]:
            break
    assert states(finish(diamond(log), root, journal)) == DIAMOND_ENDS
    assert {path.read_text() for path in log.iterdir()} == {"started\n"}
    check_journal(journal)


def test_fail_fast_is_repeatable_wherever_the_controller_dies(tmp_path, monkeypatch, died):
    for length in range(1, 1000, 3):
        here = tmp_path / str(length)
        log, root, journal = here / "log", here / "results", here / "journal.db"
        log.mkdir(parents=True)
        survived, where = run_until_crash(length, diamond(log), root, journal, monkeypatch, fail_fast=True)
        result = finish(diamond(log), root, journal)
        assert states(result) == DIAMOND_ENDS, f"point {length}"
        assert {path.read_text() for path in log.iterdir()} == {"started\n"}, f"point {length}"
        check_journal(journal)
        died("LocalBackend", where)
        if survived is not None:
            return
    pytest.fail("no run outlived its fuse")


def test_replacing_live_tasks_is_repeatable_wherever_the_controller_dies(tmp_path, monkeypatch, died):
    """The old attempt is cancelled before the new one starts, and neither starts twice."""
    for length in range(1, 1000, 2):
        here = tmp_path / str(length)
        root, journal = here / "results", here / "journal.db"
        here.mkdir()
        wait = f"while [ ! -e {here}/gate ]; do sleep 0.02; done"
        first = Workflow("run", [Task(f"echo old >>{here}/a; {wait}", "a"), Task(f"echo old >>{here}/b; {wait}", "b")])
        second = Workflow("run", [Task(f"echo new >>{here}/a", "a"), Task(f"echo old >>{here}/b; {wait}", "b")])
        second.add(Task(f"echo new >>{here}/c", "c", dependencies=["a"]))

        def both_run(progress):
            if len(progress.running) == 2:
                raise Crash

        backend = LocalBackend(root, max_concurrent_tasks=2, grace_s=1)
        with pytest.raises(Crash):
            run_workflow(first, backend=backend, journal=journal, progress=both_run)
        backend.close()
        threading.Timer(0.2, (here / "gate").touch).start()
        survived, where = run_until_crash(length, second, root, journal, monkeypatch, replace=True)
        result = finish(second, root, journal, replace=True)
        assert states(result) == {"a": "COMPLETED", "b": "COMPLETED", "c": "COMPLETED"}, f"point {length}"
        assert (here / "a").read_text() == "old\nnew\n", f"point {length}"
        assert (here / "b").read_text() == "old\n", f"point {length}"
        assert (here / "c").read_text() == "new\n", f"point {length}"
        check_journal(journal)
        died("LocalBackend", where)
        if survived is not None:
            return
    pytest.fail("no run outlived its fuse")


class CrashingOther(PopenBackendWithFiles):
    """A backend that cannot tell whether an attempt was submitted; its processes outlive the controller."""

    fuse: Fuse

    def submit(self, task):
        self.fuse.point("before a submission")
        job_id = super().submit(task)
        self.fuse.point("after a submission")
        return job_id

    def wait(self, timeout_s, interrupted):
        if self.fuse.blown:
            raise Crash
        super().wait(timeout_s, interrupted)


def test_a_backend_that_cannot_find_its_jobs_again_starts_nothing_twice_either(tmp_path, monkeypatch, died):
    for length in range(1, 1000):
        log, journal = tmp_path / f"log{length}", tmp_path / f"{length}.db"
        log.mkdir()
        fuse = Fuse(length)
        monkeypatch.setattr(CrashingOther, "fuse", fuse, raising=False)
        backend = CrashingOther()
        with monkeypatch.context() as patch:
            patch.setattr(runs, "InlineWriter", CrashingWriter)
            patch.setattr(CrashingWriter, "fuse", fuse, raising=False)
            try:
                survived = run_workflow(diamond(log), backend=backend, journal=journal)
            except (Crash, BackendBroken):
                survived = None
        where = fuse.where
        fuse.blown, fuse.left = False, 10**9
        result = run_workflow(diamond(log), backend=backend, journal=journal)
        ends = states(result)
        assert {path.read_text() for path in log.iterdir()} <= {"started\n"}, f"point {length}"
        assert all(ends[name] in (DIAMOND_ENDS[name], "LOST", "PENDING") for name in ends), f"point {length}: {ends}"
        assert bool(result.undecided) == ("LOST" in ends.values())
        check_journal(journal)
        died("a backend that cannot look up", where)
        if survived is not None:
            assert ends == DIAMOND_ENDS
            return
    pytest.fail("no run outlived its fuse")
