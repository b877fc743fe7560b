"""``scripts/simulate``: many seeds on all cores, or one with its trace."""

import argparse
import os
import sys
import time
from collections import Counter
from functools import partial
from multiprocessing import get_context

from simulation.world import TASKS, Outcome, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=TASKS, help="of each campaign (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: all cores)")
    parser.add_argument("--trace", action="store_true", help="print what happened in each seed")
    given = parser.parse_args()
    began = time.monotonic()
    failing: list[Outcome] = []
    total: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    one = partial(simulate, tasks=given.tasks, trace=given.trace)
    with get_context("spawn").Pool(given.jobs) as pool:
        for outcome in pool.imap(one, range(given.first, given.first + given.seeds), chunksize=1):
            if given.trace:
                print("\n".join(outcome.trace))
            if outcome.violation:
                print(f"seed {outcome.seed}: {outcome.violation}", flush=True)
                failing.append(outcome)
            faults.update(outcome.faults)
            ends.update(outcome.ends)
            total.update(controllers=outcome.controllers, events=outcome.events, hours=int(outcome.simulated_s / 3600))
    print(f"{given.seeds} seeds of {given.tasks} tasks in {time.monotonic() - began:.0f} s")
    print(f"controllers: {total['controllers']:,}; events: {total['events']:,}; simulated hours: {total['hours']:,}")
    print(f"faults: {faults.total():,}: {', '.join(f'{kind} {n:,}' for kind, n in sorted(faults.items()))}")
    print(f"ends: {', '.join(f'{end} {n:,}' for end, n in sorted(ends.items()))}")
    if failing:
        again = f"scripts/simulate --tasks {given.tasks} --seeds 1 --trace --first {failing[0].seed}"
        print(f"FAILED: {len(failing)} seeds: {', '.join(str(one.seed) for one in failing)}; see `{again}`")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
