"""``scripts/fuzz``: one target, or each in turn, from the corpus of the tests and what earlier runs have made of it."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["matterstack", "yaml", "tarfile"]):
    from fuzz.files import place
    from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "tests/hostile/corpus"
RESULTS = ROOT / "results/fuzz"
INPUT_MAX = 8192  # bytes; whole streams with a few members, and files with a few tasks


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS), help="default: each in turn")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: %(default)s)")
    given = parser.parse_args()
    if given.target:
        return fuzz(given.target, given.seconds)
    failed = [name for name in TARGETS if not found_nothing(name, given.seconds)]
    if failed:
        print(f"FAILED: {', '.join(failed)}; what it was lies in results/fuzz, and each file there is one input")
    return 1 if failed else 0


def fuzz(name: str, seconds: int) -> int:
    """Return the exit code of the fuzzer, which ends its process and leaves its files; so it has one of its own."""
    place()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    made = RESULTS / name
    made.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={INPUT_MAX}", "-timeout=20", "-rss_limit_mb=2048"]
    options += ["-print_final_stats=1", f"-artifact_prefix={RESULTS}/{name}-"]
    atheris.Setup([name, *options, str(made), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()
    os._exit(0)


def found_nothing(name: str, seconds: int) -> bool:
    """Fuzz in a process of its own, say how often it ran, and return whether it found nothing."""
    again = [sys.executable, "-m", "fuzz", name, f"--seconds={seconds}"]
    done = subprocess.run(again, capture_output=True, text=True, errors="replace", check=False)
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    print(f"{name}: {int(runs[1]) if runs else 0:,} inputs{'' if done.returncode == 0 else ', FOUND:'}", flush=True)
    if done.returncode != 0:
        print(f"{done.stdout}{done.stderr}"[-6000:], flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
