"""Looking at a job: its record, its processes, what was asked of it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from matterstack.core.evidence import Alive, LocalEvidence
from matterstack.errors import UnknownJob
from matterstack.runtime.backends.local import processes, record
from matterstack.runtime.backends.local.job import Job
from matterstack.runtime.backends.local.store import JobStore

# The start line follows the claim within milliseconds. This long without it, whoever took the claim is gone.
CLAIM_S: Final = 60.0


_FOREIGN: Final = (
    "its directory has the record of another run's task. The task was not started; use another workspace_root or "
    "run id, or remove the directory."
)


class Witness:
    """Gathers evidence of the jobs of one workspace; it starts and changes nothing."""

    def __init__(self, root: Path, store: JobStore) -> None:
        self._root, self._store = root, store

    def directory(self, job_id: str) -> str:
        """Return the job's directory."""
        return f"{self._root}/{job_id}"

    def evidence(self, job_id: str, job: Job | None = None, *, gone: bool = False) -> LocalEvidence:
        """Return what can be seen of the job now.

        Args:
            job_id: The job.
            job: What this process knows of it, where it started it.
            gone: It was claimed before, so a missing record was removed or could never be written.

        Raises:
            UnknownJob: It was never submitted here.
        """
        directory = self.directory(job_id)
        found = record.read(directory)
        row = self._store.find(job_id) if found is None or job is None else None
        if row is None and found is None:
            raise UnknownJob("local", job_id)
        token = job.token if job is not None else row.token if row is not None else ""
        if found is not None and token and found.token not in (token, ""):
            return LocalEvidence(refused=_FOREIGN, record_gone=gone)
        if found is None:
            row = row or self._store.find(job_id)
            assert row is not None
            return LocalEvidence(
                doubtful_start=row.doubtful, refused=row.refused, record_gone=gone or (row.ended and not row.refused)
            )
        if found.exit_code == 0 and found.process is not None and job is not None and job.started_at is not None:
            return LocalEvidence(
                claimed=True,
                started=True,
                exit_code=0,
                started_at=job.started_at,
                ended_at=found.ended_at,
                node=processes.host(),
                pid=found.process.pid,
                cpu_s=found.cpu_s,
            )
        return _full(directory, found)


def _full(directory: str, found: record.Record) -> LocalEvidence:
    life = Alive.YES
    if found.exit_code is None and not found.withdrawn:
        life = _life(found)
        if life is not Alive.YES:  # it may have ended between the two looks
            found = record.read(directory) or found
    process = found.process
    this_boot = process is not None and process.boot_id == processes.boot_id()
    return LocalEvidence(
        claimed=True,
        started=process is not None,
        exit_code=found.exit_code,
        timed_out=found.timed_out,
        withdrawn=found.withdrawn,
        alive=life,
        cancel_requested=os.path.exists(f"{directory}/{record.CANCEL_MARK}"),
        started_at=processes.started_at(process.start_ticks) if process and this_boot else None,
        ended_at=found.ended_at,
        node=processes.host() if this_boot else "",
        pid=process.pid if process else None,
        cpu_s=found.cpu_s,
    )


def _life(found: record.Record) -> Alive:
    """Return whether the command or its wrapper, which writes the end, is still there."""
    if found.process is None or found.wrapper is None:
        return Alive.YES if time.time() - found.written_at < CLAIM_S else Alive.NO
    if found.process.boot_id != processes.boot_id():
        return Alive.REBOOTED
    return Alive.YES if processes.alive(found.process) or processes.alive(found.wrapper) else Alive.NO
