"""The simulation notices deliberate mistakes: a test of the test."""

from __future__ import annotations

import pytest

from simulation.mutants import MUTANTS
from simulation.world import simulate

SEEDS = 80
# What each must be found out by, so that none is killed by an accident.
FOUND_BY = {
    "intent after effect": "no such intent is in the journal",
    "no look-up by token": "goes to Slurm again",
    "absent = finished": "no record says so",
    "query error = absent": "a job of it is in the queue",
    "no run claim": "was started 2 times",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_killed(name, record_property):
    for seed in range(SEEDS):
        with MUTANTS[name]() as writer:
            outcome = simulate(seed, writer=writer)
        if FOUND_BY[name] in outcome.violation:
            record_property("seed", seed)
            return
    pytest.fail(f"{name}: not noticed in {SEEDS} seeds")
