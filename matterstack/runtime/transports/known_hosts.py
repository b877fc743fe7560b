"""Files of known hosts, as ``ssh`` reads them: what they say of the key that a host shows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

_PORT: Final = 22


class KnownKey(Struct, frozen=True):
    """One line of a file of known hosts, for a host that was asked for."""

    file: str
    line: int
    kind: str
    key: str
    marker: str = ""


def look_up(files: Iterable[str], host: str, port: int) -> list[KnownKey]:
    """Return what the files know of a host; a file that is not there knows nothing.

    As for ``ssh``, what is known of a host without a port counts where nothing is known of it at this port.
    """
    lines = [line for file in files for line in _lines(file)]
    named = [known for names, known in lines if _matches(names, _name(host, port))]
    if named or port == _PORT:
        return named
    return [known for names, known in lines if _matches(names, host.lower())]


def fingerprint(key: str) -> str:
    """Return the fingerprint of a key in base64, e.g. ``SHA256:47DEQpj8HBSa…``, as ``ssh`` shows it."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _name(host: str, port: int) -> str:
    return host.lower() if port == _PORT else f"[{host.lower()}]:{port}"


def _lines(file: str) -> Iterator[tuple[str, KnownKey]]:
    path = os.path.expanduser(file)
    try:
        with open(path, encoding="utf-8", errors="replace") as opened:
            for number, line in enumerate(opened, 1):
                words = line.split()
                marker = words.pop(0) if words and words[0].startswith("@") else ""
                if len(words) >= 3 and not words[0].startswith("#"):
                    yield words[0], KnownKey(path, number, words[1], words[2], marker)
    except (FileNotFoundError, NotADirectoryError):
        return


def _matches(names: str, name: str) -> bool:
    if names.startswith("|1|"):
        return _matches_hash(names, name)
    found = False
    for pattern in names.lower().split(","):
        if _glob(pattern.removeprefix("!")).fullmatch(name):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _matches_hash(names: str, name: str) -> bool:
    salt, _, digest = names.removeprefix("|1|").partition("|")
    try:
        wanted = base64.b64decode(digest, validate=True)
        made = hmac.digest(base64.b64decode(salt, validate=True), name.encode(), "sha1")
    except ValueError:
        return False
    return hmac.compare_digest(wanted, made)


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in pattern))
