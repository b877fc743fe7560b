"""What sacct says that ended jobs used: a row a job, then a row a step of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from matterstack.core.slurm_words import END, kind_of, plain_word
from matterstack.core.usage import Usage
from matterstack.errors import BackendUnavailable
from matterstack.runtime.backends.hpc.queue import seconds
from matterstack.runtime.backends.hpc.remote import Remote, answer, asking
from matterstack.runtime.backends.hpc.slurm import Answer, usage_command

_FIELDS: Final = 17
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)([KMGTPE]?)n?", re.ASCII)
_UNITS: Final = {unit: 1024**power for power, unit in enumerate(["", "K", "M", "G", "T", "P", "E"])}
_TIME: Final = re.compile(r"(?:(?:([0-9]{1,6})-)?([0-9]{1,4}):)?([0-9]{1,4}):([0-9]{1,2}(?:\.[0-9]{1,9})?)", re.ASCII)
_NO_NODE: Final = ("None assigned", "None", "(null)", "N/A", "")
OFF: Final = "this cluster keeps no accounting"
UNSTARTED: Final = "it never started"


class Spent(Struct):
    """One start of a job, with its steps added in."""

    slurm_id: str
    name: str
    word: str
    usage: Usage


def ask_usage(remote: Remote, wanted: Mapping[str, tuple[str, str]]) -> dict[str, Usage]:
    """Return what jobs used, by job id; one is left out while accounting does not have its end.

    Args:
        remote: The cluster.
        wanted: By job id Slurm's own id, and the name that the job has in Slurm; empty where it is not known.

    Raises:
        BackendUnavailable, AccessError: The cluster cannot be reached, or accounting does not answer.
    """
    if not wanted:
        return {}
    ids = list(dict.fromkeys(slurm_id for slurm_id, _ in wanted.values()))
    answered, text = answer(remote.ask(asking("usage", usage_command(ids))), "usage")
    if answered is Answer.OFF:
        return {job_id: Usage(unknown=OFF) for job_id in wanted}
    if answered is Answer.SILENT:
        raise BackendUnavailable("slurm", "run 'sacct'", "it did not answer")
    starts: dict[str, list[Spent]] = {}
    for spent in read_usage(text):
        starts.setdefault(spent.slurm_id, []).append(spent)
    found = {job_id: _whole(starts.get(slurm_id, ()), name) for job_id, (slurm_id, name) in wanted.items()}
    return {job_id: usage for job_id, usage in found.items() if usage is not None}


def read_usage(text: str) -> list[Spent]:
    """Return the starts of jobs in the rows of `slurm.usage_command`; lines that are not whole rows are left out."""
    found: list[Spent] = []
    for line in text.split("\n"):
        cells = line.rstrip("\r ").split("|", _FIELDS - 1)
        if len(cells) < _FIELDS or not cells[-1].endswith("|"):
            continue
        slurm_id, dot, _ = cells[0].partition(".")
        if not dot:
            found.append(Spent(slurm_id, cells[-1][:-1], plain_word(cells[1]), _of_job(cells)))
        elif found and found[-1].slurm_id == slurm_id:
            found[-1].usage = _with_step(found[-1].usage, size(cells[10]), span(cells[11]))
    return found


def _of_job(cells: list[str]) -> Usage:
    code, _, signal = cells[2].partition(":")
    nodes = "" if cells[12] in _NO_NODE else cells[12]
    memory = next((word[4:] for word in cells[9].split(",") if word.startswith("mem=")), "")
    return Usage(
        "sacct",
        submit=seconds(cells[3]),
        eligible=seconds(cells[4]),
        start=seconds(cells[5]) if nodes else None,
        end=seconds(cells[6]),
        elapsed_s=seconds(cells[7]),
        cpus=_whole_number(cells[8]) if nodes else None,
        memory=size(memory) or None,
        nodes=nodes,
        account=cells[13],
        partition=cells[14],
        qos=cells[15],
        exit_code=_whole_number(code),
        signal=_whole_number(signal) or None,
    )


def _with_step(usage: Usage, rss: int | None, cpu_s: float | None) -> Usage:
    """Return the usage with one step more; a size of 0 was never sampled."""
    known = [one for one in (usage.max_rss, rss) if one]
    spans = [one for one in (usage.cpu_s, cpu_s) if one is not None]
    return replace(usage, max_rss=max(known) if known else None, cpu_s=sum(spans) if spans else None)


def _whole(starts: Iterable[Spent], name: str) -> Usage | None:
    """Return the usage of the newest start, once it has ended; the starts before it are its restarts.

    Slurm uses ids again, so a row of another name is a stranger's.
    """
    ours = [one for one in starts if not name or one.name == name]
    if not ours:
        return None
    last = ours[-1]
    if kind_of(last.word) is not END or last.usage.end is None:
        return None
    usage = replace(last.usage, restarts=len(ours) - 1)
    if not usage.nodes:
        return replace(usage, unknown=UNSTARTED)
    missing = [what for what, known in (("memory", usage.max_rss), ("CPU time", usage.cpu_s)) if known is None]
    return replace(usage, unknown=f"{' and '.join(missing)}: the cluster took no sample of it" if missing else "")


def _whole_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


def size(text: str) -> int | None:
    """Return a size such as ``51200K`` or ``1.5G`` in bytes; None for anything else."""
    found = _SIZE.fullmatch(text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def span(text: str) -> float | None:
    """Return seconds of ``[[DAYS-]HOURS:]MINUTES:SECONDS``; None for anything else."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
