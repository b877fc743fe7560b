"""The tasks of a run: from the user's workflow, or read back from the journal when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from journal import Journal
from matterstack.core.spec import Digests, FileDigest, from_spec, spec_hash, to_spec
from matterstack.core.workflow import Task, Workflow
from matterstack.errors import RunError
from matterstack.runtime import staging

_NONE: Final[Digests] = MappingProxyType({})
# Below this size, a file is read sooner than its recorded digest is looked up.
_LARGE: Final = 1_000_000


class WorkflowSpecs:
    """Tasks as the user's workflow has them now."""

    def __init__(self, workflow: Workflow) -> None:
        self._tasks = dict(workflow.tasks)
        self._digests: dict[str, FileDigest] = {}

    def __getitem__(self, task_id: str) -> Task:
        return self._tasks[task_id]

    def digests(self, task_id: str) -> Digests:
        """Return the digests of the task's ``Path`` inputs."""
        paths = [str(source) for source in self._tasks[task_id].files.values() if isinstance(source, Path)]
        return {path: self._digests[path] for path in paths} if paths else _NONE

    def spec(self, task: Task, known: JournalSpecs | None) -> dict[str, Any]:
        """Return the task's spec as the journal keeps it, its ``Path`` inputs absolute and digested.

        Args:
            task: One of the workflow's.
            known: The run's earlier specs, if it has the task; they spare large files a second reading.
        """
        if task.files and any(isinstance(source, Path) for source in task.files.values()):
            task = self._digested(task, known)
        return to_spec(task, self._digests)

    def _digested(self, task: Task, known: JournalSpecs | None) -> Task:
        files = {name: s.absolute() if isinstance(s, Path) else s for name, s in task.files.items()}
        task = replace(task, files=files)
        self._tasks[task.task_id] = task
        for source in files.values():
            if isinstance(source, Path) and str(source) not in self._digests:
                old = None
                if known is not None and source.is_file() and source.stat().st_size > _LARGE:
                    old = known.digests(task.task_id).get(str(source))
                self._digests[str(source)] = staging.digest(task.task_id, source, old)
        return task


class JournalSpecs:
    """Tasks as the journal has them, each read when it is first asked for."""

    def __init__(self, journal: Journal, run: str) -> None:
        self._journal, self._run = journal, run
        self._read: dict[str, tuple[Task, dict[str, FileDigest]]] = {}

    def __getitem__(self, task_id: str) -> Task:
        return self._entry(task_id)[0]

    def digests(self, task_id: str) -> Digests:
        """Return the digests of the task's ``Path`` inputs."""
        return self._entry(task_id)[1]

    def needs(self, task_ids: Iterable[str]) -> dict[str, Sequence[str]]:
        """Return what these tasks wait for, where they wait for any."""
        return {task_id: needs for task_id in task_ids if (needs := self[task_id].needs())}

    def _entry(self, task_id: str) -> tuple[Task, dict[str, FileDigest]]:
        if task_id not in self._read:
            rows = self._journal.query(
                "SELECT data, spec_hash, position FROM tasks JOIN events ON position = spec_position"
                " WHERE tasks.subject = ?",
                (f"{self._run}/{task_id}",),
            )
            if not rows:
                raise KeyError(task_id)
            ((data, recorded, position),) = rows
            spec = msgspec.json.decode(data)["spec"]
            if spec_hash(spec) != recorded:
                raise RunError(
                    f"task {task_id!r}: its spec, event {position} of the journal, was altered after it was recorded. "
                    "Nothing was started; `matterstack verify` shows what can still be trusted."
                )
            self._read[task_id] = from_spec(task_id, spec)
        return self._read[task_id]
