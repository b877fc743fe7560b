"""The controller is killed by SIGKILL, in a process of its own, at moments nobody chose."""

from __future__ import annotations

import random
import signal
import subprocess
import time

import pytest
from campaigns import check_journal, events
from watching import eventually, finished, python

SCRIPT = """
    import sys
    from matterstack import Task, Workflow, run_workflow
    from matterstack.runtime.backends.local import LocalBackend
    home = sys.argv[1]
    workflow = Workflow("campaign")
    for i in range(60):
        files = {"in": workflow[f"t{i - 20:02}"].output("out")} if i >= 20 else {}
        command = f"echo line >>{home}/log/t{i:02}; sleep 0.{i % 3}{i % 7}; echo {i} >out"
        workflow.add(Task(command, f"t{i:02}", files=files))
    backend = LocalBackend(f"{home}/results", max_concurrent_tasks=2)
    result = run_workflow(workflow, backend=backend, journal=f"{home}/journal.db")
    print(result.ok, result.counts["COMPLETED"])
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_campaign_goes_on_and_starts_nothing_twice(tmp_path, seed):
    chance = random.Random(seed)
    (tmp_path / "log").mkdir()
    kills = 0
    while kills < 6:
        process = python(SCRIPT, tmp_path)
        try:
            process.wait(chance.uniform(0.15, 0.7))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        if process.returncode == 0:
            break
    assert kills >= 3
    assert finished(python(SCRIPT, tmp_path)) == "True 60\n"
    lines = {path.name: path.read_text() for path in (tmp_path / "log").iterdir()}
    assert lines == {f"t{i:02}": "line\n" for i in range(60)}
    check_journal(tmp_path / "journal.db")
    assert len(events(tmp_path / "journal.db", "campaign", "JobStarted")) == 60


def test_tasks_that_run_when_the_controller_is_killed_finish_once(tmp_path):
    script = """
        import sys
        from matterstack import Task, Workflow, run_workflow
        from matterstack.runtime.backends.local import LocalBackend
        home = sys.argv[1]
        wait = f"while [ ! -e {home}/gate ]; do sleep 0.02; done"
        tasks = [Task(f"echo line >>{home}/log{i}; {wait}", f"t{i}") for i in range(5)]
        backend = LocalBackend(f"{home}/results", max_concurrent_tasks=2)
        print(run_workflow(Workflow("five", tasks), backend=backend, journal=f"{home}/journal.db").ok)
    """
    process = python(script, tmp_path)
    eventually(lambda: (tmp_path / "log0").exists() and (tmp_path / "log1").exists())
    process.kill()
    process.communicate()
    (tmp_path / "gate").touch()
    assert finished(python(script, tmp_path)) == "True\n"
    assert [(tmp_path / f"log{i}").read_text() for i in range(5)] == ["line\n"] * 5
    check_journal(tmp_path / "journal.db")


def test_an_idle_second_run_of_the_same_script_starts_nothing(tmp_path):
    (tmp_path / "log").mkdir()
    assert finished(python(SCRIPT, tmp_path)) == "True 60\n"
    before = time.time()
    assert finished(python(SCRIPT, tmp_path)) == "True 60\n"
    assert all(path.stat().st_mtime < before for path in (tmp_path / "log").iterdir())
    assert len(events(tmp_path / "journal.db", "campaign", "SubmitRequested")) == 60
