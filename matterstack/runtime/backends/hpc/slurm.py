"""Slurm's commands as text: what to ask, and whether the answer says anything."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Final

# Set before any Slurm command: times as seconds since 1970, index lists whole, none of the user's own formats.
ENVIRONMENT: Final = (
    "unset SQUEUE_ACCOUNT SQUEUE_ALL SQUEUE_ARRAY SQUEUE_FORMAT SQUEUE_FORMAT2 SQUEUE_LICENSES SQUEUE_NAMES "
    "SQUEUE_PARTITION SQUEUE_PRIORITY SQUEUE_QOS SQUEUE_SORT SQUEUE_STATES SQUEUE_USERS SQUEUE_CLUSTERS "
    "SACCT_FEDERATION SACCT_FORMAT SACCT_LOCAL SLURM_CLUSTERS\n"
    "LC_ALL=C SLURM_TIME_FORMAT=%s SLURM_BITSTR_LEN=0\n"
    "export LC_ALL SLURM_TIME_FORMAT SLURM_BITSTR_LEN\n"
)
# Both end with a mark, so that a line that was cut is no row. Only the job's name may hold any character.
QUEUE_FORMAT: Final = "%j#%K|%i|%T|%r|%V|."
ACCOUNTING_FIELDS: Final = "JobIDRaw,JobID,State,ExitCode,Submit,Start,End,NodeList,JobName"
USAGE_FIELDS: Final = (
    "JobID,State,ExitCode,Submit,Eligible,Start,End,ElapsedRaw,AllocCPUS,AllocTRES,MaxRSS,TotalCPU,NodeList,Account,"
    "Partition,QOS,JobName"
)

# A list of ids must fit into one argument of a command, 128 KiB on Linux.
_IDS_MAX: Final = 4000
# So many elements of one array are cheaper asked for as the whole array.
_WHOLE_ARRAY: Final = 50
_ID: Final = re.compile(r"[0-9]{1,10}(_[0-9]{1,10})?", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_CLUSTER: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_INDICES: Final = re.compile(r"\[?([0-9,:-]{1,65536}?)(%[0-9]{1,9})?\]?", re.ASCII)
_RANGE: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?", re.ASCII)
_INDICES_MAX: Final = 100_000


class Answer(StrEnum):
    """Whether a Slurm command answered. SILENT: nothing may be learnt, ask again. OFF: accounting is not kept."""

    YES = "yes"
    SILENT = "silent"
    OFF = "off"


def queue_command(cluster: str = "") -> str:
    """Return the command that lists all jobs of the user that the controller knows, each array element a row.

    Args:
        cluster: Another cluster of the site than the login node's own; its answer needs slurmdbd.

    Raises:
        ValueError: That is no name of a cluster.
    """
    return f"squeue{_on(cluster)} -h -t all --me -r -o '{QUEUE_FORMAT}'"


def accounting_command(slurm_ids: Collection[str], cluster: str = "") -> str:
    """Return the command that asks accounting for jobs and array elements, e.g. ``12`` and ``13_4``.

    It may answer for other elements of the same arrays, too.

    Args:
        slurm_ids: At least one.
        cluster: See `queue_command`.

    Raises:
        ValueError: One of them is no id (sacct would refuse the whole list), or there are none.
    """
    return _asking_for(slurm_ids, f"{_on(cluster)} -n -p -X -D", ACCOUNTING_FIELDS)


def usage_command(slurm_ids: Collection[str], cluster: str = "") -> str:
    """Return the command that asks what jobs used, a row a start of a job and then a row a step of it.

    Arguments and errors as for `accounting_command`.
    """
    return _asking_for(slurm_ids, f"{_on(cluster)} -n -p -D --noconvert", USAGE_FIELDS)


def _asking_for(slurm_ids: Collection[str], options: str, fields: str) -> str:
    if not slurm_ids or (wrong := [one for one in slurm_ids if not _ID.fullmatch(one)]):
        raise ValueError(f"not an id of Slurm: {wrong[0]!r}" if slurm_ids else "no ids to ask for")
    asked = list(dict.fromkeys(_whole_arrays(slurm_ids)))
    lists = [",".join(asked[at : at + _IDS_MAX]) for at in range(0, len(asked), _IDS_MAX)]
    calls = [f"sacct{options} -j {ids} -o {fields}" for ids in lists]
    return calls[0] if len(calls) == 1 else f"{{ {' && '.join(calls)}; }}"


def accounting_by_name_command(names: Collection[str], since: float, cluster: str = "") -> str:
    """Return the command that looks in accounting for jobs by name.

    Args:
        names: Names of submissions, see `layout.job_name`; at least one.
        since: Seconds since 1970 by the cluster's clock; left out, accounting would look at today only.
        cluster: See `queue_command`.

    Raises:
        ValueError: One of them is no name of ours, or there are none.
    """
    if not names or (wrong := [name for name in names if not _NAME.fullmatch(name)]):
        raise ValueError(f"not a job name: {wrong[0]!r}" if names else "no names to look for")
    return f"sacct{_on(cluster)} -n -p -X -D -S uts{max(0, int(since))} --name={','.join(names)} -o {ACCOUNTING_FIELDS}"


def _on(cluster: str) -> str:
    if cluster and not _CLUSTER.fullmatch(cluster):
        raise ValueError(f"not a cluster's name: {cluster!r}")
    return f" -M {cluster}" if cluster else ""


def _whole_arrays(slurm_ids: Collection[str]) -> Iterator[str]:
    arrays = Counter(one.partition("_")[0] for one in slurm_ids)
    for one in slurm_ids:
        array = one.partition("_")[0]
        yield array if arrays[array] >= _WHOLE_ARRAY else one


_OFF: Final = "accounting storage is disabled"
_FORGOTTEN: Final = "invalid job id specified"  # the controller answered: it does not know the job
# On stderr beside exit code 0 these still mean that nobody answered.
_NOBODY: Final = (
    "unable to contact slurm controller",
    "socket timed out",
    "zero bytes were transmitted",
    "problem talking to the database",
    "problem talking to database",
    "sending persistinit msg",
)


def answer_of(exit_code: int | None, stderr: str) -> Answer:
    """Return whether a query (squeue, sacct, scontrol, sinfo, sacctmgr) answered; ``exit_code`` None: not known."""
    said = stderr.lower()
    if _OFF in said:
        return Answer.OFF
    if exit_code == 0:
        return Answer.SILENT if any(words in said for words in _NOBODY) else Answer.YES
    return Answer.YES if exit_code == 1 and _FORGOTTEN in said else Answer.SILENT


def indices_of(text: str) -> tuple[int, ...] | None:
    """Return the indices of an array's index list, e.g. ``3`` or ``[0-9,12-20:2%4]``; None where it is not one.

    A list that Slurm has shortened (``[1-3,…``) is none, nor is one of more than 100,000 indices.
    """
    whole = _INDICES.fullmatch(text)
    if whole is None or text.startswith("[") is not text.endswith("]"):
        return None
    found: list[int] = []
    for part in whole[1].split(","):
        span = _RANGE.fullmatch(part)
        if span is None:
            return None
        first, last, step = int(span[1]), int(span[2] or span[1]), int(span[3] or 1)
        if last < first or step < 1 or len(found) + (last - first) // step >= _INDICES_MAX:
            return None
        found += range(first, last + 1, step)
    return tuple(found)


def split_id(text: str) -> tuple[str, tuple[int, ...] | None] | None:
    """Return job id and indices of an id as Slurm shows it; None for a step, a cut id or anything else.

    ``12`` gives ``("12", None)``, ``12_3`` and ``12_[0-9%4]`` their indices; ``12+1``, a part of a heterogeneous
    job, is ``("12+1", None)``.
    """
    job, underscore, indices = text.strip().partition("_")
    if not re.fullmatch(r"[0-9]{1,10}(\+[0-9]{1,4})?", job, re.ASCII):
        return None
    if not underscore:
        return job, None
    known = indices_of(indices)
    return None if known is None else (job, known)
