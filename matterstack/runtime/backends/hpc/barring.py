"""Making sure that an attempt which is over without having begun never begins: its run claim is taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from matterstack.core.evidence import SlurmEvidence
from matterstack.core.machine import COMPLETED, FAILED, Reason
from matterstack.core.reconcile import status_of
from matterstack.runtime.backends.hpc.layout import META, Claim, job_ref, over_line, read_claim
from matterstack.runtime.backends.hpc.monitoring import Monitor
from matterstack.runtime.backends.hpc.remote import Remote

# A shell that sleeps behind its fence may submit a job in the end, also when the attempt is long over. Who takes the
# claim first has it: that job, or we. What we write is no claim of a job, and so is never taken for a start; it says
# why the attempt is over, for a controller that looks at it next may not see any more what this one saw. A full disk
# does not take that; a second name of a file that is there needs no room. Secrets of a job that has begun are its own.
BAR: Final = r"""
spent= bars=0
bar() {
  [ -d "$1" ] || return 0
  { printf '%s\n' "$2" >"$1/over.$$" && ln "$1/over.$$" "$1/claim" || ln "$1/job" "$1/claim"; } 2>/dev/null
  line=; { read -r line <"$1/claim"; } 2>/dev/null
  case $line in "ms1 over "* | ms-*) [ ! -e "$1/secrets" ] || rm -f "$1/secrets" ;; esac
  say bar "${1%/*}" "$line"
  spent="$spent $1/over.$$" bars=$((bars + 1))
  [ "$((bars % 100))" -gt 0 ] || swept
}
swept() { rm -f $spent; spent=; }
"""


class Barred(NamedTuple):
    """What came of it. ``begun``: the claims of those that have begun after all. ``open``: those not known."""

    begun: dict[str, Claim]
    open: set[str]


def bar(remote: Remote, ends: Mapping[str, tuple[str, Reason]]) -> Barred:
    """Return, by directory, which attempts have begun after all; no job begins any more of those not named.

    Args:
        remote: The workspace.
        ends: By directory the attempt's token, empty where it is not known, and why it is over.

    Raises:
        BackendUnavailable, AccessError: The cluster cannot be reached.
    """
    barred = Barred({}, set())
    if not ends:
        return barred
    calls = [f"bar {at}/{META} '{over_line(token, reason)}'" for at, (token, reason) in ends.items()]
    for part in remote.ask("\n".join([BAR, *calls, "swept"])):
        match part.words:
            case ["bar", directory]:
                barred.open.add(directory)
            case ["bar", directory, *words]:
                claim = read_claim(" ".join(words))
                if claim is not None and ends[directory][0] in ("", claim.token):
                    barred.begun[directory] = claim
    return barred


class Bars:
    """Keeps jobs that ended unbegun from beginning, before their end is told. Used by one thread at a time."""

    def __init__(self, remote: Remote, monitor: Monitor) -> None:
        self._remote, self._monitor = remote, monitor
        self._unclear: set[str] = set()

    def hold(self, found: Mapping[str, SlurmEvidence]) -> set[str]:
        """Return those of the jobs whose end must not be told: they have begun after all, or that cannot be read.

        Args:
            found: By job id what was seen of each.

        Raises:
            BackendUnavailable, AccessError: The cluster cannot be reached.
        """
        unclaimed = [one for one, seen in found.items() if is_end(seen) and not (_has_begun(seen) or seen.over)]
        places = {ref.directory: one for one in unclaimed if (ref := job_ref(one)) is not None}
        tokens = self._monitor.tokens(unclaimed)
        ends = {at: (tokens.get(one, ""), Reason(status_of(found[one]).reason)) for at, one in places.items()}
        begun, self._unclear = bar(self._remote, ends)
        return {places[at] for at in begun.keys() | self._unclear}

    @property
    def notice(self) -> str:
        """Of which the end is not told since it cannot be read whether they have begun; empty where there are none."""
        places = ", ".join(sorted(self._unclear))
        return f"whether these have begun cannot be read, so their end is not recorded: {places}" if places else ""


def is_end(evidence: SlurmEvidence) -> bool:
    """Return whether the witnesses add up to an end."""
    return status_of(evidence).state in (COMPLETED, FAILED)


def _has_begun(evidence: SlurmEvidence) -> bool:
    return evidence.claimed or evidence.exit_code is not None
