"""Prints what share of lines and branches the tests take; see scripts/coverage."""

import json
import sys
from collections import defaultdict

AT_LEAST = {"journal": 95.0, "matterstack/core": 95.0, "matterstack/runtime": 95.0}
WORST = 12


def share(lines: dict[str, int]) -> float:
    """Return percent of lines and branches that were taken."""
    return (
        100 * (lines["covered_lines"] + lines["covered_branches"]) / (lines["num_statements"] + lines["num_branches"])
    )


def main(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        files = json.load(file)["files"]
    packages: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    of_files = {}
    for name, found in files.items():
        if not found["summary"]["num_statements"]:
            continue
        package = name.split("/")[0] if name.startswith("journal") else "/".join(name.split("/")[:2])
        of_files[name] = share(found["summary"])
        for key, count in found["summary"].items():
            if isinstance(count, int):
                packages[package][key] += count
    print("| package | lines | branches | both |\n|---|---|---|---|")
    for package, sums in sorted(packages.items()):
        lines = 100 * sums["covered_lines"] / sums["num_statements"]
        branches = 100 * sums["covered_branches"] / (sums["num_branches"] or 1) if sums["num_branches"] else 100.0
        print(f"| {package} | {lines:.1f} % | {branches:.1f} % | {share(sums):.1f} % |")
    print("\nleast of all:")
    for name, percent in sorted(of_files.items(), key=lambda one: one[1])[:WORST]:
        print(f"  {percent:5.1f} %  {name}: lines {str(files[name]['missing_lines'])[:100]}")
    low = [name for name, least in AT_LEAST.items() if share(packages[name]) < least]
    if low:
        print(f"below what is asked: {', '.join(low)}", file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
