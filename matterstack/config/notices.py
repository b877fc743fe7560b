"""``on`` of a profile: commands by what they tell of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from matterstack.config.checked import checked, wrong


class _On(Struct, forbid_unknown_fields=True):
    """Its keys; see `matterstack.core.notices`."""

    run_finished: str | None = None
    task_failed: str | None = None


def commands(value: object, file: Path, where: Sequence[str | int]) -> dict[str, str]:
    """Return the commands that the profile has, by what they tell of.

    Args:
        value: What stands in the file at ``where``.
        file: For messages.
        where: Keys that lead to it.

    Raises:
        ConfigError: A key is unknown, or a command is none.
    """
    found = {key: command for key, command in asdict(checked(value, _On, file, where)).items() if command is not None}
    for key, command in found.items():
        if not command.strip() or "\0" in command:
            raise wrong(file, [*where, key], "must be a command of the shell, without NUL characters")
    return found
