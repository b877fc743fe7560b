"""What squeue says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from matterstack.core.slurm_words import plain_word
from matterstack.runtime.backends.hpc.layout import OURS
from matterstack.runtime.backends.hpc.slurm import indices_of, split_id

_NO_INDEX: Final = ("N/A", "")
_REFUSED: Final = ("FAILED", "BadConstraints")


class QueueRow(Struct, frozen=True):
    """A job or array element in the queue.

    ``word``: its state's long form. ``reason``: why it waits, or how it ended; empty for none. ``submit``: seconds
    since 1970, None where not known.
    """

    name: str
    index: int | None
    slurm_id: str
    word: str
    reason: str
    submit: float | None


def read_queue(text: str) -> list[QueueRow]:
    """Return the rows of `slurm.queue_command`; lines that are not whole rows are left out.

    So are the traces of submissions that sbatch refused (FAILED, BadConstraints): no job, no run.

    Elements that squeue shows together (``12_[0-9]``) get a row each, with an id each.
    """
    return [row for line in text.split("\n") if line.count("|") >= 5 for row in _rows(line.rstrip("\r "))]


def read_own_queue(text: str) -> list[QueueRow]:
    """Return the rows of jobs named as ours, see `layout.job_name`.

    The elements of others' arrays, of which there may be a hundred thousand a line, are not told apart.
    """
    return read_queue("\n".join(line for line in text.split("\n") if OURS in line))


def _rows(line: str) -> Iterator[QueueRow]:
    head, *middle, submit, end = line.split("|")
    name, mark, element = head.rpartition("#")
    if end != "." or not mark or len(middle) < 3:
        return
    shown, word, reason = middle[0], plain_word(middle[1]), "|".join(middle[2:])
    job, whole = split_id(shown), element in _NO_INDEX
    indices = (None,) if whole else indices_of(element)
    if job is None or indices is None or not word or (word, reason) == _REFUSED:
        return
    since = seconds(submit)
    for index in indices:
        slurm_id = job[0] if index is None else f"{job[0]}_{index}"
        yield QueueRow(name, index, slurm_id, word, "" if reason == "None" else reason, since)


def seconds(text: str) -> float | None:
    """Return a time that Slurm gives as seconds since 1970; None for ``Unknown``, ``N/A`` and the like."""
    digits = text.strip()
    return float(digits) if digits.isascii() and digits.isdecimal() and 0 < len(digits) <= 12 else None
