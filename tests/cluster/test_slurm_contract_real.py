"""What any ComputeBackend must do, asked of SlurmBackend on the real cluster over SSH."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from campaign import backend_of

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from test_backend_contract import *  # noqa: F403  # the contract's tests

del TestLocalOnly  # noqa: F821  # of the contract's module


@pytest.fixture
def backend(cluster, tmp_path):
    made = backend_of(cluster, tmp_path / "workspace", tmp_path)
    yield made
    made.close()
