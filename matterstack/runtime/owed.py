"""Ended attempts of whom an earlier controller of the run did not learn what they used."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from journal import Journal
from matterstack.runtime.accounts import keeps
from matterstack.runtime.backends.base import ComputeBackend, Submission
from matterstack.runtime.offers import Specs
from matterstack.runtime.workers import Workers

# Of attempts at an earlier version of their task it is not known any more what that asked for.
_OWED: Final = (
    "SELECT a.task, a.attempt, a.token, a.gen, a.array, a.idx, a.profile, a.job_id, a.recorded_at FROM attempts a"
    " JOIN tasks t ON t.subject = a.subject JOIN events e ON e.position = t.spec_position AND e.at <= a.requested_at"
    " WHERE a.run = ? AND a.state IN ('COMPLETED', 'FAILED') AND a.job_id IS NOT NULL AND NOT t.dropped AND NOT EXISTS"
    " (SELECT 1 FROM usage_rows u WHERE u.subject = a.subject AND u.attempt = a.attempt)"
)


def is_owed(journal: Journal, run: str, backends: Iterable[ComputeBackend]) -> bool:
    """Return whether there are any, and somebody to ask."""
    return any(map(keeps, backends)) and bool(journal.query(f"{_OWED} LIMIT 1", (run,)))


def take_over(journal: Journal, run: str, specs: Specs, workers: Workers) -> None:
    """Let the workers, which have not started yet, ask for what these attempts used."""
    if not any(keeps(lane.backend) for lane in workers):
        return
    for task, number, name, gen, array, index, profile, job_id, ended in journal.query(_OWED, (run,)):
        submission = Submission(specs[task], run, number, name, gen=gen, array=array, index=index)
        workers.of(profile).worker.owe(job_id, submission, time.time() - ended / 1e6)
