"""Whole runs on this machine, beside what does the same and keeps nothing, or less."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from measure import Row, Timing, in_turns, progress, run

HERE = Path(__file__).parent
MATTERSTACK = Path(sys.executable).with_name("matterstack")
SLOTS = 2
PLAIN, NEEDS_SHELL = "true", ": && true"
CHAIN = 200
EDGES = 10_000

# What we set out to reach; multiples are of the reference in the same row.
GOALS = {
    (PLAIN, 1_000): "2.0 x, better 1.4 x",
    (PLAIN, 10_000): "1.6 x, better 1.3 x",
    ("memory", 10_000): "80 MiB, better 45",
    ("rerun", 10_000): "0.3 s, better 0.15 s",
    ("rerun", 100_000): "2 s, better 0.8 s",
    ("resume", 100_000): "0.5 s",
}

PROFILES = f"""\
default: bench
profiles:
  bench: {{backend: local, workspace_root: ./work, max_concurrent_tasks: {SLOTS}}}
"""

INDEPENDENT = """\
from matterstack import Task, Workflow
workflow = Workflow("bench", [Task({command!r}, f"t{{i}}") for i in range({tasks})])
"""

IN_A_CHAIN = """\
from matterstack import Task, Workflow
workflow = Workflow("bench")
for i in range({tasks}):
    workflow.add(Task({command!r}, f"t{{i}}", dependencies=[f"t{{i - 1}}"] if i else []))
"""

# The second half waits for the first: two dependencies each, up to {edges} in all.
WITH_EDGES = """\
from matterstack import Task, Workflow
half = {tasks} // 2
workflow = Workflow("bench")
for i in range({tasks}):
    j = i - half
    needs = [f"t{{j}}", f"t{{(j + 1) % half}}"] if 0 <= j < {edges} // 2 else []
    workflow.add(Task({command!r}, f"t{{i}}", dependencies=needs))
"""

# What reading the states of a finished run costs at least: a process and one query.
BARE_READ = """\
import sqlite3, sys
states = sqlite3.connect(sys.argv[1]).execute("SELECT task, state FROM tasks").fetchall()
assert all(state == "COMPLETED" for _, state in states)
"""


class Places:
    """A new directory for each measurement; nothing is deleted before the end: it slows what follows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.numbers = count(1)

    def new(self) -> Path:
        place = self.root / str(next(self.numbers))
        place.mkdir()
        return place


def campaign(place: Path, text: str, tasks: int, command: str) -> Timing:
    """Return the timing of one whole run, after checking that every task completed."""
    (place / "matterstack.yaml").write_text(PROFILES)
    (place / "bench.py").write_text(text.format(tasks=tasks, command=command, edges=EDGES))
    timing = again(place, "run", "bench.py")
    check_completed(place, tasks)
    return timing


def again(place: Path, *words: str) -> Timing:
    return run([MATTERSTACK, *words, "--journal", "journal.db"], place)


def check_completed(place: Path, tasks: int) -> None:
    words = [MATTERSTACK, "status", "bench", "--json", "--journal", "journal.db"]
    counts = json.loads(subprocess.run(words, cwd=place, check=True, capture_output=True).stdout)["counts"]
    if {state: n for state, n in counts.items() if n} != {"COMPLETED": tasks}:
        sys.exit(f"{place}: {counts}, not {tasks} COMPLETED")


class Others:
    """The same commands without MatterStack."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.limit_name, self.spawn = "Python posix_spawn", [sys.executable, str(HERE / "spawn.py")]
        compiler, binary = shutil.which("cc"), places.new() / "spawn"
        if compiler:
            subprocess.run([compiler, "-O2", "-o", binary, HERE / "spawn.c"], check=True)
            self.limit_name, self.spawn = "C", [str(binary)]
        self.parallel = shutil.which("parallel")

    def loop(self, tasks: int, command: str, slots: int = SLOTS) -> float:
        return run([*self.spawn, str(tasks), str(slots), command], self.places.new()).seconds

    def xargs(self, tasks: int, command: str) -> float:
        words = ["xargs", f"-P{SLOTS}", "-d", "\n", "-n1", "sh", "-c"]
        return self.fed(words, [command] * tasks)

    def gnu_parallel(self, tasks: int, command: str) -> float:
        words = [str(self.parallel), "--will-cite", f"-j{SLOTS}", "--joblog", "log"]
        return self.fed(words, [command] * tasks)

    def fed(self, words: list[str], lines: list[str]) -> float:
        place = self.places.new()
        (place / "lines").write_text("".join(f"{line}\n" for line in lines))
        return run(words, place, stdin=place / "lines").seconds


def throughput(places: Places, others: Others, tasks: int, repeats: int) -> Iterator[Row]:
    timings: list[Timing] = []

    def matterstack(command: str) -> float:
        timings.append(campaign(places.new(), INDEPENDENT, tasks, command))
        return timings[-1].seconds

    subjects: dict[str, Callable[[], float]] = {}
    for command in (PLAIN, NEEDS_SHELL):
        subjects[f"xargs {command}"] = lambda c=command: others.xargs(tasks, c)
        subjects[f"limit {command}"] = lambda c=command: others.loop(tasks, c)
        subjects[f"matterstack {command}"] = lambda c=command: matterstack(c)
    if others.parallel:
        subjects["parallel"] = lambda: others.gnu_parallel(tasks, PLAIN)
    found = in_turns(subjects, repeats)
    for command in (PLAIN, NEEDS_SHELL):
        yield Row(
            f"{tasks:,} tasks `{command}`, {SLOTS} at a time",
            *(found[f"matterstack {command}"], " s", found[f"xargs {command}"], "xargs"),
            *(found[f"limit {command}"], others.limit_name),
            goal=GOALS.get((command, tasks), ""),
        )
    if others.parallel:
        reference = found[f"xargs {PLAIN}"]
        yield Row(f"… the same with GNU parallel --joblog, `{PLAIN}`", found["parallel"], " s", reference, "xargs")
    peak = max(t.peak_kb for t in timings) / 1024
    yield Row(f"peak memory of a run of {tasks:,} tasks", peak, " MiB", goal=GOALS.get(("memory", tasks), ""))


def chain(places: Places, others: Others, repeats: int) -> Iterator[Row]:
    found = in_turns(
        {
            "limit": lambda: others.loop(CHAIN, PLAIN, slots=1),
            "matterstack": lambda: campaign(places.new(), IN_A_CHAIN, CHAIN, PLAIN).seconds,
        },
        repeats,
    )
    reference = (found["limit"], others.limit_name)
    yield Row(f"chain of {CHAIN} tasks `{PLAIN}`", found["matterstack"], " s", *reference, goal="3 x, better 2 x")


def first_spawn(places: Places, tasks: int, repeats: int) -> Iterator[Row]:
    """From the start of the process to the clock that its first task reads."""

    def until_first() -> float:
        place = places.new()
        # Each task leaves its time; the earliest one counts.
        timing = campaign(place, INDEPENDENT, tasks, f"date +%s.%N >> {place}/dates")
        return min(float(line) for line in (place / "dates").read_text().split()) - timing.at

    def python() -> float:
        return run([sys.executable, "-c", "pass"], places.new()).seconds

    found = in_turns({"python": python, "matterstack": until_first}, repeats)
    name = f"from start to the first command, {tasks:,} task{'s' * (tasks > 1)}"
    yield Row(name, found["matterstack"], " s", found["python"], "python -c pass", goal="0.2 s")


def nothing_to_do(places: Places, tasks: int, repeats: int) -> Iterator[Row]:
    place = places.new()
    progress(f"a run of {tasks:,} tasks, to have nothing to do afterwards")
    whole = campaign(place, WITH_EDGES, tasks, PLAIN)
    (place / "bare.py").write_text(BARE_READ)
    subprocess.run([sys.executable, "-c", BARE_TABLE, "bare.db", str(tasks)], cwd=place, check=True)
    found = in_turns(
        {
            "bare": lambda: run([sys.executable, "bare.py", "bare.db"], place).seconds,
            "rerun": lambda: again(place, "run", "bench.py").seconds,
            "resume": lambda: again(place, "resume", "bench").seconds,
        },
        repeats,
    )
    reference = (found["bare"], "bare sqlite3")
    described = f"{tasks:,} tasks with {min(EDGES, tasks):,} dependencies"
    yield Row(f"the run itself of {described}", whole.seconds)
    yield Row(f"peak memory of it, {tasks:,} tasks", whole.peak_kb / 1024, " MiB")
    rerun, resume = GOALS.get(("rerun", tasks), ""), GOALS.get(("resume", tasks), "")
    yield Row(f"`run` again with nothing to do, {described}", found["rerun"], " s", *reference, goal=rerun)
    yield Row(f"`resume` with nothing to do, {described}", found["resume"], " s", *reference, goal=resume)


BARE_TABLE = """\
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE tasks (task TEXT PRIMARY KEY, state TEXT) WITHOUT ROWID")
db.executemany("INSERT INTO tasks VALUES (?, 'COMPLETED')", ((f"t{i}",) for i in range(int(sys.argv[2]))))
db.commit()
"""


def command_line(places: Places, repeats: int) -> Iterator[Row]:
    place = places.new()
    found = in_turns(
        {
            "python": lambda: run([sys.executable, "-c", "pass"], place).seconds,
            "help": lambda: run([MATTERSTACK, "--help"], place).seconds,
        },
        repeats,
    )
    yield Row("`matterstack --help`", found["help"], " s", found["python"], "python -c pass", goal="0.15 s")
