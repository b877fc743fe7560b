"""Specs as JSON: what the journal keeps of a task, and the hash that tells whether it changed."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from matterstack.core.workflow import OutputRef, Task
from matterstack.errors import SpecError

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_PLAIN: Final = (
    ("cores", 1),
    ("memory_gb", None),
    ("gpus", 0),
    ("time_limit_minutes", None),
    ("image", None),
    ("allow_failure", False),
    ("allow_dependency_failure", False),
    ("outputs", ()),
    ("secrets", ()),
    ("retry", "if-not-started"),
    ("max_attempts", 3),
)


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
    for field, default in _PLAIN:
        value = getattr(task, field)
        if value != default:
            spec[field] = value
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
