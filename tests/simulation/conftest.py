"""The simulation is run by `scripts/simulate`; its tests are part of the suite once a seed replays exactly."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "hpc"))  # the fake Slurm, with a real shell

if os.environ.get("MATTERSTACK_SIMULATION") != "1":
    collect_ignore_glob = ["test_*.py"]
