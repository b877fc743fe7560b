"""Slots: how many tasks run at once, measured by what the tasks themselves write."""

from __future__ import annotations

import itertools
import signal
import time
from pathlib import Path

import pytest
from campaigns import check_journal
from watching import ended, finished, python, running

from matterstack import Task, Workflow, run_workflow
from matterstack.runtime.backends.local import LocalBackend

# Boot time in hundredths of a second, one for all processes; appended by the task at its begin and end.
STAMP = 'read now rest </proc/uptime; echo "{mark} $now {cores}" >>{log}'


def stamped(log, seconds, cores=1):
    begin, end = (STAMP.format(mark=mark, cores=cores, log=log) for mark in ("+", "-"))
    return f"{begin}; sleep {seconds}; {end}"


def most_at_once(log):
    """Return the most cores in use at once; lines stand in the order in which they happened."""
    signs = {"+": 1, "-": -1}
    changes = [signs[mark] * int(cores) for mark, _, cores in map(str.split, log.read_text().splitlines())]
    assert sum(changes) == 0
    return max(itertools.accumulate(changes))


PROCESS = """
    import sys
    sys.path.insert(0, sys.argv[5])
    from test_local_slots import stamped
    from watching import ended
    from matterstack import Task
    from matterstack.runtime.backends.local import LocalBackend
    root, log, who, slots = sys.argv[1:5]
    backend = LocalBackend(root, max_concurrent_tasks=int(slots))
    cores = [1, 2, 1, 1, 3, 1, 2, 1, 9, 1, 1, 2] * 2
    tasks = [Task(stamped(log, 0.05, min(n, int(slots))), f"{who}{i}", cores=n) for i, n in enumerate(cores)]
    jobs = [backend.submit(task) for task in tasks]
    assert all(ended(backend, job, within_s=60).state == "COMPLETED" for job in jobs)
    print(len(jobs))
"""


@pytest.mark.parametrize("slots", [1, 3])
def test_two_processes_together_never_use_more_than_the_slots(root, tmp_path, request, slots):
    log = tmp_path / "log"
    here = request.path.parent
    others = [python(PROCESS, root, log, who, slots, here) for who in "xy"]
    assert [finished(other, within_s=80) for other in others] == ["24\n", "24\n"]
    assert most_at_once(log) == slots
    assert log.read_text().count("+") == 48


def test_two_runs_in_one_workspace_share_the_slots(root, tmp_path):
    log = tmp_path / "log"
    script = """
        import sys
        sys.path.insert(0, sys.argv[4])
        from test_local_slots import stamped
        from matterstack import Task, Workflow, run_workflow
        from matterstack.runtime.backends.local import LocalBackend
        root, log, name = sys.argv[1:4]
        tasks = [Task(stamped(log, 0.03), f"t{i}") for i in range(20)]
        backend = LocalBackend(root, max_concurrent_tasks=2)
        print(run_workflow(Workflow(name, tasks), backend=backend, journal=f"{root}/../{name}.db").ok)
    """
    others = [python(script, root, log, name, Path(__file__).parent) for name in ("one", "two")]
    assert [finished(other, within_s=60) for other in others] == ["True\n"] * 2
    assert most_at_once(log) == 2
    for name in ("one", "two"):
        check_journal(tmp_path / f"{name}.db")


def test_slots_are_used_and_never_exceeded_by_one_process(local, tmp_path):
    log = tmp_path / "log"
    backend = local(slots=3)
    jobs = [backend.submit(Task(stamped(log, 0.03), f"t{i}")) for i in range(30)]
    for job_id in jobs:
        ended(backend, job_id)
    assert most_at_once(log) == 3


def test_a_task_wider_than_the_machine_runs_alone(local, tmp_path):
    log = tmp_path / "log"
    backend = local(slots=2)
    jobs = [
        backend.submit(Task(stamped(log, 0.05, 2 if i == 3 else 1), f"t{i}", cores=99 if i == 3 else 1))
        for i in range(8)
    ]
    for job_id in jobs:
        assert ended(backend, job_id).state == "COMPLETED"
    assert most_at_once(log) == 2


def test_a_wide_task_is_not_starved_by_narrow_ones_of_another_process(root, tmp_path):
    log = tmp_path / "log"
    flood = """
        import sys, time
        from matterstack import Task
        from matterstack.runtime.backends.local import LocalBackend
        root, log, stop = sys.argv[1:4]
        backend = LocalBackend(root, max_concurrent_tasks=2)
        for i in range(400):
            backend.submit(Task(f"echo n{i} >>{log}; sleep 0.0{3 + i % 5}", f"n{i}"))
        print("flooded", flush=True)
        time.sleep(60)
    """
    other = python(flood, root, log, tmp_path / "stop")
    assert other.stdout.readline() == "flooded\n"
    backend = LocalBackend(root, max_concurrent_tasks=2)
    wide = backend.submit(Task(f"echo wide >>{log}", "wide", cores=2))
    assert ended(backend, wide, within_s=20).state == "COMPLETED"
    assert log.read_text().count("\n") < 400
    other.kill()
    other.communicate()
    backend.close()


def test_a_suspended_process_that_waits_in_line_does_not_hold_up_others(root, tmp_path):
    gate = tmp_path / "gate"
    waiter = """
        import sys, time
        from matterstack import Task
        from matterstack.runtime.backends.local import LocalBackend
        backend = LocalBackend(sys.argv[1], max_concurrent_tasks=1)
        backend.submit(Task("echo waited", "waiting"))
        time.sleep(0.5)
        print("waits", flush=True)
        time.sleep(60)
    """
    backend = LocalBackend(root, max_concurrent_tasks=1)
    first = backend.submit(Task(f"while [ ! -e {gate} ]; do sleep 0.02; done", "first"))
    running(backend, first)
    other = python(waiter, root)
    assert other.stdout.readline() == "waits\n"
    other.send_signal(signal.SIGSTOP)
    gate.touch()
    second = backend.submit(Task("true", "second"))
    assert ended(backend, second, within_s=15).state == "COMPLETED"
    other.send_signal(signal.SIGCONT)
    assert ended(backend, "_alone/waiting/1").state == "COMPLETED"
    other.kill()
    other.communicate()
    backend.close()


def test_slots_of_a_killed_process_come_back_when_its_tasks_end(root, tmp_path):
    gate = tmp_path / "gate"
    script = """
        import sys, time
        from matterstack import Task
        from matterstack.runtime.backends.local import LocalBackend
        backend = LocalBackend(sys.argv[1], max_concurrent_tasks=1)
        job = backend.submit(Task(f"while [ ! -e {sys.argv[2]} ]; do sleep 0.02; done", "holds"))
        while backend.poll(job).state != "RUNNING":
            time.sleep(0.01)
        print("runs", flush=True)
        time.sleep(60)
    """
    other = python(script, root, gate)
    assert other.stdout.readline() == "runs\n"
    other.kill()
    other.communicate()
    backend = LocalBackend(root, max_concurrent_tasks=1)
    after = backend.submit(Task("true", "after"))
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        assert backend.poll(after).state == "PENDING"
        time.sleep(0.02)
    gate.touch()
    assert ended(backend, after).state == "COMPLETED"
    backend.close()


def test_a_finished_run_leaves_no_slot_taken(local, root, tmp_path):
    backend = local(slots=2)
    assert run_workflow(
        Workflow("run", [Task("true", f"t{i}") for i in range(4)]), backend=backend, journal=tmp_path / "j.db"
    ).ok
    other = python(
        """
        import sys
        sys.path.insert(0, sys.argv[2])
        from watching import ended
        from matterstack import Task
        from matterstack.runtime.backends.local import LocalBackend
        backend = LocalBackend(sys.argv[1], max_concurrent_tasks=2)
        print(ended(backend, backend.submit(Task("true", "wide", cores=2)), within_s=10).state)
        """,
        root,
        Path(__file__).parent,
    )
    assert finished(other) == "COMPLETED\n"


@pytest.mark.parametrize("slots", [0, -1])
def test_a_nonsensical_number_of_slots_is_refused(root, slots):
    with pytest.raises(ValueError, match="at least 1"):
        LocalBackend(root, max_concurrent_tasks=slots)


def test_a_controller_that_goes_away_in_mid_queue_leaves_the_count_right(root, tmp_path):
    log = tmp_path / "log"
    script = PROCESS.replace("print(len(jobs))", "").replace(
        "assert all", "import os; os.kill(os.getpid(), 9); assert all"
    )
    dying = python(script, root, log, "z", 2, Path(__file__).parent)
    dying.communicate()
    assert dying.returncode == -9
    backend = LocalBackend(root, max_concurrent_tasks=2)
    for i in range(24):
        assert ended(backend, f"_alone/z{i}/1").state == "COMPLETED"
    assert most_at_once(log) <= 2
    backend.close()
