"""Text that others wrote, made fit to be shown: nothing in it acts, and it has an end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from matterstack.core.printable import printable

_READ: Final = 16_384  # bytes of a log that are looked at
_LINE: Final = 400  # characters


def shown(text: str, limit: int = _LINE) -> str:
    """Return the text in one line, control and direction characters written out, cut at ``limit`` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return printable(text)


def last_lines(path: Path, lines: int) -> list[str]:
    """Return the last lines of a log, fit to be shown; none where there is no such file, or nobody may read it.

    A link is not followed and a pipe not waited for: the task chose what stands there.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            return []
        begin = max(0, found.st_size - _READ)
        text = os.pread(number, _READ, begin).decode("utf-8", "replace")
    except OSError:
        return []
    finally:
        os.close(number)
    whole = text.rstrip("\r\n").split("\n") if text.strip() else []
    if begin and len(whole) > 1:
        del whole[0]  # half a line
    return [shown(line.rstrip("\r").expandtabs(4)) for line in whole[-lines:]]
