"""Removing the directories of ended attempts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

from journal import Journal
from matterstack.core import events as ev
from matterstack.core.workflow import OutputRef
from matterstack.errors import RunError
from matterstack.runtime.specs import JournalSpecs


class Cleaned(NamedTuple):
    """What was, or would be, removed; ``kept_live`` attempts were not touched."""

    attempts: int
    files: int
    bytes: int
    kept_live: int


def clean_run(journal: Journal, run: str, *, outputs_too: bool, dry_run: bool) -> Cleaned:
    """Return what was removed of the run's attempt directories on this machine.

    Declared outputs of a task stay unless ``outputs_too``, and files that a task which has not completed
    takes stay in any case. An attempt whose end is not recorded is never touched.

    Raises:
        RunError: The run has no workspace on this machine.
    """
    ((profile, others),) = journal.query("SELECT profile, profiles FROM runs WHERE run = ?", (run,))
    own = _root(ev.profile_of(profile))
    roots = {name: _root(settings) for name, settings in ev.profile_of(others).items()}
    if not own:
        raise RunError(f"run {run!r} has no workspace on this machine that the journal knows of. Nothing was removed.")
    specs = JournalSpecs(journal, run)
    rows = journal.query(
        "SELECT task, state, job_id, profile FROM attempts WHERE run = ? AND job_id IS NOT NULL", (run,)
    )
    wanted = _wanted(journal, run, specs)
    files = size = ended = 0
    for task, state, job_id, named in rows:
        directory = Path(roots.get(named) or own, job_id.rpartition("@")[2])
        if state not in ("COMPLETED", "FAILED") or not directory.is_dir():
            continue
        ended += 1
        keep = [*wanted.get(task, ()), *(() if outputs_too else specs[task].outputs)]
        removed, freed = _clean_directory(directory, keep, dry_run=dry_run)
        files, size = files + removed, size + freed
    live = sum(state not in ("COMPLETED", "FAILED") for _, state, _, _ in rows)
    return Cleaned(ended, files, size, live)


def _root(profile: Mapping[str, Any]) -> str:
    """Return where a profile's jobs leave their files on this machine."""
    return str(profile.get("results_root") or profile.get("workspace_root") or "")


def _wanted(journal: Journal, run: str, specs: JournalSpecs) -> dict[str, list[str]]:
    """Return by task the files that others, which may still run, take from it."""
    wanted: dict[str, list[str]] = {}
    open_tasks = "SELECT task FROM tasks WHERE run = ? AND state <> 'COMPLETED' AND NOT dropped"
    for (task,) in journal.query(open_tasks, (run,)):
        for source in specs[task].files.values():
            if isinstance(source, OutputRef):
                wanted.setdefault(source.task_id, []).append(escape(source.path))
    return wanted


def _clean_directory(directory: Path, keep: Sequence[str], *, dry_run: bool) -> tuple[int, int]:
    """Remove what no pattern keeps; links are removed, never followed."""
    files = size = 0
    for where, directories, names in os.walk(directory, topdown=False):
        linked = [name for name in directories if os.path.islink(os.path.join(where, name))]
        for name in [*names, *linked]:
            path = os.path.join(where, name)
            relative = os.path.relpath(path, directory)
            if any(fnmatchcase(relative, pattern) for pattern in keep):
                continue
            files, size = files + 1, size + os.lstat(path).st_size
            if not dry_run:
                os.unlink(path)
        if not dry_run and not os.listdir(where):
            os.rmdir(where)
    return files, size
