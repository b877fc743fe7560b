"""Making sure that an attempt which ended without having begun never begins: its run claim is taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from matterstack.core.evidence import SlurmEvidence
from matterstack.runtime.backends.hpc.layout import META, job_ref, read_claim
from matterstack.runtime.backends.hpc.remote import Remote

# A shell that sleeps behind its fence may submit a job in the end, also when the attempt is long over. Who takes the
# claim first has it: that job, or we. What we write is no claim of a job, and so is never taken for a start.
BAR: Final = r"""
bar() {
  [ -d "$1" ] || return 0
  { printf 'ms1 over .\n' >"$1/over.$$" && ln "$1/over.$$" "$1/claim"; } 2>/dev/null
  rm -f "$1/over.$$"
  line=; { read -r line <"$1/claim"; } 2>/dev/null
  say bar "${1%/*}" "$line"
}
"""


def bar(remote: Remote, over: Mapping[str, SlurmEvidence]) -> set[str]:
    """Return those of the ended jobs that have begun after all; no job begins any more for those that had not.

    Where a full disk does not take the claim, that is left to chance.

    Args:
        remote: The workspace.
        over: By job id what was seen of each.

    Raises:
        BackendUnavailable, AccessError: The cluster cannot be reached.
    """
    refs = {job_id: job_ref(job_id) for job_id, one in over.items() if not one.claimed and one.exit_code is None}
    jobs = {ref.directory: job_id for job_id, ref in refs.items() if ref is not None}
    if not jobs:
        return set()
    parts = remote.ask("\n".join([BAR, *(f"bar {directory}/{META}" for directory in jobs)]))
    said = [part.words for part in parts if part.words[:1] == ["bar"]]
    return {jobs[directory] for _, directory, *words in said if read_claim(" ".join(words)) is not None}
