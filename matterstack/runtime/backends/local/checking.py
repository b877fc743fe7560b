"""Whether this machine can run tasks."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from journal.filesystem import network_type
from matterstack.runtime.backends.finding import Finding, Verdict, space

_BASH_S = 20.0


def check_machine(root: Path) -> Iterator[Finding]:
    """Yield what was found; nothing is left behind.

    Args:
        root: The workspace, which need not exist yet.
    """
    there = next(path for path in (root, *root.parents) if path.exists() or path.is_symlink())
    yield _workspace(root, there)
    yield _bash()
    yield _free(there)


def _workspace(root: Path, there: Path) -> Finding:
    try:
        with tempfile.TemporaryDirectory(prefix=".matterstack-check-", dir=there):
            pass
    except OSError as error:
        return Finding("workspace", Verdict.FAILED, f"{root} cannot be written: {there}: {error.strerror}")
    where = str(root) if there == root else f"{root}, to be made in {there}"
    if kind := network_type(str(there)):
        return Finding(
            "workspace", Verdict.WARNING, f"{where}: on a network file system ({kind}), where much is slower"
        )
    return Finding("workspace", Verdict.OK, where)


def _bash() -> Finding:
    command = ["bash", "-c", 'echo "$BASH_VERSION"']
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_BASH_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("bash", Verdict.FAILED, f"slots need it, but it does not run: {error}")
    return Finding("bash", Verdict.OK, done.stdout.strip())


def _free(there: Path) -> Finding:
    try:
        found = os.statvfs(there)
    except OSError as error:
        return Finding("free space", Verdict.WARNING, f"not known: {error.strerror}")
    return space(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)
