"""Runs pytest; what failed beside others is run once more, alone: docs/decisions/0008-flaky-tests.md.

The exit code is that of the second run, and the last line counts both.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

MOST = 5  # more failures than these are no accident
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def run(*words: str) -> tuple[int, str]:
    """Return the exit code of pytest and its last line, having passed on all it said."""
    command = [sys.executable, "-m", "pytest", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    said = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            said = (said + piece)[-10_000:]
        code = process.wait()
    return code, said.decode(errors="replace").strip().rpartition("\n")[2]


def counts(line: str) -> dict[str, int]:
    """Return the numbers of a summary line by their words, e.g. ``{"passed": 3}``."""
    return {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", line.partition(" in ")[0])}


def summary(first: str, second: str, seconds: float) -> str:
    """Return the summary line of two runs of which the second had those that failed in the first, and passed."""
    kept = {word: number for word, number in counts(first).items() if word not in {"failed", "error", "errors"}}
    passed = kept.pop("passed", 0) + counts(second).get("passed", 0)
    return ", ".join([f"{passed} passed", *(f"{number} {word}" for word, number in kept.items())]) + (
        f" in {seconds:.2f}s"
    )


def main(arguments: list[str]) -> int:
    """Return the exit code of the run, or of the second one where there was one."""
    began = time.monotonic()
    code, first = run("--cache-clear", *arguments)
    failed = list(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []
    # A file that cannot even be read has no "::" in its name.
    if code != 1 or not 0 < len(failed) <= MOST or not all("::" in name for name in failed):
        return code
    print("\nThese failed beside others and are run once more, alone:", *failed, sep="\n  ", flush=True)
    code, second = run("-n", "0", "--last-failed", "--last-failed-no-failures", "none")
    if code == 0:
        print(*(f"FLAKY: {name}" for name in failed), summary(first, second, time.monotonic() - began), sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
