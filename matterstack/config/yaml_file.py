"""YAML with the place of every mistake. The only import of `yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from matterstack.config.text_file import read_text
from matterstack.errors import ConfigError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Strict(_Loader):  # type: ignore[misc, valid-type]  # one of two classes, chosen at run time
    """Refuses a key that stands twice, which YAML forbids and PyYAML takes."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def read_yaml(path: Path) -> Any:
    """Return the file's content as plain Python data.

    Raises:
        ConfigError: It cannot be read, or is not YAML; the message has file and line.
    """
    text = read_text(path)
    try:
        return yaml.load(text, _Strict)  # noqa: S506  # a safe loader
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem}. Nothing was started.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}. Nothing was started.") from None


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
