"""``scripts/mutation``: what share of deliberate mistakes the tests of the core notice; see `main`."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from without_row import TABLES, rows_of

ROOT = Path(__file__).parents[3]
TESTS = "tests/core"
MODULES = ("reconcile", "machine", "policy")
SETTINGS = f"""[mutmut]
source_paths={"".join(f"{chr(10)}    matterstack/core/{name}.py" for name in MODULES)}
pytest_add_cli_args_test_selection=
    {TESTS}
also_copy=
    matterstack
    journal
    tests
    pyproject.toml
"""


def copy_of_the_tree(place: Path) -> None:
    for name in ("matterstack", "journal", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    (place / "setup.cfg").write_text(SETTINGS)


def functions(place: Path, jobs: int) -> tuple[int, list[str]]:
    """Return how many mutants of functions there were, and those that survived."""
    run = ["mutmut", "run", "--max-children", str(jobs)]
    with (place / "log").open("w") as log:
        subprocess.run(run, cwd=place, stdout=log, stderr=subprocess.STDOUT, check=True)
    listed = subprocess.run(
        ["mutmut", "results", "--all", "true"], cwd=place, capture_output=True, text=True, check=True
    )
    found = dict(re.findall(r"^\s+(\S+): (.+)$", listed.stdout, re.MULTILINE))
    survived = [name for name, what in found.items() if what != "killed"]
    for name in survived:
        shown = subprocess.run(["mutmut", "show", name], cwd=place, capture_output=True, text=True, check=True).stdout
        changed = [line for line in shown.splitlines() if re.match(r"[-+](?![-+])", line)]
        print(f"survived: {name}\n  " + "\n  ".join(changed))
    return len(found), survived


def rows(place: Path, jobs: int) -> tuple[int, list[str]]:
    """Return how many rows the tables have, and those without which all tests pass."""

    def noticed(mutant: str) -> bool:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "without_row", TESTS]
        environ = os.environ | {"WITHOUT_ROW": mutant, "PYTHONPATH": str(Path(__file__).parent)}
        ended = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)
        if ended.returncode not in (0, 1):
            raise SystemExit(f"without {mutant} the tests could not be run:\n{ended.stdout}{ended.stderr}")
        return ended.returncode == 1

    mutants = [f"{name}:{row}" for name in TABLES for row in range(len(rows_of(name)))]
    with ThreadPoolExecutor(jobs) as pool:
        survived = [one for one, killed in zip(mutants, pool.map(noticed, mutants), strict=True) if not killed]
    for one in survived:
        print(f"survived: no row {one}")
    return len(mutants), survived


def main() -> int:
    """Print the scores; return 1 where one is below what is asked."""
    parser = argparse.ArgumentParser(prog="scripts/mutation", description=__doc__)
    parser.add_argument("--at-least", type=float, default=90.0, metavar="PERCENT", help="(default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="(default: all cores)")
    given = parser.parse_args()
    scores = []
    with tempfile.TemporaryDirectory(prefix="ms-mutation-") as name:
        place = Path(name)
        copy_of_the_tree(place)
        for what, count in (("functions", functions), ("rows of the tables", rows)):
            total, survived = count(place, given.jobs)
            scores.append(100 * (total - len(survived)) / total)
            print(f"{what}: {total - len(survived)} of {total} mutants noticed, {scores[-1]:.1f} %", flush=True)
    return 1 if min(scores) < given.at_least else 0


if __name__ == "__main__":
    sys.exit(main())
