"""Which queued jobs their scheduler will not start as they are; told once that has lasted, not at each change."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from matterstack.core.evidence import Evidence, SlurmEvidence
from matterstack.core.slurm_words import WAITING, kind_of, stall_of
from matterstack.runtime.reports import Seen, Stalled

# A reason is told when it has lasted so long; for one job each further change has to last twice as long, so that
# a scheduler that changes its mind at every cycle adds ever fewer events.
LASTS_S: Final = 30.0


class _Heard(Struct):
    reason: str
    since: float
    lasts_s: float
    told: str | None = None  # None: an earlier controller may have told something


class Stalls:
    """What schedulers say of the jobs of one backend that wait; ``lasts_s``: how long before it is told."""

    def __init__(self, lasts_s: float = LASTS_S) -> None:
        self._lasts_s = lasts_s
        self._heard: dict[str, _Heard] = {}

    def look(self, answers: Iterable[Seen], now: float | None = None) -> list[Stalled]:
        """Return what is to be told after these answers; ``now`` is in seconds since 1970."""
        now = time.time() if now is None else now
        found = [self._hear(one.job_id, one.evidence, now) for one in answers]
        return [one for one in found if one is not None]

    def _hear(self, job_id: str, evidence: Evidence, now: float) -> Stalled | None:
        if not isinstance(evidence, SlurmEvidence) or kind_of(evidence.queue) is not WAITING:
            self._heard.pop(job_id, None)
            return None
        reason = stall_of(evidence.queue_reason)
        heard = self._heard.setdefault(job_id, _Heard(reason, now, self._lasts_s))
        if heard.reason != reason:
            heard.reason, heard.since = reason, now
        if heard.reason == heard.told or now - heard.since < heard.lasts_s:
            return None
        heard.told, heard.lasts_s = reason, heard.lasts_s * 2
        return Stalled(job_id, reason, heard.since)
