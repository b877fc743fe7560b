"""YAML files of users."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec

from matterstack.config.profiles import Profiles, open_backend, resolve
from matterstack.config.workflow_file import load_workflow
from matterstack.core.spec import from_spec, spec_hash, to_spec
from matterstack.core.workflow import Task, Workflow
from matterstack.errors import ConfigError, MatterStackError, WorkflowError
from matterstack.runtime.backends.hpc.job_script import directives
from matterstack.runtime.backends.hpc.options import SlurmOptions

_MEMORY: Final = Path("/dev/shm")


@cache
def place() -> Path:
    """Return an empty directory, in memory where there is such a place; it goes with the process."""
    made = Path(tempfile.mkdtemp(prefix="ms-fuzz-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@contextmanager
def _file(data: bytes) -> Iterator[Path]:
    """Write the file into an empty project, without any of the user's own."""
    project = place() / "project"
    project.mkdir(exist_ok=True)
    path = project / "given.yaml"
    path.write_bytes(data)
    with chdir(project), patch.dict(os.environ, {"XDG_CONFIG_HOME": str(project), "HOME": str(project)}):
        yield path


def profiles(data: bytes) -> None:
    """A profile is refused in words, or can be kept in the journal, and opened from there."""
    with _file(data) as path:
        try:
            found = Profiles(path)
        except ConfigError as error:
            _told(error, data)
            return
        for name in found.names():
            try:
                resolved = resolve(found.choose(name))
            except ConfigError as error:
                _told(error, data)
                continue
            assert msgspec.json.decode(msgspec.json.encode(resolved)) == resolved
            for text in _texts({**resolved, "name": ""}):  # which is only ever told, in quotes
                assert "\0" not in text
            assert os.path.isabs(resolved["workspace_root"])
            open_backend(resolved)
            if resolved["backend"] == "slurm":
                options = SlurmOptions.of(resolved["slurm"])
                assert not [one for one in directives(Task("true", "a"), options) if "\n" in one]


def workflow(data: bytes) -> None:
    """A workflow is refused in words, or each of its tasks can be kept in the journal and be made into a job."""
    with _file(data) as path:
        try:
            found = load_workflow(path)
        except ConfigError as error:
            _told(error, data)
            return
    for task in found:
        _kept(task)
    try:
        found.dependencies()
    except WorkflowError as error:
        _told(error, data, tasks=len(found))
    assert isinstance(found, Workflow)


def _kept(task: Task) -> None:
    spec = to_spec(task, {})
    read = msgspec.json.decode(msgspec.json.encode(spec))
    again, _ = from_spec(task.task_id, read)
    assert again == task
    assert spec_hash(read) == spec_hash(spec)
    assert not [one for one in directives(task, SlurmOptions()) if "\n" in one]
    for source in task.files.values():
        assert not isinstance(source, Path) or "\0" not in str(source)


def _told(error: MatterStackError, data: bytes, tasks: int = 1) -> None:
    words = str(error)
    assert "Nothing was started" in words
    # What is wrong may be shown once or twice, but it does not grow.
    assert len(words) <= 12 * len(data) + 2000 + 2 * tasks


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield str(key)
            yield from _texts(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)
