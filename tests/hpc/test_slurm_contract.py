"""What any ComputeBackend must do, asked of SlurmBackend on the Slurm of our own; the real one: tests/cluster."""

from __future__ import annotations

import pytest
from fake_slurm import FakeSlurm
from test_backend_contract import *  # noqa: F403  # the contract's tests

from matterstack.runtime.backends.hpc import SlurmBackend, Waits

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
