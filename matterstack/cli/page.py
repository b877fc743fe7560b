"""``report``: a run as one HTML page."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from matterstack.config.profiles import open_backend
from matterstack.errors import FilesUnsupported, MatterStackError
from matterstack.history import History
from matterstack.history.past import Past, located
from matterstack.report import Workdir, collect, page
from matterstack.report.page import MARK
from matterstack.runtime.backends.base import ComputeBackend

T = TypeVar("T")

_BEGINNING: Final = 200  # bytes of a file in which a report says that it is one


def report(arguments: argparse.Namespace) -> int:
    """Write the page of a run."""
    path = located(arguments.journal)
    with History(path) as history, Past(path) as past:
        run = history.run(arguments.run)
        html = page(collect(past, run, workdirs(history, run))).html
    if arguments.output == "-":
        sys.stdout.write(html)
        return 0
    target = Path(arguments.output or f"{run}.html")
    _write(target, html)
    print(target)
    return 0


def workdirs(history: History, run: str) -> Workdir:
    """Return what finds the directories of a run's attempts on this machine; nothing is connected."""
    status = history.status(run)
    opened: dict[str, ComputeBackend | None] = {}

    def workdir(profile: str, job_id: str) -> Path | None:
        if profile not in opened:
            opened[profile] = _or_none(lambda: open_backend(status.profiles.get(profile, status.profile)))
        backend = opened[profile]
        return None if backend is None else _or_none(lambda: backend.workdir(job_id))

    return workdir


def _or_none(find: Callable[[], T]) -> T | None:
    """Return what is found; None where a backend was of a script's own, has no files, or is of another version."""
    try:
        return find()
    except (MatterStackError, FilesUnsupported, ValueError, KeyError):
        return None


def _write(target: Path, html: str) -> None:
    """Put the page where it belongs, whole or not at all.

    Raises:
        MatterStackError: Something else is there.
    """
    if os.path.lexists(target) and not _is_report(target):
        raise MatterStackError(
            f"{str(target)!r} exists and is no report. Nothing was written; name another file with --output."
        )
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(html, encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _is_report(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(_BEGINNING)
