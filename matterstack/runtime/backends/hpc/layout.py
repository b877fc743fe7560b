"""Names that the cluster and this machine share: directories, job names, the lines of the records."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from msgspec import Struct

from matterstack.core.machine import Reason

META: Final = ".matterstack"  # in an attempt's directory: its scripts and records; under the root: everything shared
SUBMISSIONS: Final = f"{META}/submissions"
STORE: Final = f"{META}/store"
MAP_ROWS: Final = 16
OURS: Final = ".ms-"  # is in every job's name: tokens begin so, see `core.token`
_MARK: Final = "ms1"
_END: Final = "."
_SAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_JOB_ID: Final = re.compile(
    r"(?P<slurm_id>[0-9]{1,10}(?:_[0-9]{1,10})?(?:;[A-Za-z0-9_.-]{1,64})?)"
    r"@(?P<directory>[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*/[0-9]+)",
    re.ASCII,
)
_REASONS: Final = frozenset(reason.value for reason in Reason)
_WHOLE: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", re.ASCII)
_NAME_MAX: Final = 24  # of the task's id, so that squeue stays readable


def directory_of(run: str, task_id: str, attempt: int) -> str:
    """Return an attempt's directory, relative to the workspace root."""
    return f"{run}/{task_id}/{attempt}"


def map_name(index: int | None) -> str:
    """Return which map in a submission's directory has an element, None for a lone job.

    A shell reads a file of lines byte by byte: one map of 500 elements cost each of them 5 ms of CPU.
    """
    return "map" if index is None else f"map.{index // MAP_ROWS}"


def job_name(task_id: str, token: str) -> str:
    """Return the name by which Slurm's queue and accounting know a submission, e.g. ``relax-Al.ms-k3…``."""
    return f"{_SAFE.sub('_', task_id)[:_NAME_MAX]}.{token}"


class JobRef(Struct, frozen=True):
    """What a job id of ours says: ``slurm_id`` is Slurm's own, e.g. ``12`` or ``12_3``, also with ``;cluster``."""

    slurm_id: str
    directory: str

    def __str__(self) -> str:
        return f"{self.slurm_id}@{self.directory}"


def job_ref(job_id: str) -> JobRef | None:
    """Return what the job id says, or None where it is not one of ours."""
    whole = _JOB_ID.fullmatch(job_id)
    return JobRef(whole["slurm_id"], whole["directory"]) if whole else None


class Claim(Struct, frozen=True):
    """The run claim: which job started the attempt. ``started_at``: seconds since 1970 by the node's clock."""

    token: str
    slurm_id: str
    restart: int
    started_at: float
    node: str
    pid: int


class Exit(Struct, frozen=True):
    """The exit record. ``flags``: ``limit-near`` (Slurm's warning came), ``setup`` (the command never began)."""

    token: str
    slurm_id: str
    restart: int
    exit_code: int
    started_at: float
    ended_at: float
    node: str
    flags: frozenset[str]


def read_claim(line: str) -> Claim | None:
    """Return the claim of a line ``ms1 token slurm_id restart started_at node pid .``; None where it is not whole."""
    words = line.split()
    try:
        mark, token, slurm_id, restart, started, node, pid, end = words
        claim = Claim(token, slurm_id, _count(restart), _seconds(started), node, _count(pid))
    except ValueError:
        return None
    return claim if (mark, end) == (_MARK, _END) else None


class Over(NamedTuple):
    """What a controller decided of an attempt before it began: why it is over."""

    token: str
    reason: str


def over_line(token: str, reason: str) -> str:
    """Return the line that stands in place of a claim where the attempt may not begin any more."""
    return f"{_MARK} over {token or '-'} {reason} {_END}"


def read_over(line: str) -> Over | None:
    """Return what `over_line` wrote; None where the line is none of these."""
    match line.split():
        case [mark, "over", token, reason, end] if (mark, end) == (_MARK, _END) and reason in _REASONS:
            return Over(token, reason)
    return None


def read_exit(line: str) -> Exit | None:
    """Return the record of ``ms1 token slurm_id restart exit_code started_at ended_at node flags .``, or None.

    ``flags`` are joined by commas, ``-`` for none. A line that is cut or damaged is no record.
    """
    words = line.split()
    try:
        mark, token, slurm_id, restart, code, started, ended, node, flags, end = words
        found = frozenset(flags.split(",")) - {"-", ""}
        record = Exit(token, slurm_id, _count(restart), _count(code), _seconds(started), _seconds(ended), node, found)
    except ValueError:
        return None
    return record if (mark, end) == (_MARK, _END) else None


def _count(text: str) -> int:
    # Python's own takes more than a shell writes: "1_0", digits of other scripts, "nan", "1e999".
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise ValueError(text)
    return float(text)
