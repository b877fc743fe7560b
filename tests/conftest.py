"""What holds for all tests: skipping is told, and in CI it is no way out."""

from __future__ import annotations

import os

import pytest

INSTALL = "scripts/cluster install"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI, a test that lacks its cluster has failed."""
    report = yield
    needed = item.get_closest_marker("cluster") is not None or INSTALL in str(report.longrepr)
    if report.skipped and os.environ.get("CI") == "true" and needed:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which it must not be in CI: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.stats.get("skipped", ()) if INSTALL in str(report.longrepr)]
    if skipped:
        terminalreporter.section("no real cluster", red=True)
        terminalreporter.line(
            f"{len(skipped)} tests on a real Slurm or sshd were NOT RUN. `{INSTALL}`, as root, gets what they need."
        )
