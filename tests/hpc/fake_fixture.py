"""The fake Slurm as a fixture, for the tests of several directories."""

from __future__ import annotations

import pytest
from fake_slurm import FakeSlurm


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A fake Slurm on PATH; its jobs end with the test."""
    made = FakeSlurm(tmp_path / "slurm")
    made.use(monkeypatch)
    yield made
    made.end()
