"""Ctrl-C: nothing more is submitted, what runs goes on, and the next run takes it up."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import textwrap

import pytest
from campaigns import check_journal, events, states
from watching import SOURCE, eventually, finished, python

from matterstack import resume

SCRIPT = """
    import sys
    from matterstack import Task, Workflow, run_workflow
    from matterstack.runtime.backends.local import LocalBackend
    home = sys.argv[1]
    wait = f"echo >>{home}/start.$MATTERSTACK_TASK; while [ ! -e {home}/gate ]; do sleep 0.02; done"
    backend = LocalBackend(f"{home}/results", max_concurrent_tasks=2, grace_s=1)
    workflow = Workflow("run", [Task(wait, f"t{i}") for i in range(8)])
    def show(progress):
        if len(progress.running) == 2:
            open(f"{home}/two-run", "w").close()
    run_workflow(workflow, backend=backend, journal=f"{home}/journal.db", progress=show)
"""


def take_terminal():
    """Make standard input the controlling terminal of a new session."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def starts(tmp_path):
    return {path.name[6:]: path.read_text().count("\n") for path in sorted(tmp_path.glob("start.*"))}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_submitting_leaves_tasks_running_and_says_how_to_go_on(tmp_path, local, number):
    process = python(SCRIPT, tmp_path, stdin=subprocess.DEVNULL)
    eventually((tmp_path / "two-run").exists)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "matterstack resume run" in err
    assert "2 submitted or running tasks go on" in err
    journal = tmp_path / "journal.db"
    assert ("", "RunStopped") in events(journal, "run")
    (tmp_path / "gate").touch()
    assert starts(tmp_path) == {"t0": 1, "t1": 1}
    result = resume(backend=local(), journal=journal)
    assert states(result) == {f"t{i}": "COMPLETED" for i in range(8)}
    assert starts(tmp_path) == {f"t{i}": 1 for i in range(8)}
    assert {result[name].attempts for name in result} == {1}
    check_journal(journal)


def test_an_interrupt_by_ctrl_c_on_a_terminal_does_not_reach_the_tasks(tmp_path, local):
    main, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)],
        stdin=child,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
        preexec_fn=take_terminal,  # noqa: PLW1509  # no thread runs here
    )
    eventually((tmp_path / "two-run").exists)
    os.write(main, b"\x03")
    _, err = process.communicate(timeout=20)
    assert "go on" in err
    (tmp_path / "gate").touch()
    assert resume(backend=local(), journal=tmp_path / "journal.db").ok
    assert starts(tmp_path) == {f"t{i}": 1 for i in range(8)}
    os.close(main)
    os.close(child)


@pytest.mark.parametrize(("answer", "state"), [("y", "CANCELLED"), ("n", "RUNNING")])
def test_a_second_ctrl_c_asks_whether_to_cancel(tmp_path, local, answer, state):
    main, child = pty.openpty()
    process = python(SCRIPT, tmp_path, stdin=child)
    eventually((tmp_path / "two-run").exists)
    process.send_signal(signal.SIGINT)
    line = ""
    while "Interrupted" not in line:
        line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    os.write(main, f"{answer}\n".encode())
    _, err = process.communicate(timeout=20)
    assert "[y/N]" in err
    found = {
        task: kind for task, kind in events(tmp_path / "journal.db", "run") if kind in ("TaskFailed", "JobStarted")
    }
    ended = {"CANCELLED": "TaskFailed", "RUNNING": "JobStarted"}[state]
    assert found == {"t0": ended, "t1": ended}
    (tmp_path / "gate").touch()
    result = resume(backend=local(), journal=tmp_path / "journal.db")
    assert [states(result)[f"t{i}"] for i in range(2)] == [state.replace("RUNNING", "COMPLETED")] * 2
    assert starts(tmp_path) == {f"t{i}": 1 for i in range(8)}
    check_journal(tmp_path / "journal.db")
    os.close(main)
    os.close(child)


def test_ctrl_c_works_while_the_backend_cannot_be_asked_and_nothing_is_lost(tmp_path):
    """What was never handed to the backend is known to be absent, also where jobs cannot be found again."""
    script = """
        import sys, time
        sys.path.insert(0, sys.argv[2])
        from example_backend import PopenBackend
        from matterstack import Task, Workflow, run_workflow
        from matterstack.errors import BackendUnavailable
        class Down(PopenBackend):
            def submit(self, task):
                print("asked", flush=True)
                raise BackendUnavailable("down", "submit", "no route to host")
        workflow = Workflow("run", [Task(f"echo >>{sys.argv[1]}/start.t{i}", f"t{i}") for i in range(3)])
        run_workflow(workflow, backend=PopenBackend() if sys.argv[3:] else Down(), journal=f"{sys.argv[1]}/journal.db")
        print("done")
    """
    here = os.path.dirname(__file__)
    process = python(script, tmp_path, here)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode != 0
    assert finished(python(script, tmp_path, here, "up")) == "done\n"
    assert starts(tmp_path) == {f"t{i}": 1 for i in range(3)}
    check_journal(tmp_path / "journal.db")


def test_cancelling_queued_tasks_and_ctrl_c_at_once_is_no_crash(tmp_path, local, monkeypatch):
    """A queued task may be cancelled and taken back in the same moment; one of the two is recorded."""
    from matterstack import Task, Workflow, run_workflow
    from matterstack.runtime.engine import Engine

    turn, done = Engine.turn, []

    def turn_once_more(self):
        turn(self)
        if not done and self.attempts["t5"].job_id is not None:
            done.append(True)
            self.cancel([f"t{i}" for i in range(2, 8)], "test")
            self.commit()
            self.stop()
        elif (
            done
            and not self._workers.withdrawing
            and not any(a.cancel_requested and a.live for a in self.attempts.values())
        ):
            gate.touch()

    monkeypatch.setattr(Engine, "turn", turn_once_more)
    gate = tmp_path / "gate"
    tasks = [Task(f"while [ ! -e {gate} ]; do sleep 0.02; done", f"t{i}") for i in range(8)]
    journal = tmp_path / "j.db"
    result = run_workflow(Workflow("run", tasks), backend=local(), journal=journal)
    assert done
    assert {result[f"t{i}"].state for i in range(2)} == {"COMPLETED"}
    check_journal(journal)
    monkeypatch.undo()
    result = resume(backend=local(), journal=journal)
    assert {result[f"t{i}"].reason for i in range(2, 8)} == {"CANCELLED"}
    check_journal(journal)


def test_what_was_only_intended_or_is_in_doubt_is_not_counted_as_submitted(tmp_path):
    """One is queued, of one the answer was lost, and one the backend was told to submit and has not answered."""
    script = """
        import sys, threading
        sys.path.insert(0, sys.argv[2])
        from example_backend import PopenBackend
        from matterstack import JobStatus, Task, Workflow, run_workflow
        from matterstack.errors import SubmitInDoubt
        class Slow(PopenBackend):
            idempotent = True
            def submit(self, task):
                if task.task_id == "lost":
                    raise SubmitInDoubt("the reply was lost", again_s=60)
                if task.task_id == "slow":
                    print("asked", flush=True)
                    threading.Event().wait()
                return task.task_id
            def poll(self, job_id):
                return JobStatus(job_id, "PENDING")
        workflow = Workflow("run", [Task("true", name) for name in ("queued", "lost", "slow")])
        run_workflow(workflow, backend=Slow(), journal=f"{sys.argv[1]}/journal.db")
    """
    process = python(script, tmp_path, os.path.dirname(__file__))
    assert process.stdout.readline() == "asked\n"
    journal = tmp_path / "journal.db"
    eventually(lambda: ("lost", "SubmitUnknown") in events(journal, "run"))
    process.send_signal(signal.SIGINT)
    line = ""
    while "Interrupted" not in line:
        line = process.stderr.readline()
        assert line
    process.kill()
    process.communicate()
    assert "1 submitted or running task goes on; whether 2 more were submitted, resuming will find out." in line
    check_journal(journal)
