"""The waits that hold in production, and that the documentation tells of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import asdict

from matterstack.runtime.backends.hpc import Waits

DOCS = Path(__file__).parents[2] / "docs"
PRODUCTION = {
    "poll_min_s": 1,
    "poll_max_s": 60,
    "settle_s": 320,
    "again_s": 10,
    "grace_s": 90,
    "infrastructure_s": 300,
    "absence_s": 600,
    "held_s": 60,
    "command_s": 120,
}


def test_the_defaults_are_those_for_production():
    assert asdict(Waits()) == PRODUCTION


def test_a_submission_settles_only_after_sbatch_can_have_tried_for_its_longest():
    waits = Waits()
    assert waits.settle_s >= 205 + 60, "sbatch is ended after 205 s, and clocks of a file system differ"
    assert waits.grace_s >= 60, "NFS shows a file up to 60 s late"
    assert waits.grace_s < waits.infrastructure_s < waits.absence_s


@pytest.mark.parametrize("page", ["slurm.md", "profiles.md"])
def test_the_documentation_has_them_all_with_their_defaults(page):
    told = {}
    for names, values in re.findall(
        r"^\| ((?:`\w+_s`(?:, )?)+) \| ([\d, ]+) \|", (DOCS / page).read_text(), re.MULTILINE
    ):
        told |= dict(zip(re.findall(r"\w+_s", names), map(float, values.split(",")), strict=True))
    assert {name: told.get(name) for name in PRODUCTION} == PRODUCTION
