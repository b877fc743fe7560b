"""Time processes fairly: in turns, each in a place of its own, memory without the parent's share."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# A process that was spawned inherits its parent's peak memory in ru_maxrss; so a small one does the spawning.
LAUNCHER = """
import os, sys, time
report, source, *argv = sys.argv[1:]
actions = [(os.POSIX_SPAWN_OPEN, 0, source, os.O_RDONLY, 0),
           (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
           (os.POSIX_SPAWN_OPEN, 2, report + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
at, begin = time.time(), time.perf_counter()
pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - begin
with open(report, "w") as file:
    file.write(f'{{"seconds": {seconds}, "at": {at}, "peak_kb": {usage.ru_maxrss}, '
               f'"code": {os.waitstatus_to_exitcode(status)}}}')
"""


@dataclass(frozen=True)
class Timing:
    """One process: its wall time, when it was started (seconds since 1970), and its peak memory."""

    seconds: float
    at: float
    peak_kb: int


def run(argv: Sequence[str | Path], cwd: Path, stdin: Path | None = None) -> Timing:
    """Return the timing of one process that ended well.

    Raises:
        SystemExit: it ended otherwise; the message has the end of its standard error.
    """
    report = cwd / "launch.json"
    command = [str(part) for part in argv]
    launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(report), str(stdin or os.devnull), *command]
    subprocess.run(launch, cwd=cwd, check=True)
    found = json.loads(report.read_text())
    if found["code"] != 0:
        words = Path(f"{report}.err").read_text(errors="replace")[-2000:]
        sys.exit(f"{' '.join(command)}: ended with {found['code']}:\n{words}")
    return Timing(found["seconds"], found["at"], found["peak_kb"])


def in_turns(subjects: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the median of each subject, measured one after the other, ``repeats`` rounds."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(repeats):
        for name, measure in subjects.items():
            progress(f"{name} ({number + 1} of {repeats})")
            taken[name].append(measure())
    return {name: statistics.median(values) for name, values in taken.items()}


def progress(words: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Row:
    """One line of the table. ``limit`` is the least the machine takes, where that is not the reference."""

    name: str
    value: float
    unit: str = " s"
    reference: float | None = None
    reference_name: str = ""
    limit: float | None = None
    limit_name: str = ""
    goal: str = ""

    def cells(self) -> list[str]:
        ratio = f"{self.value / self.reference:.2f}" if self.reference else ""
        return [
            self.name,
            shown(self.value, self.unit),
            f"{shown(self.reference, self.unit)} {self.reference_name}" if self.reference else "",
            ratio,
            f"{shown(self.limit, self.unit)} {self.limit_name}" if self.limit else "",
            self.goal,
        ]


def shown(value: float, unit: str) -> str:
    if value >= 1000:
        return f"{value:,.0f}{unit}"
    return f"{value:.3g}{unit}"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table with aligned columns."""
    head = ["what", "value", "reference", "ratio", "limit", "goal"]
    lines = [head, *[row.cells() for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )
