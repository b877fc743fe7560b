"""A profile's ``slurm`` settings, checked: what becomes an option of sbatch, and what is set up before a command."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict, fields

from matterstack.errors import nearest

_LONG_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_MODULE: Final = re.compile(r"[A-Za-z0-9_.+/-]+", re.ASCII)
CONTAINERS: Final = ("apptainer", "singularity")
# Options that MatterStack sets itself, and why nobody else may.
_OWNED: Final = {
    "array": "job arrays are made by itself",
    "chdir": "a task runs in its own directory",
    "dependency": "dependencies of tasks are kept by the run",
    "error": "a task's standard error goes to stderr.txt in its directory",
    "export": "a job begins with a clean environment; give the task env, or the profile a prologue",
    "hold": "a held job would wait for ever",
    "input": "a task reads from /dev/null; give it files",
    "job-name": "jobs are found by their name",
    "no-requeue": "it is the default; `requeue: true` allows it",
    "open-mode": "a task's output is kept apart by attempt",
    "output": "a task's output goes to stdout.txt in its directory",
    "parsable": "it is set already",
    "signal": "the time limit is watched already",
    "test-only": "nothing would be submitted; `matterstack run --dry-run` shows the scripts",
    "time": "give the task a time_limit_minutes",
    "cpus-per-task": "give the task cores",
    "mem": "give the task memory_gb",
    "wait": "a run waits by itself",
    "wrap": "the script is written by itself",
}


class SlurmOptions(Struct, frozen=True):
    """Settings for all jobs of a profile.

    ``modules``: lines such as ``module load python/3.9``; ``prologue``: shell lines run before each command.
    ``container``: runtime for tasks with an image. ``requeue``: whether Slurm may start a job again after a node
    failed or it was preempted. ``arrays``: whether tasks alike go as job arrays. ``extra``: any further option of
    sbatch by its long name; True stands for one without value.
    """

    account: str = ""
    partition: str = ""
    qos: str = ""
    constraint: str = ""
    gres: str = ""
    nodes: str = ""
    ntasks: str = ""
    modules: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    container: str = "apptainer"
    requeue: bool = False
    arrays: bool = True
    extra: Mapping[str, str | bool] = {}

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> SlurmOptions:
        """Return the settings of a mapping as profiles and `SlurmBackend` take it.

        Args:
            settings: By name; a name that is none of the fields is an option of sbatch.

        Raises:
            TypeError, ValueError: A key is unknown, or its value makes no sense; the message names it.
        """
        if not isinstance(settings, Mapping):
            raise TypeError(f"slurm settings must be a mapping such as {{'account': 'm1234'}}, not {settings!r}")
        known = [field.name for field in fields(cls) if field.name != "extra"]
        found: dict[str, Any] = {}
        extra: dict[str, str | bool] = {}
        for key, value in settings.items():
            if key in known:
                found[key] = _checked(key, value)
            else:
                name, text = _extra(key, value, known)
                extra[name] = text
        return cls(**found, extra=extra)

    def to_mapping(self) -> dict[str, Any]:
        """Return what `of` makes the same settings from; defaults are left out."""
        defaults = asdict(SlurmOptions())
        own = {k: v for k, v in asdict(self).items() if v != defaults[k] and k != "extra"}
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}
        return {**lists, **self.extra}


def _checked(key: str, value: object) -> object:
    if key in ("modules", "prologue"):
        return _lines(key, value)
    if key in ("requeue", "arrays"):
        if not isinstance(value, bool):
            raise TypeError(f"{key}: must be true or false, not {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TypeError(f"{key}: must be a text, not {value!r}")
    text = _plain(key, str(value))
    if key == "container" and text not in CONTAINERS:
        raise ValueError(f"{key}: must be one of {', '.join(CONTAINERS)}, not {text!r}")
    return text


def _lines(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{key}: must be a list of lines such as ['module load python/3.9'], not {value!r}")
    lines = tuple(value)
    for line in lines:
        if not isinstance(line, str) or "\0" in line or not line.strip():
            raise TypeError(f"{key}: must be a list of lines of shell, not {line!r}")
    if key == "modules":
        return tuple(f"module load {line}" if _MODULE.fullmatch(line) else line for line in lines)
    return lines


def _extra(key: object, value: object, known: list[str]) -> tuple[str, str | bool]:
    name = str(key).replace("_", "-").removeprefix("--")
    if not isinstance(key, str) or not _LONG_NAME.fullmatch(name):
        raise ValueError(f"{key!r} is no setting, and no long name of an option of sbatch such as 'mail-type'")
    if name in _OWNED:
        raise ValueError(f"{key}: cannot be set, {_OWNED[name]}")
    hint = nearest(name, known)
    if "Did you mean" in hint and name not in _REAL:
        raise ValueError(f"unknown key {key!r}{hint}")
    if isinstance(value, bool):
        if not value:
            raise ValueError(f"{key}: leave it out instead of false; true stands for an option without value")
        return name, True
    if not isinstance(value, (str, int, float)):
        raise TypeError(f"{key}: must be a text, a number or true, not {value!r}")
    return name, _plain(key, str(value))


# Options of sbatch whose names are near to ours, so that they are not taken for misspelt ones.
_REAL: Final = frozenset(
    (
        *("mem-per-cpu", "mem-per-gpu", "nodelist", "nodefile", "ntasks-per-node", "ntasks-per-core"),
        *("ntasks-per-socket", "ntasks-per-gpu", "gres-flags", "exclude", "exclusive", "container-id", "comment"),
        *(
            "contiguous",
            "core-spec",
            "cluster-constraint",
            "clusters",
            "prefer",
            "priority",
            "power",
            "profile",
            "batch",
        ),
    )
)


def _plain(key: str, text: str) -> str:
    if not text or any(ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F for char in text):
        raise ValueError(f"{key}: must be a text without line breaks or control characters, not {text!r}")
    return text
