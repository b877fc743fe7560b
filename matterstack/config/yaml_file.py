"""YAML with the place of every mistake. The only import of `yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from matterstack.config.text_file import read_text
from matterstack.errors import ConfigError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BITS_MAX: Final = 4096  # Python does not print numbers that are much longer
_DEPTH_MAX: Final = 100
_REPEATS: Final = 10  # of a file, by its aliases, at most
_BOOL: Final = "tag:yaml.org,2002:bool"
_TEXT: Final = "tag:yaml.org,2002:str"
_FEW: Final = 100_000  # values that may be there in any case


class _Strict(_Loader):  # type: ignore[misc, valid-type]  # one of two classes, chosen at run time
    """Refuses a key that stands twice, which YAML forbids and PyYAML takes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # `!!map x` is refused below
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key_node.tag == _BOOL:  # YAML 1.1 takes `on:` for a truth
                key_node.tag = _TEXT
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            found = super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, OverflowError):  # PyYAML's own, for 2024-02-30 or !!int abc
            found = None
        else:
            if not isinstance(found, int) or found.bit_length() <= _BITS_MAX:
                return found
        kind = str(node.tag).rpartition(":")[2]
        shown = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "this"
        problem = f"{shown} makes no sense as {kind}; put it in quotes if it is text"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def read_yaml(path: Path) -> Any:
    """Return the file's content as plain Python data.

    Raises:
        ConfigError: It cannot be read, or is not YAML; the message has file and line.
    """
    text = read_text(path)
    try:
        data = yaml.load(text, _Strict)  # noqa: S506  # a safe loader
        _extent(data, {}, _FEW + _REPEATS * len(text))
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}. Nothing was started.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}. Nothing was started.") from None
    except RecursionError:
        raise ConfigError(f"{path}: lists and mappings stand too deep in each other. Nothing was started.") from None
    return data


def _extent(data: object, known: dict[int, tuple[int, int]], most: int) -> tuple[int, int]:
    """Return how many values stand in the data, those behind an alias each time, and how deep.

    Raises:
        yaml.YAMLError: They are more than anybody writes: a few lines of aliases would fill the memory when told.
    """
    inside = [*data.keys(), *data.values()] if isinstance(data, dict) else data
    if not isinstance(inside, (list, tuple, set)):
        return 1, 0
    if id(data) not in known:
        known[id(data)] = 1, 0  # is met again where it stands inside itself, which is told as ``[...]``
        parts = [_extent(one, known, most) for one in inside]
        values, depth = 1 + sum(count for count, _ in parts), 1 + max((deep for _, deep in parts), default=0)
        if values > most or depth > _DEPTH_MAX:
            raise yaml.YAMLError("its aliases stand for too many values, or too deep inside each other")
        known[id(data)] = values, depth
    return known[id(data)]


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return the data as YAML, keys in the order that they have."""
    return yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True, width=120)


def line_of(path: Path, where: Sequence[str | int]) -> int:
    """Return the line, from 1, on which the value at ``where`` (keys and indices) stands, or its nearest parent."""
    node = yaml.compose(read_text(path), Loader=_Loader)
    line = 1
    for step in where:
        following = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(step):
                    following, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            following = node.value[step]
            line = following.start_mark.line + 1
        if following is None:
            break
        node = following
    return line
