"""What the cluster's tools say of files that they could not read: names out of their quotes, for messages of ours."""

from __future__ import annotations

import os
import re
from typing import Final

from matterstack.core.printable import printable

_COMPLAINT: Final = re.compile(rb"(?:(sha256sum|find): )?(?:can't open )?(.+): ([^:]+)", re.DOTALL)
# As a shell would read them: 'a'$'\n''b', "it's". `find` escapes inside plain quotes instead: 'a\nb'.
_WORDS: Final = re.compile(rb"""\$'((?:[^'\\]|\\.)*)'|'([^']*)'|"([^"]*)"|\\(.)|([^'"\\]+)""", re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(?:([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPES: Final = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v", strict=True))


def read_complaint(line: bytes) -> tuple[list[str], str] | None:
    """Return which names a tool may mean, the likeliest first, and its words for why; None where it is no complaint."""
    found = _COMPLAINT.fullmatch(line)
    if found is None:
        return None
    tool, quoted, why = found.groups()
    names = [_finds(quoted) if tool == b"find" else b"", _shells(quoted), quoted]
    return [os.fsdecode(name) for name in names if name], shown(why)


def shown(words: bytes) -> str:
    """Return a tool's words as a line of text, with control characters shown, not obeyed."""
    lines = [line.strip() for line in words.decode("utf-8", "replace").splitlines() if line.strip()]
    return printable("; ".join(lines))


def _shells(quoted: bytes) -> bytes:
    """Return what a shell would read; empty where the quotes are not whole."""
    parts, at = [], 0
    while at < len(quoted):
        word = _WORDS.match(quoted, at)
        if word is None:
            return b""
        escaped, *plain = word.groups()
        parts.append(_unescaped(escaped) if escaped is not None else next(one for one in plain if one is not None))
        at = word.end()
    return b"".join(parts)


def _finds(quoted: bytes) -> bytes:
    return _unescaped(quoted[1:-1]) if quoted[:1] == quoted[-1:] == b"'" else b""


def _unescaped(text: bytes) -> bytes:
    return _ESCAPED.sub(_char, text)


def _char(found: re.Match[bytes]) -> bytes:
    octal, letter = found.groups()
    return bytes([int(octal, 8) & 0xFF if octal else _ESCAPES.get(letter[0], letter[0])])
