"""A full disk below the workspace: nothing is lost, nothing is taken for done, work goes on by itself."""

from __future__ import annotations

import os
import subprocess

import pytest
from campaigns import check_journal, states
from watching import ended, eventually

from matterstack import Task, Workflow, run_workflow
from matterstack.errors import MatterStackError
from matterstack.runtime.backends.local import LocalBackend


@pytest.fixture
def small(tmp_path):
    """A file system of 1 MB; only root may make one."""
    where = tmp_path / "small"
    where.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("needs to mount a small tmpfs")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def fill(where):
    ballast = os.open(where / "ballast", os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(ballast, b"x" * 4096):
            pass
    except OSError:
        os.close(ballast)


@pytest.mark.parametrize("files", [{}, {"in": "x" * 5000}], ids=["no files", "files"])
def test_a_run_pauses_on_a_full_workspace_and_goes_on_when_there_is_space(small, tmp_path, files):
    seen = []

    def watch(progress):
        seen.append(progress.trouble)
        if progress.trouble:
            (small / "ballast").unlink(missing_ok=True)

    def count(i):
        return f"echo started >>{tmp_path}/t{i}; cat /dev/null"

    tasks = []
    for i in range(12):
        command = f"head -c 5000 /dev/zero >out; {count(i)}"
        tasks.append(Task(command, f"t{i}", files=files, allow_failure=True))
    backend = LocalBackend(small / "results", max_concurrent_tasks=2)
    backend.submit(Task("true", "opens-the-workspace"))
    eventually(lambda: backend.poll("_alone/opens-the-workspace/1").state == "COMPLETED")
    fill(small)
    result = run_workflow(Workflow("run", tasks), backend=backend, journal=tmp_path / "j.db", progress=watch)
    assert any(seen)
    assert seen[-1] == ""
    assert set(states(result).values()) <= {"COMPLETED", "EXIT_CODE"}
    assert [(tmp_path / f"t{i}").read_text() for i in range(12)] == ["started\n"] * 12
    check_journal(tmp_path / "j.db")
    backend.close()


def test_a_task_that_ends_while_the_disk_is_full_has_its_end_recorded(small, tmp_path):
    gate = tmp_path / "gate"
    backend = LocalBackend(small / "results", max_concurrent_tasks=1)
    job_id = backend.submit(Task(f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 6", "a"))
    eventually(lambda: backend.poll(job_id).state == "RUNNING")
    fill(small)
    gate.touch()
    status = eventually(
        lambda: ((s := backend.poll(job_id)).state == "FAILED" and s) or (small / "ballast").unlink(True)
    )
    assert (status.reason, status.exit_code) == ("EXIT_CODE", 6)
    backend.close()


def test_submit_alone_says_that_the_disk_is_full_and_can_be_repeated(small):
    backend = LocalBackend(small / "results", max_concurrent_tasks=1)
    assert ended(backend, backend.submit(Task("true", "first"))).state == "COMPLETED"
    fill(small)
    task = Task("cat in", "a", files={"in": "y" * 100_000})
    with pytest.raises(MatterStackError, match=r"[Nn]o space|full"):
        backend.submit(task)
    (small / "ballast").unlink()
    job_id = backend.submit(task)
    assert ended(backend, job_id).state == "COMPLETED"
    assert len(backend.get_logs(job_id)["stdout"]) == 100_000
    backend.close()
