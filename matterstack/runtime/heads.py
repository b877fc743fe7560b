"""The end of a run's hash chain as a line of text, for a paper or a signature: it stands for every event before it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from journal import Journal
from matterstack.errors import MatterStackError

_FORM: Final = re.compile(r"ms1:(?P<run>.+):(?P<version>[1-9][0-9]{0,17}):(?P<hash>[0-9a-f]{64})", re.DOTALL)


class ChainHead(NamedTuple):
    """The event with which a run's chain ends, or ended: its version in the run, and its hash in hex."""

    run: str
    version: int
    hash: str

    def __str__(self) -> str:
        return f"ms1:{self.run}:{self.version}:{self.hash}"


class Expected(NamedTuple):
    """Whether a head is still part of its run's chain, and what is to be said of it."""

    ok: bool
    what: str


def parse(text: str) -> ChainHead:
    """Return the head that ``matterstack verify --head`` printed.

    Raises:
        MatterStackError: It is something else.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise MatterStackError(
            f"{text!r} is no head of a chain; one looks like ms1:RUN:VERSION:HASH, with 64 hexadecimal digits, as "
            "`matterstack verify --head` prints it. Nothing was compared."
        )
    return ChainHead(found["run"], int(found["version"]), found["hash"])


def head(journal: Journal, run: str) -> ChainHead:
    """Return the head of a run's chain as the journal has it now."""
    end = journal.head(run)
    return ChainHead(run, end.version, end.hash.hex())


def compare(path: Path, expected: ChainHead) -> Expected:
    """Return whether the run still has the event of the head, which proves all before it where the chain is right."""
    run, version = expected.run, expected.version
    with Journal.open(path, create=False, read_only=True) as journal:
        now = journal.head(run).version
        events = list(journal.read(run, after_version=version - 1, limit=1))
    if not now:
        return Expected(ok=False, what=f"run {run!r} is not in this journal")
    if now < version:
        return Expected(ok=False, what=f"run {run!r} ends with event {now}, but the head is event {version}")
    if [event.hash.hex() for event in events] != [expected.hash]:
        return Expected(ok=False, what=f"run {run!r} has another event {version}, or another before it, than the head")
    if now == version:
        return Expected(ok=True, what=f"run {run!r} is exactly what the head stands for, {version} events")
    return Expected(
        ok=True, what=f"run {run!r} begins with the {version} events of the head, and has {now - version} more"
    )
