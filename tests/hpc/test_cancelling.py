"""Cancelling on a Slurm that takes it, or says so and forgets it; what a job that never began leaves behind."""

from __future__ import annotations

import time

import pytest

from matterstack import Task, Workflow, run_workflow
from matterstack.core.reconcile import status_of
from matterstack.errors import SubmitRefusedError
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc import SlurmBackend, Waits

WAITS = Waits(poll_min_s=0.05, poll_max_s=0.2, grace_s=0.5, infrastructure_s=1.0, absence_s=60.0)


@pytest.fixture
def slurm(slurm):
    slurm.order("hold")
    return slurm


@pytest.fixture
def backend(tmp_path, slurm, monkeypatch):
    monkeypatch.setenv("KEY", "a secret")
    made = SlurmBackend(None, str(tmp_path / "work"), results_root=tmp_path / "results", waits=WAITS)
    yield made
    made.close()


def ended(backend, job_id):
    deadline = time.monotonic() + 60
    while (status := backend.poll(job_id)).state in ("PENDING", "RUNNING"):
        assert time.monotonic() < deadline, status
    return status


def test_secrets_go_with_the_cancel_of_a_job_that_waits(backend, tmp_path):
    job_id = backend.submit(Task("echo $KEY", "a", secrets=["KEY"]))
    secrets = tmp_path / "work/_alone/a/1/.matterstack/secrets"
    assert secrets.read_text() == "export KEY='a secret'\n"
    backend.cancel_many([job_id])
    assert not secrets.exists()
    assert ended(backend, job_id).reason == "CANCELLED"


@pytest.mark.parametrize("secrets", [(), ("KEY",)], ids=["plain", "with a secret"])
def test_a_cancel_that_slurm_forgets_is_heeded_by_the_job_and_is_one(backend, slurm, tmp_path, secrets):
    (slurm.bin / "scancel").write_text("#!/bin/sh\nexit 0\n")
    job_id = backend.submit(Task(f"echo ran >{tmp_path}/log", "a", secrets=secrets))
    backend.cancel_many([job_id])
    slurm.mend("hold")
    status = ended(backend, job_id)
    assert (status.state, status.reason, status.started_at) == ("FAILED", "CANCELLED", None)
    assert "before the command began" in status.detail
    assert not (tmp_path / "log").exists()


def test_a_command_that_ends_by_itself_while_slurm_forgets_its_cancel_keeps_its_code(backend, slurm, tmp_path):
    (slurm.bin / "scancel").write_text("#!/bin/sh\nexit 0\n")
    slurm.mend("hold")
    gate = tmp_path / "gate"
    job_id = backend.submit(Task(f"echo began; while [ ! -e {gate} ]; do sleep 0.05; done; exit 7", "a"))
    while "began" not in backend.get_logs(job_id)["stdout"]:
        backend.poll(job_id)
    backend.cancel_many([job_id])
    gate.touch()
    status = ended(backend, job_id)
    assert (status.reason, status.exit_code) == ("EXIT_CODE", 7)


def test_a_job_that_slurm_cancelled_by_itself_has_its_secrets_again_when_it_is_submitted_again(
    backend, slurm, tmp_path
):
    """Its end removed them, and it was none of the attempt."""
    first = slurm.directory / "jobs/1"

    def lose(_):
        if first.exists() and (first / "word").read_text() == "PENDING":
            (first / "word").write_text("CANCELLED")
            slurm.mend("hold")

    flow = Workflow("w", [Task("echo $KEY", "a", secrets=["KEY"])])
    result = run_workflow(flow, backend=backend, journal=tmp_path / "j.db", progress=lose)
    assert (result["a"].state, result["a"].logs()["stdout"]) == ("COMPLETED", "a secret\n")
    assert len(slurm.jobs()) == 2


def test_what_is_cancelled_and_asked_for_by_its_id_alone_begins_no_more(backend, tmp_path):
    job_id = backend.submit(Task(f"echo ran >{tmp_path}/log", "a"))
    backend.cancel_many([job_id])
    assert ended(backend, job_id).reason == "CANCELLED"
    assert " CANCELLED ." in (tmp_path / "work/_alone/a/1/.matterstack/claim").read_text()


def test_a_refused_task_can_be_submitted_when_that_is_mended(backend, slurm, tmp_path):
    slurm.order(
        "refuse", "sbatch: error: Batch job submission failed: Invalid account or account/partition combination"
    )
    task = Task(f"echo ran >{tmp_path}/log", "a")
    with pytest.raises(SubmitRefusedError):
        backend.submit(task)
    slurm.mend("refuse")
    slurm.mend("hold")
    assert ended(backend, backend.submit(task)).state == "COMPLETED"
    assert (tmp_path / "log").exists()


def test_a_job_of_what_is_over_does_not_stay_in_the_queue(backend, slurm, tmp_path):
    submission = Submission(Task("true", "a"), "run", 1, "ms-a")
    records = tmp_path / "work/run/a/1/.matterstack"
    (job_id,) = backend.submit_many([submission])
    (records / "claim").write_text("ms1 over ms-a SUBMIT_REFUSED .\n")
    status = status_of(backend.poll_many([job_id])[job_id])
    assert (status.state, status.reason) == ("FAILED", "SUBMIT_REFUSED")
    assert [(job / "word").read_text() for job in slurm.jobs()] == ["CANCELLED"]


def test_a_claim_of_another_attempt_does_not_keep_the_end_from_being_told(tmp_path, slurm):
    waits = Waits(poll_min_s=0.05, poll_max_s=0.2, grace_s=0.2, infrastructure_s=0.4, absence_s=0.8)
    backend = SlurmBackend(None, str(tmp_path / "work"), results_root=tmp_path / "results", waits=waits)
    (job_id,) = backend.submit_many([Submission(Task(f"echo ran >{tmp_path}/log", "a"), "run", 1, "ms-a")])
    (tmp_path / "work/run/a/1/.matterstack/claim").write_text("ms1 ms-other 99 0 100.0 n1 77 .\n")
    slurm.mend("hold")
    deadline = time.monotonic() + 60
    while (found := backend.poll_many([job_id]).get(job_id)) is None or status_of(found).state != "FAILED":
        assert time.monotonic() < deadline, found
    backend.close()
    assert "another attempt (ms-other)" in status_of(found).detail
    assert not (tmp_path / "log").exists()
