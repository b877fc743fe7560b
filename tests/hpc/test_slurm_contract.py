"""What any ComputeBackend must do, asked of SlurmBackend on the Slurm of our own; the real one: tests/cluster."""

from __future__ import annotations

import pytest
from fake_slurm import FakeSlurm
from test_backend_contract import *  # noqa: F403  # the contract's tests

from matterstack import Task
from matterstack.errors import UnknownJob
from matterstack.runtime.backends.hpc import SlurmBackend, Waits
from matterstack.runtime.backends.hpc import backend as backend_module

del TestLocalOnly  # noqa: F821  # of the contract's module

QUICK = Waits(poll_min_s=0.05, poll_max_s=0.2, grace_s=0.5, infrastructure_s=1.0, absence_s=2.0)


@pytest.fixture
def backend(tmp_path, monkeypatch):
    slurm = FakeSlurm(tmp_path / "slurm")
    slurm.use(monkeypatch)
    made = SlurmBackend(None, str(tmp_path / "work space"), waits=QUICK)
    yield made
    made.close()
    slurm.end()


@pytest.mark.parametrize("length", [0, 9, 10, 11, 20, 35])
def test_a_long_log_comes_in_pages(backend, monkeypatch, length):
    """From the cluster, and from what lies here."""
    text = "0123456789abcdefghijklmnopqrstuvwxyz"[:length]
    job_id = backend.submit(Task(f"printf '{text}'", "a"))
    while backend.poll(job_id).state != "COMPLETED":
        pass
    monkeypatch.setattr(backend_module, "LOG_BYTES", 10)
    for _ in range(2):
        assert backend.get_logs(job_id) == {"stdout": text, "stderr": ""}
        assert backend.read_log(job_id, "stdout", 3) == text[3:13].encode()
        backend.retrieve(job_id, "stdout.txt")


@pytest.mark.parametrize("ask", ["poll", "get_logs", "cancel"])
def test_an_id_that_nobody_was_given_is_told_however_well_it_looks(backend, ask):
    with pytest.raises(UnknownJob, match="9@run/a/1"):
        getattr(backend, ask)("9@run/a/1")
