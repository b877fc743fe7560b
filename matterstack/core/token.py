"""Our name for a job before it has an id: unique, and the same again after the journal was restored."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"  # base32, RFC 4648, in lower case


def token(journal_id: str, run_key: str, task_id: str, attempt: int) -> str:
    """Return the token of an attempt: ``ms-`` and 26 characters out of ``a-z2-7``.

    Args:
        journal_id: Random id of the journal.
        run_key: Random id of the run.
        task_id: Id of the task.
        attempt: Number of the attempt, from 1.
    """
    return _named(journal_id, run_key, task_id, str(attempt))


def array_token(tokens: Sequence[str]) -> str:
    """Return the token of a job array of these, each an attempt's token and the number of its try, in this order."""
    return _named("array", *tokens)


def _named(*parts: str) -> str:
    name = "\0".join(parts)
    bits = int.from_bytes(sha256(name.encode()).digest(), "big") >> (256 - 26 * 5)
    return "ms-" + "".join([_ALPHABET[bits >> shift & 31] for shift in range(125, -1, -5)])
