"""In CI, a test that fails beside others is run once more, alone, and named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RERUN = Path(__file__).parents[1] / "scripts/lib/rerun.py"
ONCE = """
import pathlib
def test_once(): mark = pathlib.Path("mark"); seen = mark.exists(); mark.touch(); assert seen
def test_good(): pass
"""
NEVER = "\ndef test_never(): assert False\n"
MANY = """
import pathlib, pytest
@pytest.mark.parametrize("n", range(6))
def test_many(n): mark = pathlib.Path(f"mark{n}"); seen = mark.exists(); mark.touch(); assert seen
"""


def rerun(tmp_path, text, workers=0):
    (tmp_path / "test_sample.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, RERUN, "-n", str(workers)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_one_that_passes_alone_is_named_and_the_last_line_counts_all(tmp_path):
    code, lines = rerun(tmp_path, ONCE + "def test_skipped(): import pytest; pytest.skip('so')\n", workers=2)
    assert code == 0, lines
    assert lines[-2] == "FLAKY: test_sample.py::test_once"
    assert re.fullmatch(r"2 passed, 1 skipped in [\d.]+s", lines[-1])


def test_one_that_fails_again_fails(tmp_path):
    code, lines = rerun(tmp_path, ONCE + NEVER)
    assert code == 1
    assert not [line for line in lines if line.startswith("FLAKY")]
    assert re.fullmatch(r"1 failed, 1 passed(, 1 deselected)? in [\d.]+s", lines[-1])


@pytest.mark.parametrize("text", [MANY, "import no_such_module\n", ""])
def test_many_failures_and_other_troubles_are_not_tried_again(tmp_path, text):
    code, lines = rerun(tmp_path, text)
    assert code != 0
    assert "once more" not in "\n".join(lines)


def test_where_all_is_well_nothing_is_added(tmp_path):
    code, lines = rerun(tmp_path, "def test_good(): pass\n")
    assert code == 0
    assert re.fullmatch(r"1 passed in [\d.]+s", lines[-1])
