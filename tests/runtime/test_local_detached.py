"""Tasks of LocalBackend alone, without a journal, outlive whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest
from watching import ended, eventually, finished, line_from, lives, number_in, python, running

from matterstack import Task
from matterstack.errors import SubmitRefusedError
from matterstack.runtime.backends.local import LocalBackend

SUBMIT = """
    import sys, time
    from matterstack import Task
    from matterstack.runtime.backends.local import LocalBackend
    backend = LocalBackend(sys.argv[1], max_concurrent_tasks=int(sys.argv[2]), grace_s=1)
    limit = float(sys.argv[3]) or None
    for i, command in enumerate(sys.argv[4:]):
        print(backend.submit(Task(command, f"t{i}", time_limit_minutes=limit)), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def controller(root):
    """Starts a process that submits commands and stays; ends it at the end."""
    started = []

    def start(*commands, slots=2, limit_minutes=0.0):
        process = python(SUBMIT, root, slots, limit_minutes, *commands)
        started.append(process)
        return process, [line_from(process) for _ in commands]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process):
    process.kill()
    process.wait()


def test_a_running_task_outlives_its_killed_controller_and_is_seen_to_its_end(controller, local, tmp_path):
    gate = tmp_path / "gate"
    process, (job_id,) = controller(f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; echo after; exit 5")
    backend = local()
    running(backend, job_id)
    kill(process)
    assert backend.poll(job_id).state == "RUNNING"
    eventually(lambda: backend.get_logs(job_id)["stdout"] == "before\n")
    gate.touch()
    status = ended(backend, job_id)
    assert (status.state, status.reason, status.exit_code) == ("FAILED", "EXIT_CODE", 5)
    assert backend.get_logs(job_id)["stdout"] == "before\nafter\n"


def test_a_new_backend_cancels_what_a_killed_controller_left(controller, local, tmp_path):
    process, (job_id,) = controller(f"sleep 300 & echo $! >{tmp_path}/child; wait")
    child = number_in(tmp_path / "child")
    kill(process)
    backend = local(grace_s=1)
    backend.cancel(job_id)
    assert backend.poll(job_id).reason == "CANCELLED"
    eventually(lambda: not lives(child), "the child's end")


def test_a_queued_task_of_a_killed_controller_is_started_by_the_next(controller, local, tmp_path):
    gate = tmp_path / "gate"
    process, jobs = controller(
        f"while [ ! -e {gate} ]; do sleep 0.02; done", f"echo 1 >>{tmp_path}/ran", f"echo 2 >>{tmp_path}/ran", slots=1
    )
    first = jobs[0]
    backend = local(slots=1)
    running(backend, first)
    kill(process)
    gate.touch()
    assert [ended(backend, job_id).state for job_id in jobs] == ["COMPLETED"] * 3
    assert (tmp_path / "ran").read_text() == "1\n2\n"


def test_a_task_of_a_dead_controller_is_started_once_when_several_look_at_once(controller, root, tmp_path):
    gate = tmp_path / "gate"
    process, jobs = controller(
        f"while [ ! -e {gate} ]; do sleep 0.02; done",
        *[f"echo x >>{tmp_path}/ran{i}" for i in range(10)],
        slots=1,
    )
    eventually(lambda: LocalBackend(root).get_logs(jobs[0]) is not None)
    kill(process)
    gate.touch()
    look = """
        import sys
        from matterstack.runtime.backends.local import LocalBackend
        backend = LocalBackend(sys.argv[1], max_concurrent_tasks=1)
        import time
        while any(backend.poll(job).state in ("PENDING", "RUNNING") for job in sys.argv[2:]):
            time.sleep(0.02)
    """
    for other in [python(look, root, *jobs) for _ in range(3)]:
        finished(other)
    assert [(tmp_path / f"ran{i}").read_text() for i in range(10)] == ["x\n"] * 10


def test_closing_leaves_running_tasks_and_the_next_backend_starts_the_queued(local, tmp_path):
    gate = tmp_path / "gate"
    backend = local(slots=1)
    first = backend.submit(Task(f"while [ ! -e {gate} ]; do sleep 0.02; done", "first"))
    running(backend, first)
    queued = backend.submit(Task("echo started", "queued"))
    backend.close()
    after = local(slots=1)
    assert after.poll(first).state == "RUNNING"
    assert after.poll(queued).state == "PENDING"
    gate.touch()
    assert ended(after, first).state == "COMPLETED"
    assert ended(after, queued).state == "COMPLETED"


def test_a_closed_backend_opens_again(local):
    backend = local()
    job_id = backend.submit(Task("echo one", "one"))
    assert ended(backend, job_id).state == "COMPLETED"
    backend.close()
    backend.close()
    assert backend.get_logs(job_id)["stdout"] == "one\n"
    assert ended(backend, backend.submit(Task("true", "two"))).state == "COMPLETED"


def test_the_time_limit_holds_with_no_controller(controller, local, tmp_path):
    stubborn = f"trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & echo $! >{tmp_path}/child; "
    stubborn += "while :; do sleep 0.1; done"
    process, (job_id,) = controller(stubborn, limit_minutes=0.4 / 60)
    child = number_in(tmp_path / "child")
    kill(process)
    backend = local()
    status = ended(backend, job_id)
    assert (status.state, status.reason, status.signal) == ("FAILED", "TIMEOUT", signal.SIGKILL)
    eventually(lambda: not lives(child), "the child's end")


def test_a_task_that_ends_on_term_at_its_limit_is_a_timeout_whatever_its_exit_code(local):
    backend = local()
    job_id = backend.submit(
        Task("trap 'echo saved; exit 7' TERM; while :; do sleep 0.05; done", "a", time_limit_minutes=0.2 / 60)
    )
    status = ended(backend, job_id)
    assert (status.reason, status.exit_code) == ("TIMEOUT", 7)
    assert backend.get_logs(job_id)["stdout"] == "saved\n"


def test_a_task_that_succeeds_before_its_limit_is_completed_and_leaves_no_watcher(local):
    backend = local()
    jobs = [backend.submit(Task("exit 0", f"t{i}", time_limit_minutes=10)) for i in range(3)]
    jobs.append(backend.submit(Task("sleep 0.2", "near", time_limit_minutes=0.6 / 60)))
    assert [ended(backend, job_id).state for job_id in jobs] == ["COMPLETED"] * 4
    assert processes_below(backend.workdir(jobs[0]).parent.parent) == []


def processes_below(directory):
    """Return the pids of processes that work below a directory, shells of the slots among them."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit() and os.readlink(f"/proc/{pid}/cwd").startswith(str(directory)):
                with open(f"/proc/{pid}/cmdline") as line:
                    if "sleep" in line.read():
                        found.append(int(pid))
        except OSError:
            continue
    return found


def test_a_stopped_task_has_not_ended_and_goes_on(local, tmp_path):
    gate = tmp_path / "gate"
    backend = local()
    job_id = backend.submit(Task(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 3", "a"))
    pid = running(backend, job_id).pid
    os.killpg(pid, signal.SIGSTOP)
    gate.touch()
    with pytest.raises(AssertionError, match="waited"):
        ended(backend, job_id, within_s=1.5)
    os.killpg(pid, signal.SIGCONT)
    assert ended(backend, job_id).exit_code == 3


def test_a_stopped_task_can_be_cancelled(local):
    backend = local(grace_s=1)
    job_id = backend.submit(Task("sleep 300", "a"))
    os.killpg(running(backend, job_id).pid, signal.SIGSTOP)
    backend.cancel(job_id)
    assert backend.poll(job_id).reason == "CANCELLED"


def test_cancel_ends_a_group_that_ignores_term(local, tmp_path):
    backend = local(grace_s=1)
    command = f"trap '' TERM; (while :; do sleep 0.1; done) & echo $! >{tmp_path}/child; while :; do sleep 0.1; done"
    job_id = backend.submit(Task(command, "a"))
    child = number_in(tmp_path / "child")
    backend.cancel(job_id)
    status = backend.poll(job_id)
    assert (status.reason, status.signal) == ("CANCELLED", signal.SIGKILL)
    eventually(lambda: not lives(child), "the child's end")


def slot_shell(backend, job_id):
    """Return the pid of the shell that waits for the job's process."""
    with open(f"/proc/{running(backend, job_id).pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def test_the_death_of_a_slots_shell_leaves_its_task_running_and_its_end_unknown(local, tmp_path):
    gate = tmp_path / "gate"
    backend = local()
    job_id = backend.submit(Task(f"while [ ! -e {gate} ]; do sleep 0.02; done; echo done", "a"))
    pid = running(backend, job_id).pid
    os.kill(slot_shell(backend, job_id), signal.SIGKILL)
    other = backend.submit(Task("true", "b"))
    assert ended(backend, other).state == "COMPLETED"
    assert lives(pid)
    assert backend.poll(job_id).state == "RUNNING"
    gate.touch()
    status = ended(backend, job_id)
    assert (status.state, status.reason) == ("FAILED", "INTERRUPTED")
    assert backend.get_logs(job_id)["stdout"] == "done\n"


def test_the_death_of_an_idle_slots_shell_is_no_harm(local):
    backend = local(slots=1)
    gate = backend.root / "gate"
    first = backend.submit(Task(f"while [ ! -e {gate} ]; do sleep 0.01; done", "first"))
    shell = slot_shell(backend, first)
    second = backend.submit(Task("echo two", "second"))
    threading.Timer(0.001, lambda: os.kill(shell, signal.SIGKILL)).start()
    gate.touch()
    for i in range(3):
        assert ended(backend, backend.submit(Task("true", f"more{i}"))).state == "COMPLETED"
    assert ended(backend, first).state in ("COMPLETED", "FAILED")
    assert ended(backend, second).state == "COMPLETED"


def test_reading_logs_starts_nothing(controller, root, tmp_path):
    gate = tmp_path / "gate"
    process, (first, queued) = controller(
        f"echo hi; while [ ! -e {gate} ]; do sleep 0.02; done", f"touch {tmp_path}/ran", slots=1
    )
    backend = LocalBackend(root, max_concurrent_tasks=1)
    eventually(lambda: backend.get_logs(first)["stdout"] == "hi\n")
    kill(process)
    gate.touch()
    threads = threading.active_count()
    assert backend.get_logs(queued) == {"stdout": "", "stderr": ""}
    assert backend.workdir(queued).name == "1"
    assert threading.active_count() == threads
    assert not (tmp_path / "ran").exists()
    backend.close()


def test_constructing_a_backend_does_nothing_on_disk(root):
    LocalBackend(root).close()
    assert not root.exists()


def test_a_missing_secret_is_refused_by_name_and_nothing_is_kept(local, monkeypatch):
    monkeypatch.delenv("CANARY", raising=False)
    task = Task("true", "a", secrets=["CANARY"])
    with pytest.raises(SubmitRefusedError, match="CANARY"):
        local().submit(task)
    monkeypatch.setenv("CANARY", "s3cret-value")
    backend = local()
    job_id = backend.submit(task)
    assert ended(backend, job_id).state == "COMPLETED"


def test_a_secrets_value_reaches_the_task_and_is_written_nowhere(local, monkeypatch, root):
    monkeypatch.setenv("CANARY", "s3cret-value")
    backend = local()
    job_id = backend.submit(Task("test ${#CANARY} = 12", "a", secrets=["CANARY"]))
    assert ended(backend, job_id).state == "COMPLETED"
    backend.close()
    kept = [path for path in root.rglob("*") if path.is_file() and b"s3cret-value" in path.read_bytes()]
    assert kept == []


def test_two_thousand_tasks_all_end(local, tmp_path):
    backend = local(slots=2)
    jobs = [backend.submit(Task(f"exit {i % 3}", f"t{i}")) for i in range(2000)]
    assert [ended(backend, job_id, within_s=60).exit_code for job_id in jobs] == [i % 3 for i in range(2000)]


def test_of_two_processes_that_start_the_same_attempts_one_gets_each(root, tmp_path):
    """Both have the same work in their queues, as a controller that woke up late and its successor would."""
    (tmp_path / "log").mkdir()
    script = """
        import sys, threading
        from matterstack import Task
        from matterstack.core.reconcile import status_of
        from matterstack.runtime.backends.base import Submission
        from matterstack.runtime.backends.local import LocalBackend
        root, log = sys.argv[1:]
        backend = LocalBackend(root, max_concurrent_tasks=8)
        tasks = [Task(f"echo x >>{log}/t{i}", f"t{i}") for i in range(150)]
        print("ready", flush=True)
        sys.stdin.readline()
        jobs = backend.submit_many([Submission(task, "run", 1, f"ms-{task.task_id}") for task in tasks])
        ends = {}
        while len(ends) < len(jobs):
            for job, evidence in backend.poll_many(set(jobs) - set(ends)).items():
                if status_of(evidence).state in ("COMPLETED", "FAILED"):
                    ends[job] = str(status_of(evidence).state)
            backend.wait(0.05, threading.Event())
        print(set(ends.values()))
    """
    both = [python(script, root, tmp_path / "log", stdin=subprocess.PIPE) for _ in range(2)]
    assert [line_from(process) for process in both] == ["ready"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [finished(process) for process in both] == ["{'COMPLETED'}\n"] * 2
    assert [path.read_text() for path in (tmp_path / "log").iterdir()] == ["x\n"] * 150
