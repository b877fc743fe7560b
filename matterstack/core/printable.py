"""Text that others wrote, made fit for terminals, pages and messages: nothing in it acts."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return the text with control characters, and those that turn its direction, written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
