"""Specs as JSON: what the journal keeps of a task, and the hash that tells whether it changed."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import fields as fields_of

from matterstack.core.workflow import OutputRef, Task
from matterstack.errors import SpecError

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_NAMES: Final = (
    *("cores", "memory_gb", "gpus", "time_limit_minutes", "image", "allow_failure", "allow_dependency_failure"),
    *("outputs", "secrets", "retry", "max_attempts", "profile"),
)
_values: Final = attrgetter(*_NAMES)
_DEFAULTS: Final = tuple({field.name: field.default for field in fields_of(Task)}[name] for name in _NAMES)


class FileDigest(Struct, frozen=True):
    """Content of a ``Path`` input: SHA-256 in hex, and the stat that lets it be trusted unread."""

    sha256: str
    size: int
    mtime_ns: int
    inode: int


Digests = Mapping[str, FileDigest]  # by absolute path


def to_spec(task: Task, digests: Digests) -> dict[str, Any]:
    """Return the task as the JSON object the journal keeps, defaults left out.

    Args:
        task: The task.
        digests: The content of its ``Path`` inputs, as far as it is pinned, by path.
    """
    spec: dict[str, Any] = {"command": task.command}
    if task.files:
        spec["files"] = {name: _source(source, digests) for name, source in task.files.items()}
    if task.env:
        spec["env"] = dict(task.env)
    if task.dependencies:
        spec["dependencies"] = task.dependencies
    values = _values(task)
    if values != _DEFAULTS:
        spec.update((name, v) for name, v, default in zip(_NAMES, values, _DEFAULTS, strict=True) if v != default)
    return spec


def _source(source: str | Path | OutputRef, digests: Digests) -> dict[str, Any]:
    if isinstance(source, str):
        return {"text": source}
    if isinstance(source, OutputRef):
        return {"task": source.task_id, "output": source.path}
    path = str(source)
    digest = digests.get(path)
    if digest is None:  # an output of another task, which is whatever that task wrote
        return {"path": path}
    return {"path": path, "sha256": digest.sha256, "stat": [digest.size, digest.mtime_ns, digest.inode]}


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Return the SHA-256, 32 hex digits of it, of what the spec means.

    The content of a ``Path`` input counts; where it lies and its stat do not.
    """
    files = spec.get("files")
    if files:
        meaning = {
            name: {key: value for key, value in source.items() if key not in ("path", "stat")}
            for name, source in files.items()
        }
        spec = {**spec, "files": meaning}
    return sha256(_encode(spec)).hexdigest()[:32]


def from_spec(task_id: str, spec: Mapping[str, Any]) -> tuple[Task, dict[str, FileDigest]]:
    """Return the task of a recorded spec and the digests of its ``Path`` inputs.

    Raises:
        SpecError: The recorded object is no spec that this version understands.
    """
    fields = dict(spec)
    digests: dict[str, FileDigest] = {}
    files: dict[str, str | Path | OutputRef] = {}
    for name, source in fields.pop("files", {}).items():
        if "text" in source:
            files[name] = source["text"]
        elif "task" in source:
            files[name] = OutputRef(source["task"], source["output"])
        else:
            files[name] = Path(source["path"])
            if "sha256" in source:
                digests[source["path"]] = FileDigest(source["sha256"], *source["stat"])
    if files:
        fields["files"] = files
    try:
        return Task(task_id=task_id, **fields), digests
    except TypeError as error:
        raise SpecError(task_id, "spec", f"was recorded by another version of MatterStack: {error}") from None
