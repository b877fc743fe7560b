"""Workflows in YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from matterstack.config.checked import checked, wrong
from matterstack.config.yaml_file import read_yaml
from matterstack.core.workflow import OutputRef, Task, Workflow
from matterstack.errors import ConfigError, MatterStackError


class _File(Struct, forbid_unknown_fields=True):
    """A file input in YAML: ``{path: …}`` or ``{task: …, output: …}``."""

    path: str | None = None
    task: str | None = None
    output: str | None = None


class _Task(Struct, forbid_unknown_fields=True):
    task_id: str
    command: str
    files: dict[str, Any] = {}
    env: dict[str, str | int] = {}  # no float: 3.10 would silently become 3.1
    dependencies: list[str] = []
    cores: int = 1
    memory_gb: float | None = None
    gpus: int = 0
    time_limit_minutes: float | None = None
    image: str | None = None
    allow_failure: bool = False
    allow_dependency_failure: bool = False
    outputs: list[str] = []
    secrets: list[str] = []
    retry: str = "if-not-started"
    max_attempts: int = 3
    profile: str = ""


class _Workflow(Struct, forbid_unknown_fields=True):
    tasks: list[Any]
    name: str = ""


def read_yaml_workflow(path: Path) -> Workflow:
    """Return the workflow of a YAML file.

    Raises:
        ConfigError: It is no YAML, or no workflow; the message has file, line and path.
    """
    data = checked(read_yaml(path), _Workflow, path, [])
    where: list[str | int] = []
    try:
        workflow = Workflow(data.name)
        for index, entry in enumerate(data.tasks):
            where = ["tasks", index]
            workflow.add(_task(checked(entry, _Task, path, where), path, where))
    except ConfigError:
        raise
    except MatterStackError as error:
        raise wrong(path, where, str(error).removesuffix(".")) from None
    return workflow


def _task(entry: _Task, path: Path, where: Sequence[str | int]) -> Task:
    fields = msgspec.structs.asdict(entry)
    fields["files"] = {name: _source(source, path, [*where, "files", name]) for name, source in entry.files.items()}
    fields["env"] = {name: str(value) for name, value in entry.env.items()}
    return Task(**fields)


def _source(source: object, path: Path, where: Sequence[str | int]) -> str | Path | OutputRef:
    if isinstance(source, str):
        if source and "\n" not in source and os.path.exists(path.parent / source):
            raise wrong(
                path, where, f"{source!r} is a file: write {{path: {source}}} for it, or the text with a line end"
            )
        return source
    match checked(source, _File, path, where) if isinstance(source, Mapping) else None:
        case _File(path=str(file), task=None, output=None):
            return path.parent / file
        case _File(path=None, task=str(task), output=str(output)):
            return OutputRef(task, output)
    raise wrong(path, where, "expected text, {path: FILE} or {task: ID, output: FILE}")
