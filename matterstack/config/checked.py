"""Plain data from a file into a typed struct, with the file, line and path of what does not fit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import msgspec

from matterstack.config.yaml_file import line_of
from matterstack.errors import ConfigError, nearest

T = TypeVar("T", bound=msgspec.Struct)
_WORDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
_CHOICE: Final = re.compile(r"Invalid enum value ('(.*)')")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+)\]|\[\.\.\.\]")


def checked(data: object, kind: type[T], file: Path, where: Sequence[str | int]) -> T:
    """Return ``data`` as ``kind``.

    Args:
        data: What stands in the file at ``where``.
        kind: A msgspec struct.
        file: For the message; its line is told where it is YAML.
        where: Keys and indices that lead to ``data``.

    Raises:
        ConfigError: A key is unknown, missing or has the wrong type.
    """
    if not isinstance(data, Mapping):
        raise wrong(file, where, f"expected a mapping of keys to values, got {kind_of(data)}")
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in data:
        if key not in known:
            raise wrong(file, where, f"unknown key {key!r}{nearest(str(key), known)}", key)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        steps = [name or int(index) for name, index in _STEP.findall(path.rstrip("`")) if name or index]
        key, mark, rest = text.partition(": ")
        if mark and not steps and key in known:  # a struct's own check names its field so
            steps, text = [key], rest
        if whole := _CHOICE.match(text):
            choices = [field.type for field in msgspec.structs.fields(kind) if [field.encode_name] == steps]
            text = f"there is no {whole[1]}{nearest(whole[2], map(str, get_args(choices[0])) if choices else ())}"
        raise wrong(file, [*where, *steps], _plainly(text)) from None


def local_path(text: str, base: Path, file: Path, where: Sequence[str | int]) -> str:
    """Return an absolute path on this machine.

    Args:
        text: What stands in the file at ``where``; ``~`` is a home directory.
        base: Where relative paths start.
        file: For the message.
        where: Keys and indices that lead to it.

    Raises:
        ConfigError: No file can have that name, or nobody has that home directory.
    """
    if "\0" in text:
        raise wrong(file, where, "must have no NUL characters")
    try:
        return os.path.normpath(base / Path(text).expanduser())
    except RuntimeError:
        raise wrong(file, where, f"nobody has the home directory of {text!r}") from None


def kind_of(data: object) -> str:
    """Return what the data is, in the words of somebody who writes YAML."""
    name = {"list": "array", "NoneType": "null"}.get(type(data).__name__, type(data).__name__)
    return _WORDS.get(name, name)


def _plainly(text: str) -> str:
    """Return a message of msgspec in the words of somebody who writes YAML."""
    text = re.sub(r"^Object missing required field `(.*)`", r"missing key '\1'", text)
    text = re.sub(
        r"`([a-z]+(?: \| [a-z]+)*)`", lambda m: " or ".join(_WORDS.get(t, t) for t in m[1].split(" | ")), text
    )
    return text[:1].lower() + text[1:]


def wrong(file: Path, where: Sequence[str | int], problem: str, key: Any = None) -> ConfigError:
    """Return the error for what stands at ``where`` (or for its key ``key``) in ``file``."""
    at = [*where] if key is None else [*where, key]
    line = f":{line_of(file, at)}" if file.suffix in (".yaml", ".yml") else ""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).lstrip(".")
    end = "" if problem.endswith("?") else "."
    return ConfigError(f"{file}{line}: {path + ': ' if path else ''}{problem}{end} Nothing was started.")
