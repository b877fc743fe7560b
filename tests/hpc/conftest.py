from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))  # the contract, and campaigns to run

from fake_fixture import slurm

__all__ = ["slurm"]


@pytest.fixture(autouse=True)
def own_directory(monkeypatch, tmp_path):
    """Tests do not depend on where they are started."""
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    yield
    os.umask(before)
