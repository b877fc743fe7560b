"""A short form of scripts/chaos: a campaign while a seed kills its controller, Slurm's daemons and connections."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "options",
    [("--tasks", "80", "--budget", "30"), ("--local", "--tasks", "120", "--budget", "15")],
    ids=["slurm", "local"],
)
def test_nothing_is_lost_and_nothing_runs_twice(options):
    environ = os.environ | {"PYTHONPATH": f"{ROOT}/scripts/lib"}
    command = [sys.executable, "-m", "chaos", "--first", "3", *options]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ": 0 faults" not in ended.stdout, "nothing was hurt"
