"""Making sure that an attempt which is over without having begun never begins: its run claim is taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from matterstack.core.evidence import SlurmEvidence
from matterstack.core.machine import Reason
from matterstack.core.reconcile import status_of
from matterstack.runtime.backends.hpc.layout import META, job_ref, read_claim
from matterstack.runtime.backends.hpc.remote import Remote

# A shell that sleeps behind its fence may submit a job in the end, also when the attempt is long over. Who takes the
# claim first has it: that job, or we. What we write is no claim of a job, and so is never taken for a start; it says
# why the attempt is over, for a controller that looks at it next may not see any more what this one saw. A full disk
# does not take that; a second name of a file that is there needs no room.
BAR: Final = r"""
bar() {
  [ -d "$1" ] || return 0
  { printf 'ms1 over %s .\n' "$2" >"$1/over.$$" && ln "$1/over.$$" "$1/claim" || ln "$1/job" "$1/claim"; } 2>/dev/null
  rm -f "$1/over.$$"
  line=; { read -r line <"$1/claim"; } 2>/dev/null
  case $line in "ms1 over "*) rm -f "$1/secrets" ;; esac
  say bar "${1%/*}" "$line"
}
"""


def bar(remote: Remote, over: Mapping[str, Reason]) -> set[str]:
    """Return those of the attempts that have begun after all; no job of the others begins any more.

    Args:
        remote: The workspace.
        over: By directory why the attempt is over.

    Raises:
        BackendUnavailable, AccessError: The cluster cannot be reached.
    """
    if not over:
        return set()
    parts = remote.ask("\n".join([BAR, *(f"bar {one}/{META} {reason}" for one, reason in over.items())]))
    said = [part.words for part in parts if part.words[:1] == ["bar"]]
    return {directory for _, directory, *words in said if read_claim(" ".join(words)) is not None}


def bar_ended(remote: Remote, ended: Mapping[str, SlurmEvidence]) -> set[str]:
    """Return those of the ended jobs that have begun after all; no job begins any more for those that had not.

    Args:
        remote: The workspace.
        ended: By job id what was seen of each.

    Raises:
        BackendUnavailable, AccessError: The cluster cannot be reached.
    """
    unbegun = [one for one, seen in ended.items() if not (seen.claimed or seen.over) and seen.exit_code is None]
    jobs = {ref.directory: one for one in unbegun if (ref := job_ref(one)) is not None}
    begun = bar(remote, {at: Reason(status_of(ended[one]).reason) for at, one in jobs.items()})
    return {jobs[at] for at in begun}
