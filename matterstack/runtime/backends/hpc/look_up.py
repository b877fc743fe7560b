"""Finding jobs by their name, where the answer of sbatch is not known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from shlex import quote
from typing import Final

from msgspec import Struct

from matterstack.core.slurm_words import END, kind_of
from matterstack.runtime.backends.hpc.accounting import AccountingRow, read_accounting
from matterstack.runtime.backends.hpc.batch import Batch, place
from matterstack.runtime.backends.hpc.layout import SUBMISSIONS, read_claim
from matterstack.runtime.backends.hpc.queue import QueueRow, read_own_queue
from matterstack.runtime.backends.hpc.remote import Remote, answer, asking
from matterstack.runtime.backends.hpc.slurm import Answer, accounting_by_name_command, queue_command
from matterstack.runtime.backends.hpc.submit_script import CLAIMS

_SINCE_S: Final = 30 * 86400.0  # how far back accounting is searched; submissions in doubt are younger


class Found(Struct, frozen=True):
    """Slurm's ids by batch key: the owner, then those that can start nothing beside it.

    ``answered``: all witnesses were asked; else ``silent`` did not answer.
    """

    jobs: dict[str, list[str]]
    silent: str = ""

    @property
    def answered(self) -> bool:
        """Whether what was not found is not there."""
        return not self.silent


def look_up(remote: Remote, wanted: Sequence[Batch], fences: Sequence[str]) -> Found:
    """Return the jobs that there are of these submissions, after putting up the fences.

    A fence stops a late shell from submitting; so it stands before the look.

    Raises:
        TransportError, AccessError: See `Remote.ask`.
    """
    names = [batch.name for batch in wanted]
    script = "\n".join(
        [
            *(f"true >{SUBMISSIONS}/{quote(fence)} || exit" for fence in fences),
            asking("queue", queue_command()),
            asking("accounting", accounting_by_name_command(names, time.time() - _SINCE_S)),
            CLAIMS,
        ]
    )
    places = {place(member): batch for batch in wanted for member in batch.members}
    parts = remote.ask(script, places)
    queue, accounting = answer(parts, "queue"), answer(parts, "accounting")
    ids: dict[str, dict[str, None]] = {batch.key: {} for batch in wanted}
    tokens = {batch.key: {member.token for member in batch.members} for batch in wanted}
    for part in parts:
        if part.words[:1] == ["started"]:
            batch, claim = places[part.words[1]], read_claim(" ".join(part.words[2:]))
            if claim is not None and claim.token in tokens[batch.key]:
                ids[batch.key][_base(claim.slurm_id)] = None
    claimed = {key: set(found) for key, found in ids.items()}
    silent = "squeue" if queue[0] is not Answer.YES else "sacct" if accounting[0] is Answer.SILENT else ""
    rows = read_own_queue(queue[1])
    if silent != "squeue":  # without it, what accounting lists may be a job that is gone, while another one waits
        by_name = {batch.name: batch.key for batch in wanted}
        for name, slurm_id in _in_order(rows, read_accounting(accounting[1])):
            if name in by_name:
                ids[by_name[name]][_base(slurm_id)] = None
    alive = {_base(row.slurm_id) for row in rows if kind_of(row.word) is not END}
    return Found({key: _owner_first(list(found), claimed[key] | alive) for key, found in ids.items() if found}, silent)


def _owner_first(ids: list[str], sure: set[str]) -> list[str]:
    """Return the owner, and the others only where it is sure to be that: it has started, or waits in the queue."""
    return ids if ids[0] in sure else ids[:1]


def _in_order(queue: Sequence[QueueRow], accounting: Sequence[AccountingRow]) -> list[tuple[str, str]]:
    """Return name and id of each row: live jobs first, for one of the same name may have ended in an earlier try."""
    shown = {(row.name, _base(row.slurm_id)) for row in queue}
    kept = [row for row in accounting if not row.refused and (row.name, _base(row.slurm_id)) not in shown]
    rows = [(row.word, 0, row.slurm_id, row.name) for row in queue]
    rows += [(row.word, 1, row.slurm_id, row.name) for row in kept]
    rows.sort(key=lambda row: (kind_of(row[0]) is END, row[1], len(row[2]), row[2]))
    return [(name, slurm_id) for _, _, slurm_id, name in rows]


def _base(slurm_id: str) -> str:
    """Return the id of the job or array that an id belongs to."""
    return slurm_id.partition("_")[0]
