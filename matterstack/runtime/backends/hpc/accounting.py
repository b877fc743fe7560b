"""What sacct says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from matterstack.core.slurm_words import END, kind_of, plain_word
from matterstack.runtime.backends.hpc.queue import seconds
from matterstack.runtime.backends.hpc.slurm import split_id

_FIELDS: Final = 9
_CODES: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,9})", re.ASCII)
_RAW: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_BY: Final = re.compile(r"CANCELLED by ([0-9]{1,10})", re.ASCII)
_FRESH: Final = "allocation"
_NO_UID: Final = 4_294_967_294  # Slurm's "not set"
_NO_NODE: Final = ("None assigned", "None", "(null)", "N/A", "")


class AccountingRow(Struct, frozen=True):
    """One start of a job or array element. Times are seconds since 1970, None where it has none.

    ``slurm_id``: as in the queue, e.g. ``12`` or ``12_3``; ``raw_id``: the number alone. ``word``: long form.
    ``cancelled_by``: the uid that accounting names. ``exit_code``, ``signal``: as accounting has them, 0 for none.
    ``node``: empty where none was assigned; ``start`` is then no start.
    """

    raw_id: str
    slurm_id: str
    index: int | None
    name: str
    word: str
    cancelled_by: int | None
    exit_code: int | None
    signal: int | None
    submit: float | None
    start: float | None
    end: float | None
    node: str

    @property
    def ran(self) -> bool:
        """Whether it got a node, so that its script may have begun."""
        return bool(self.node)

    @property
    def refused(self) -> bool:
        """Whether this is the trace of a submission that sbatch refused: no job, no run."""
        codes = (self.exit_code, self.signal) == (1, 0)
        return self.word == "FAILED" and codes and not self.node and self.start == self.end is not None

    def named(self, name: str) -> bool:
        """Return whether it is of a job of this name; accounting calls one it has just heard of ``allocation``."""
        return self.name == name or (self.name == _FRESH and kind_of(self.word) is not END)


def read_accounting(text: str) -> list[AccountingRow]:
    """Return the rows of `slurm.accounting_command`; steps and lines that are not whole rows are left out."""
    return [row for line in text.split("\n") if line.count("|") >= _FIELDS for row in _rows(line.rstrip("\r "))]


def _rows(line: str) -> Iterator[AccountingRow]:
    raw_id, shown, state, codes, submit, start, end, node, *rest = line.split("|")
    job, word = split_id(shown), plain_word(state)
    if job is None or not word or rest[-1] or not _RAW.fullmatch(raw_id):
        return
    code, by = _CODES.fullmatch(codes), _BY.match(state)
    uid = int(by[1]) if by else None
    for index in (None,) if job[1] is None else job[1]:
        yield AccountingRow(
            raw_id,
            job[0] if index is None else f"{job[0]}_{index}",
            index,
            "|".join(rest[:-1]),
            word,
            None if uid == _NO_UID else uid,
            int(code[1]) if code else None,
            int(code[2]) if code else None,
            seconds(submit),
            seconds(start),
            seconds(end),
            "" if node in _NO_NODE else node,
        )


def newest(rows: Iterable[AccountingRow], names: Mapping[str, str] | None = None) -> dict[str, AccountingRow]:
    """Return by ``slurm_id`` the row of the newest start of each job.

    Args:
        rows: Of any jobs.
        names: The name that each job has, by ``slurm_id``, where known: Slurm uses ids again, so a row of
            another name is a stranger's, see `AccountingRow.named`. Jobs that it does not have match by id alone.

    Traces of refused submissions are left out. A row without a start (the job waits again) is the newest.
    """
    found: dict[str, AccountingRow] = {}
    for row in rows:
        name = names.get(row.slurm_id) if names else None
        if row.refused or (name is not None and not row.named(name)):
            continue
        old = found.get(row.slurm_id)
        if old is None or _age(row) >= _age(old):
            found[row.slurm_id] = row
    return found


def _age(row: AccountingRow) -> tuple[float, float]:
    return row.submit or 0.0, float("inf") if row.start is None else row.start
