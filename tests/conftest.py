"""What holds for all tests: skipping is told, and in CI it is no way out."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

INSTALL = "scripts/cluster install"
BROWSER = "scripts/browser install"
CRATES = "pip install --editable '.[provenance-test]'"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI, a test that lacks its cluster, browser or packages has failed."""
    report = yield
    lacks = any(words in str(report.longrepr) for words in (INSTALL, BROWSER, CRATES))
    needed = item.get_closest_marker("cluster") is not None or lacks
    if report.skipped and os.environ.get("CI") == "true" and needed:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which it must not be in CI: {report.longrepr}"
    return report


@pytest.fixture
def died(record_property):
    """Takes down where a controller died whose tasks all came out right; told at the end of the tests."""

    def take(backend, where):
        record_property("crash point", [backend, where])

    return take


CRASH_POINTS = "MATTERSTACK_CRASH_POINTS"
"""Names a file for the points at which a controller died; see scripts/docs."""


def pytest_terminal_summary(terminalreporter):
    tell_crash_points(terminalreporter)
    tell_skipped(terminalreporter, INSTALL, "no real cluster", "on a real Slurm or sshd")
    tell_skipped(terminalreporter, BROWSER, "no browser", "of pages in a browser")
    tell_skipped(terminalreporter, CRATES, "no RO-Crate", "of RO-Crates", by="")


def tell_skipped(terminalreporter, install, title, what, by=", as root,"):
    """Say loudly which tests were not run, and what would make them."""
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if install in str(report.longrepr)]
    if skipped:
        terminalreporter.section(title, red=True)
        terminalreporter.line(f"{len(skipped)} tests {what} were NOT RUN. `{install}`{by} gets what they need.")


def tell_crash_points(terminalreporter):
    """Say at how many points a controller died, of those tests that passed."""
    points = Counter(
        tuple(value)
        for report in terminalreporter.stats.get("passed", ())
        for name, value in report.user_properties
        if name == "crash point" and value[1]
    )
    for backend in sorted({backend for backend, _ in points}):
        of_it = {where: count for (of, where), count in points.items() if of == backend}
        terminalreporter.line(f"{backend}: the controller died at {sum(of_it.values())} points of {len(of_it)} kinds.")
    if points and CRASH_POINTS in os.environ:
        rows = [[*point, count] for point, count in sorted(points.items())]
        Path(os.environ[CRASH_POINTS]).write_text(json.dumps(rows))
