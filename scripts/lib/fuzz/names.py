"""Ids, names of files, and the lines of the records."""

from __future__ import annotations

import os
from typing import Final

from matterstack.core.workflow import file_name_problem, id_problem
from matterstack.runtime.backends.hpc.layout import (
    META,
    Claim,
    Exit,
    directory_of,
    job_name,
    job_ref,
    read_claim,
    read_exit,
)
from matterstack.runtime.backends.hpc.monitoring import read_identity
from matterstack.runtime.backends.hpc.receiving import is_inside, split
from matterstack.runtime.backends.hpc.slurm import accounting_by_name_command, accounting_command, indices_of, split_id

_TOKEN: Final = "ms-k3abcdefghijklmnopqrstuvwx"
_ROOT: Final = "/root"
_YEARS: Final = 10**12  # seconds


def records(data: bytes) -> None:
    """A record that is read says the same when it is written again; one that is cut is none."""
    line = data.decode("utf-8", "replace").strip()
    if (claim := read_claim(line)) is not None:
        _digits(line.split()[3], line.split()[6])
        _counts(claim.restart, claim.pid)
        _times(claim.started_at)
        assert read_claim(_claim_line(claim)) == claim
    if (exited := read_exit(line)) is not None:
        _digits(*line.split()[3:5])
        _counts(exited.restart, exited.exit_code)
        _times(exited.started_at, exited.ended_at)
        assert read_exit(_exit_line(exited)) == exited
    if (identity := read_identity(line)) is not None:
        assert identity.index is None or identity.index >= 0
        assert identity.limit_s is None or identity.limit_s >= 0
        assert read_identity(identity.line()) == identity
    assert (claim is not None) + (exited is not None) + (identity is not None) <= 1
    if claim is not None or exited is not None:
        for cut in (line[:-1], line[1:]):
            assert read_claim(cut) is None
            assert read_exit(cut) is None


def _claim_line(one: Claim) -> str:
    return f"ms1 {one.token} {one.slurm_id} {one.restart} {one.started_at:.12f} {one.node} {one.pid} ."


def _exit_line(one: Exit) -> str:
    flags = ",".join(sorted(one.flags)) or "-"
    times = f"{one.started_at:.12f} {one.ended_at:.12f}"
    return f"ms1 {one.token} {one.slurm_id} {one.restart} {one.exit_code} {times} {one.node} {flags} ."


def _digits(*words: str) -> None:
    assert all(word.isascii() and word.isdecimal() for word in words)


def _counts(*numbers: int) -> None:
    assert all(0 <= number < 10**18 for number in numbers)


def _times(*times: float) -> None:
    assert all(0 <= time < _YEARS for time in times)


def ids(data: bytes) -> None:
    """What is taken for an id is a directory of its own, a job's name, and a word of a command."""
    text = os.fsdecode(data)
    if id_problem(text) is None:
        path = directory_of(text, text, 1)
        assert os.path.normpath(f"{_ROOT}/{path}") == f"{_ROOT}/{path}"
        assert split(f"{path}/x") == (path, "x")
        assert accounting_by_name_command([job_name(text, _TOKEN)], 0)
    if file_name_problem(text) is None:
        assert os.path.normpath(f"{_ROOT}/{text}") == f"{_ROOT}/{text}"
        assert not text.startswith(META)
        text.encode()
    if is_inside(text):
        assert os.path.normpath(f"{_ROOT}/{text}") == f"{_ROOT}/{text}"
        assert not f"{text}/".startswith(f"{META}/")
    if (ref := job_ref(text)) is not None:
        assert str(ref) == text
        assert is_inside(ref.directory)
        assert split(f"{ref.directory}/x") == (ref.directory, "x")
        slurm_id, _, cluster = ref.slurm_id.partition(";")
        assert accounting_command([slurm_id], cluster)
    if (parts := split_id(text[:4096])) is not None:
        assert parts[0].replace("+", "").isdecimal()
        assert parts[0].isascii()
    assert indices_of(text[:4096]) != ()
