"""Asking the person at the terminal for a passphrase or a one-time password."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable

Ask = Callable[[str, bool], str]
"""Takes a question and whether the answer may be seen; returns the answer."""


def person() -> Ask | None:
    """Return a way to ask the person at the terminal, or None where nobody is there."""
    return _ask if sys.stdin is not None and sys.stdin.isatty() else None


def _ask(question: str, seen: bool) -> str:
    if not seen:
        return getpass.getpass(question)
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().rstrip("\n")
