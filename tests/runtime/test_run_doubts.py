"""Where a run could believe or do what is not so: elsewhere, after a reboot, with foreign or altered facts."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess

import pytest
from campaigns import check_journal, states
from example_backend import PopenBackend
from watching import eventually, python

from journal import JournalError
from matterstack import Task, Workflow, resume, run_workflow
from matterstack.core import events as ev
from matterstack.errors import BackendBroken, BackendUnavailable, RunError
from matterstack.runtime.backends.local import LocalBackend, processes, record, shell, store
from matterstack.runtime.backends.local.shell import SlotShell
from matterstack.runtime.opening import open_journal
from matterstack.runtime.requests import ask
from matterstack.runtime.run import Options

CONTROLLER = """
import sys
from matterstack import Task, Workflow, run_workflow
from matterstack.runtime.backends.local import LocalBackend
place = sys.argv[1]
wait = f"while [ ! -e {place}/gate ]; do sleep 0.02; done"
tasks = [Task(f"echo >>{place}/start.t{i}; {wait}", f"t{i}") for i in range(4)]
run_workflow(Workflow("run", tasks), backend=LocalBackend(f"{place}/results", 1), journal=f"{place}/journal.db")
"""


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def killed(tmp_path, journal):
    """A run whose controller was killed while the first of four tasks ran and the others were queued."""
    process = python(CONTROLLER, tmp_path)

    def submitted():
        try:
            with open_journal(journal, create=False, read_only=True) as opened:
                rows = opened.query("SELECT state, count(*) FROM tasks WHERE job_id IS NOT NULL GROUP BY state")
                return dict(rows) == {"RUNNING": 1, "PENDING": 3}
        except JournalError:  # it is being made
            return False

    eventually(submitted)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    yield
    (tmp_path / "gate").touch()


def starts(tmp_path):
    return {path.name[6:]: path.read_text().count("\n") for path in sorted(tmp_path.glob("start.*"))}


def test_a_line_that_was_cut_anywhere_is_not_begun(tmp_path, monkeypatch):
    sent = []
    whole = SlotShell(str(tmp_path), dict(os.environ), 1)
    monkeypatch.setattr(
        SlotShell, "_write", lambda self, text: sent.append(text) or os.write(self._input, text.encode())
    )
    command = shell.payload(Task("echo 'a b' >>ran; echo 'c d' >>ran", "a"), {"A": "x y"})
    (tmp_path / "run/a/1").mkdir(parents=True)
    whole.start("run/a/1", None, 1, "-", command)
    assert whole.answer() is True
    whole.close()
    line = sent[-1]
    for cut in range(1, line.index(" end;") + len(" end")):
        directory = tmp_path / "run/a/2"
        directory.mkdir()
        process = subprocess.Popen(
            ["bash", "-p", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        prelude = shell.PRELUDE.replace("BOOT", "b").replace("ROOT", shell.quote(str(tmp_path)))
        process.communicate((prelude + line[:cut].replace("a/1", "a/2")).encode())
        assert list(directory.iterdir()) == [], cut
        directory.rmdir()


def test_live_attempts_are_not_looked_for_in_another_workspace(killed, tmp_path, journal):
    workflow = Workflow("run", [Task("true", "more")])
    with pytest.raises(RunError, match=r"4 tasks are submitted or running in .*results.*Nothing was started"):
        resume("run", backend=LocalBackend(tmp_path / "other", 1), journal=journal)
    with pytest.raises(RunError, match="submitted or running"):
        run_workflow(workflow, backend=LocalBackend(tmp_path / "other", 1), journal=journal)
    (tmp_path / "gate").touch()
    assert resume("run", journal=journal).ok
    assert starts(tmp_path) == {f"t{i}": 1 for i in range(4)}


def test_a_reboot_is_not_forgotten_by_a_command_in_between(killed, tmp_path, journal, monkeypatch):
    for module in (processes, shell, store):
        monkeypatch.setattr(module, "boot_id", lambda: "00000000-another-boot")
    resume("run", journal=journal, options=Options(cancel=["t3"], only_cancel=True))
    result = resume("run", journal=journal)
    assert {name: (one.state, one.reason) for name, one in result.items()} == {
        "t0": ("FAILED", "INTERRUPTED"),
        "t1": ("FAILED", "LOST"),
        "t2": ("FAILED", "LOST"),
        "t3": ("FAILED", "CANCELLED"),
    }
    assert starts(tmp_path) == {"t0": 1}


def test_a_record_of_another_journal_is_not_ours_even_without_the_queue(tmp_path, journal, local):
    def run(word):
        return run_workflow(Workflow("run", [Task(f"echo {word}", "a")]), backend=local(), journal=journal)

    assert run("one")["a"].logs()["stdout"] == "one\n"
    local().close()
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "results/.matterstack")
    second = run("two")["a"]
    assert (second.state, second.reason) == ("FAILED", "SUBMIT_REFUSED")
    assert "another run's task" in second.detail


def test_a_task_that_removed_its_record_is_not_put_back(tmp_path, journal, local):
    removed = tmp_path / "removed"
    command = f"rm {record.RECORD}; touch {removed}; while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done"
    looks = []

    def watch(progress):
        looks.append(dict(progress.counts))
        if removed.exists() and sum(looks[-1] == one for one in looks) > 5:
            (tmp_path / "gate").touch()

    result = run_workflow(
        Workflow("run", [Task(f"sleep 0.5; {command}", "a")]), backend=local(), journal=journal, progress=watch
    )
    assert (result["a"].state, result["a"].reason) == ("FAILED", "LOST")
    with open_journal(journal, create=False) as opened:
        assert not [one for one in opened.read("run") if one.type == "JobRequeued"]


def test_an_altered_spec_is_not_run(tmp_path, journal, local):
    run_workflow(Workflow("run", [Task("exit 1", "a")]), backend=local(), journal=journal)
    connection = sqlite3.connect(journal)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        if "events" in name:
            connection.execute(f"DROP TRIGGER {name}")
    changed = connection.execute(
        "UPDATE events SET data = replace(data, 'exit 1', 'exit 0') WHERE data LIKE '%exit 1%'"
    )
    assert changed.rowcount == 1
    connection.commit()
    connection.close()
    with pytest.raises(RunError, match=r"altered after it was recorded.*verify"):
        resume("run", backend=local(), journal=journal, options=Options(retry=["a"]))


def test_a_request_that_nobody_acted_on_is_work(tmp_path, journal, local):
    mended = tmp_path / "mended"
    run_workflow(Workflow("run", [Task(f"test -e {mended}", "a")]), backend=local(), journal=journal)
    mended.touch()
    with open_journal(journal) as opened:
        ask(opened, "run", ev.RetryRequested("somebody"), ["a"])
    assert states(resume("run", backend=local(), journal=journal)) == {"a": "COMPLETED"}


def test_failing_fast_counts_failures_of_this_time_only(tmp_path, journal, local):
    mended = tmp_path / "mended"
    tasks = [Task("exit 1", "a"), Task(f"test -e {mended}", "b")]
    run_workflow(Workflow("run", tasks), backend=local(), journal=journal)
    mended.touch()
    result = resume("run", backend=local(), journal=journal, options=Options(retry=["b"], fail_fast=True))
    assert states(result) == {"a": "EXIT_CODE", "b": "COMPLETED"}


@pytest.mark.parametrize(
    ("name", "nth"),
    [("add", 1), ("acquire", 1), ("acquire", 2), ("hand_over", 1), ("hand_over", 2), ("end", 1), ("release", 1)],
)
def test_a_queue_that_cannot_be_written_once_fails_nothing(tmp_path, journal, local, monkeypatch, name, nth):
    """Every call of the queue's database may fail; the run pauses and goes on."""
    whole, calls = getattr(store.JobStore, name), []

    def fails_once(self, *args, **options):
        calls.append(name)
        if len(calls) == nth:
            raise BackendUnavailable("local", "write the queue", "no space")
        return whole(self, *args, **options)

    monkeypatch.setattr(store.JobStore, name, fails_once)
    tasks = [Task(f"echo >>{tmp_path}/start.t{i}; sleep 0.2", f"t{i}", cores=1 + i % 2) for i in range(8)]
    result = run_workflow(Workflow("run", tasks), backend=local(2), journal=journal)
    assert len(calls) >= nth
    assert set(states(result).values()) == {"COMPLETED"}
    assert starts(tmp_path) == {f"t{i}": 1 for i in range(8)}
    check_journal(journal)


@pytest.mark.parametrize("answer", [7, None])
def test_a_job_id_that_is_no_text_stops_the_run_with_a_clear_error(journal, answer):
    class Odd(PopenBackend):
        def submit(self, task):
            super().submit(task)
            return answer

    with pytest.raises(BackendBroken, match=r"submit returned .*; a job id is text"):
        run_workflow(Workflow("run", [Task("true", "a")]), backend=Odd(), journal=journal)


def test_other_things_than_workflows_backends_and_tasks_are_refused_by_type(journal, local):
    with pytest.raises(TypeError, match="run_workflow takes a Workflow, not list"):
        run_workflow([Task("true", "a")], journal=journal)
    with pytest.raises(TypeError, match="goes to `profile`"):
        run_workflow(Workflow("run"), backend="local", journal=journal)
    with pytest.raises(TypeError, match="submit takes a Task, not str"):
        local().submit("echo hi")
