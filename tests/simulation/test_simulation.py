"""Seeds of the simulation: whatever goes wrong, nothing is lost, nothing runs twice, nothing false is recorded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from matterstack.runtime import worker
from simulation.faults import COMMAND, EVENTS
from simulation.world import TASKS, simulate

LARGE = 200  # tasks of each of the first seeds, and as many seeds; those of CI beside them are small
SEEDS = 1000 if os.environ.get("CI") == "true" else LARGE
CHUNK = 10


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_the_guarantees_hold_whatever_goes_wrong(first, record_property):
    tasks = LARGE if first < LARGE else TASKS
    faults: Counter[str] = Counter()
    violations = {}
    for seed in range(first, first + CHUNK):
        outcome = simulate(seed, tasks)
        faults.update(outcome.faults)
        if outcome.violation:
            violations[seed] = outcome.violation
    record_property("faults", faults.total())
    again = f"scripts/simulate --tasks {tasks} --seeds 1 --trace --first {next(iter(violations), '')}"
    assert not violations, f"see `{again}`"
    assert faults.total() > CHUNK


@pytest.mark.parametrize("seed", range(3))
def test_without_faults_one_controller_finishes_everything(seed):
    outcome = simulate(seed, 30, faults=False)
    assert not outcome.violation
    assert outcome.controllers == 1
    assert outcome.ends.keys() <= {"COMPLETED", "EXIT_CODE", "TIMEOUT", "DEPENDENCY_FAILED"}


@pytest.mark.timeout(300)
def test_a_seed_replays_exactly(tmp_path):
    """Also in another process, where sets have another order."""
    code = "from simulation.world import simulate; print([simulate(seed).digest for seed in (3, 5, 8)])"
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert said[0] == f"{[simulate(seed).digest for seed in (3, 5, 8)]}\n"


def test_what_other_threads_draw_changes_nothing():
    """Such as a connection that a test of the same process left, and that pads its packets."""
    alone, over = simulate(5, 20).digest, threading.Event()

    def draw():
        while not over.is_set():
            os.urandom(1)
            worker.random.uniform(0, 1)

    other = threading.Thread(target=draw)
    other.start()
    try:
        assert simulate(5, 20).digest == alone
    finally:
        over.set()
        other.join()


@pytest.mark.timeout(300)
def test_every_kind_of_fault_is_injected():
    seen: set[str] = set()
    for seed in range(2000, 2200):
        seen |= simulate(seed, 6).faults.keys()
        if seen == {*COMMAND, *EVENTS}:
            return
    pytest.fail(f"never: {sorted({*COMMAND, *EVENTS} - seen)}")
