"""What a profile says for Slurm, checked: options of sbatch, what is set up before a command, the workspace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict, fields

from matterstack.runtime.backends.hpc.sbatch_names import FREE, OWNED

_LONG_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_MODULE: Final = re.compile(r"[A-Za-z0-9_.+/-]+", re.ASCII)
CONTAINERS: Final = ("apptainer", "singularity")
_EXAMPLES: Final = {
    "account": "m1234",
    "partition": "regular",
    "qos": "normal",
    "constraint": "haswell",
    "gres": "gpu:2",
    "nodes": "1",
    "ntasks": "64",
    "container": "apptainer",
}
_LINES: Final = {"modules": "module load python/3.9", "prologue": "ulimit -s unlimited"}
_UNSENDABLE: Final = re.compile("[\\0\\r\ud800-\udfff]")
_CONTROL: Final = re.compile("[\\0-\\x1f\\x7f-\\x9f\u2028\u2029\ud800-\udfff]")
_LIKENESS: Final = 0.8  # of a misspelt key to the one that was meant; a site's own options must not be taken for one


def root_problem(root: str) -> str | None:
    """Return why Slurm could not find its way into a workspace of this name, as what it must be; None where it can."""
    if not root.isprintable():
        return "must have no line breaks or control characters"
    odd = next((char for char in "%\\" if char in root), None)
    if odd is None:
        return None
    return (
        f"must have no {odd!r}, unlike {root!r}: Slurm reads it as part of a pattern in the names of a job's directory "
        "and output, and no job could start; name a directory without it"
    )


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
                if name in extra:
                    raise ValueError(f"{key}: is given twice, as --{name} of sbatch")
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
        raise TypeError(f"{key}: must be a text such as {_EXAMPLES[key]!r}, not {value!r}")
    text = _plain(key, str(value))
    if key == "container" and text not in CONTAINERS:
        raise ValueError(f"{key}: must be one of {', '.join(CONTAINERS)}, not {text!r}")
    return text


def _lines(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{key}: must be a list of lines such as {[_LINES[key]]!r}, not {value!r}")
    lines = tuple(value)
    for line in lines:
        if not isinstance(line, str) or not line.strip():
            raise TypeError(f"{key}: must be a list of lines such as {_LINES[key]!r}, not {line!r}")
        if _UNSENDABLE.search(line):  # sbatch refuses scripts with NUL or carriage returns
            raise ValueError(f"{key}: must have no NUL, carriage return or half a character, unlike {line!r}")
    if key == "modules":
        return tuple(f"module load {line}" if _MODULE.fullmatch(line) else line for line in lines)
    return lines


def _extra(key: object, value: object, known: list[str]) -> tuple[str, str | bool]:
    name = str(key).replace("_", "-").removeprefix("--")
    if not isinstance(key, str) or not _LONG_NAME.fullmatch(name):
        raise ValueError(f"{key!r} is no setting, and no long name of an option of sbatch such as 'mail-type'")
    if name not in FREE:
        _check_name(key, name, known)
    if isinstance(value, bool):
        if not value:
            raise ValueError(f"{key}: leave it out instead of false; true stands for an option without value")
        return name, True
    if not isinstance(value, (str, int, float)):
        raise TypeError(f"{key}: must be a text, a number or true, not {value!r}")
    return name, _plain(key, str(value))


def _check_name(key: str, name: str, known: list[str]) -> None:
    """Refuse what is ours, or a beginning of it, and what was probably meant to be another name."""
    owned = next((one for one in sorted(OWNED) if one.startswith(name)), None)
    if owned is not None:
        also = "" if owned == name else f" (sbatch takes it for --{owned})"
        raise ValueError(f"{key}: cannot be set{also}, {OWNED[owned]}")
    begun = [one for one in known if one.startswith(name)]
    meant = begun or get_close_matches(name, [*known, *OWNED, *FREE], n=1, cutoff=_LIKENESS)
    if meant:
        raise ValueError(f"unknown key {key!r}. Did you mean {meant[0]!r}?")


def _plain(key: str, text: str) -> str:
    if not text.strip() or _CONTROL.search(text):
        raise ValueError(f"{key}: must be a text without line breaks or control characters, not {text!r}")
    return text
