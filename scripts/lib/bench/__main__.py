"""``scripts/bench local|slurm|audit``: prints a table of speeds with references from the same run; asserts nothing."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import audit
import events
import local
from measure import Row, progress, table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "what",
        choices=["local", "slurm", "audit"],
        help="runs and the journal; a cluster; questions to a large journal",
    )
    parser.add_argument("--quick", action="store_true", help="fewer, smaller measurements: about a minute")
    parser.add_argument("--size", type=int, help="tasks of the largest finished run (default 100,000; quick 10,000)")
    parser.add_argument("--tasks", type=int, help="tasks of the journal for audit (default 1,000,000; quick 20,000)")
    parser.add_argument("--events", type=int, help="events of the largest journal (default 5,000,000; quick 200,000)")
    parser.add_argument("--repeats", type=int, help="rounds of the short measurements (default 5; quick 3)")
    parser.add_argument("--dir", type=Path, default=Path("results"), help="work here (default ./results)")
    parser.add_argument("--only", choices=["runs", "journal"], help="one half of it")
    parser.add_argument("--keep", action="store_true", help="do not delete the files at the end")
    return parser.parse_args()


def run_rows(places: local.Places, options: argparse.Namespace, repeats: int) -> Iterator[Row]:
    others = local.Others(places)
    if not others.parallel:
        print("GNU parallel is not installed: not measured.", file=sys.stderr)
    size = options.size or (10_000 if options.quick else 100_000)
    yield from local.command_line(places, 2 * repeats)
    yield from local.first_spawn(places, 1, repeats)
    yield from local.first_spawn(places, 1000, repeats)
    yield from local.chain(places, others, repeats)
    yield from local.throughput(places, others, 1000, repeats)
    if not options.quick:
        yield from local.throughput(places, others, 10_000, 3)
    for tasks in sorted({min(10_000, size), size}):
        yield from local.nothing_to_do(places, tasks, repeats)


def event_rows(places: local.Places, options: argparse.Namespace, repeats: int) -> Iterator[Row]:
    amount = options.events or (200_000 if options.quick else 5_000_000)
    yield from events.append_rates(places.new(), 20_000 if options.quick else 200_000, repeats)
    yield from events.many_events(places.new(), amount)


def audit_in_memory(options: argparse.Namespace) -> None:
    """Print what is found as it is found; the journal stands in memory where there is room for it."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=shared if shared.is_dir() else None) as place:
        tasks = options.tasks or (20_000 if options.quick else 1_000_000)
        found = list(audit.rows(Path(place), tasks))
    progress("")
    print(table(found))


def main() -> None:
    options = arguments()
    repeats = options.repeats or (3 if options.quick else 5)
    if options.what == "slurm":
        sys.path.insert(0, str(Path(__file__).parents[1]))
        import slurm  # needs the packages of scripts/cluster

        found = list(slurm.rows(options.repeats or (1 if options.quick else 10), quick=options.quick))
        progress("")
        print(table(found))
        return
    if options.what == "audit":
        audit_in_memory(options)
        return
    options.dir.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=options.dir)).resolve()
    places = local.Places(root)
    rows: list[Row] = []
    try:
        if options.only != "journal":
            rows += run_rows(places, options, repeats)
        if options.only != "runs":
            rows += event_rows(places, options, repeats)
    finally:
        progress("")
        if rows:
            print(table(rows))
        if options.keep:
            print(f"kept: {root}", file=sys.stderr)
        else:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
