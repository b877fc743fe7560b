"""Asking for all jobs at once: the queue and the records; accounting only for those that left without an end."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from matterstack.core.evidence import Absence, SlurmEvidence
from matterstack.core.machine import Reason
from matterstack.core.reconcile import MAY_COME_BACK
from matterstack.core.slurm_words import END, ENDING, kind_of, plain_word
from matterstack.errors import BackendUnavailable
from matterstack.runtime.backends.hpc.accounting import AccountingRow, newest, read_accounting
from matterstack.runtime.backends.hpc.layout import Claim, Exit, JobRef, job_ref, read_claim, read_exit, read_over
from matterstack.runtime.backends.hpc.queue import QueueRow, read_own_queue
from matterstack.runtime.backends.hpc.remote import Part, Remote, answer, asking
from matterstack.runtime.backends.hpc.slurm import Answer, accounting_command, queue_command
from matterstack.runtime.backends.hpc.waits import Waits

_LIMIT_MARGIN_S: Final = 90.0

# What an ended attempt left. Its job marks that the command begins before it begins, so with an exit record and no such
# mark it never did.
_SHELL: Final = """
record() { line=; read -r line <"$2"; say "$1" "$dir" "$line"; }
ended() {
  [ -f "$m/exit" ] || return 0
  record exit "$m/exit"
  [ ! -e "$m/cancel" ] || say cancel "$dir"
  [ -e "$m/begun" ] || say unbegun "$dir"
}
"""
# Reads lines "WANT DIRECTORY": WANT is "all" where the job's name and claim are not known yet, else "end". A claim can
# also be a controller's, of an attempt that was over before it began.
_RECORDS: Final = f"""
say clock "$(date +%s)"
{_SHELL}
while read -r want dir; do
  m=$dir/.matterstack
  if [ "$want" = all ]; then
    [ ! -f "$m/job" ] || record job "$m/job"
    for claim in "$m"/claim*; do [ ! -f "$claim" ] || record claim "$claim"; done
  fi
  ended
done
"""
# Reads lines "WORD DIRECTORY": WORD is "over" where the queue says that the job has ended for good, and so needs no
# secrets any more. Listing the directory first makes a network file system look again.
_LEFT: Final = f"""
{_SHELL}
while read -r word dir; do
  m=$dir/.matterstack
  ls "$m" >/dev/null 2>&1 || say gone "$dir"
  [ "$word" != over ] || rm -f "$m/secrets"
  for claim in "$m"/claim*; do [ ! -f "$claim" ] || record claim "$claim"; done
  [ ! -e "$m/cancel" ] || say cancel "$dir"
  [ ! -e "$m/limit-near" ] || say limit "$dir"
  [ ! -e "$m/refused" ] || say refused "$dir"
  ended
done
"""


class Identity(Struct, frozen=True):
    """What an attempt's job file says: ``token name index limit_s .``, ``-`` where there is none."""

    token: str
    name: str
    index: int | None
    limit_s: float | None

    def line(self) -> str:
        """Return the line of the job file."""
        index = "-" if self.index is None else self.index
        return f"{self.token} {self.name} {index} {'-' if self.limit_s is None else self.limit_s} ."


def read_identity(line: str) -> Identity | None:
    """Return what the line says; None where it is not whole."""
    try:
        token, name, index, limit, end = line.split()
        found = Identity(token, name, None if index == "-" else int(index), None if limit == "-" else float(limit))
    except ValueError:
        return None
    sane = (found.index is None or found.index >= 0) and (found.limit_s is None or found.limit_s >= 0)
    return found if end == "." and sane else None


class Watched(Struct):
    """A job that is followed. ``absent_since``, ``silent_at``: by the monotonic clock."""

    ref: JobRef
    identity: Identity | None = None
    claim: Claim | None = None
    exit: Exit | None = None
    row: QueueRow | None = None
    accounting: AccountingRow | None = None
    answered: Answer = Answer.SILENT
    absent_since: float | None = None
    silent_at: float = 0.0
    limit_near: bool = False
    cancel_requested: bool = False
    gone: bool = False
    second_start: bool = False
    over: str = ""
    unbegun: bool = False
    note: str = ""


class Monitor:
    """Follows the jobs of one workspace. Used by one thread at a time.

    Args:
        remote: The workspace.
        waits: Which absence counts for what.
        requeue: Whether the profile lets Slurm start jobs again.
    """

    def __init__(self, remote: Remote, waits: Waits, *, requeue: bool) -> None:
        self._remote, self._waits, self._requeue = remote, waits, requeue
        self._watched: dict[str, Watched] = {}

    def know(self, job_id: str, identity: Identity) -> None:
        """Take down who a job is, so that its file need not be read."""
        watched = self._watch(job_id)
        if watched is not None:
            watched.identity = identity

    def forget(self, job_id: str) -> None:
        """Follow the job no longer."""
        self._watched.pop(job_id, None)

    def poll(self, job_ids: Collection[str]) -> dict[str, SlurmEvidence]:
        """Return the evidence of these jobs; ids that are not ours are left out.

        Raises:
            BackendUnavailable: The queue did not answer, or the host was not reached; absence begins anew.
            AccessError: See `Remote.ask`.
        """
        watched = {job_id: found for job_id in job_ids if (found := self._watch(job_id)) is not None}
        if not watched:
            return {}
        asked_at = time.monotonic()
        try:
            clock = self._ask(list(watched.values()))
            left = [one for one in watched.values() if _unexplained(one)]
            if left:
                self._ask_of_those_that_left(left)
        except BackendUnavailable:
            for one in watched.values():
                one.absent_since = None
            raise
        return {job_id: self._evidence(one, clock, asked_at) for job_id, one in watched.items()}

    def tokens(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return the tokens of the attempts that the jobs stand for, of those that are known."""
        known = {one: self._watched[one].identity for one in job_ids if one in self._watched}
        return {one: identity.token for one, identity in known.items() if identity is not None}

    def live(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return, by job id, Slurm's own id of those of the jobs that the queue shows as waiting or running.

        Raises:
            BackendUnavailable, AccessError: As for `poll`.
        """
        watched = {job_id: found for job_id in job_ids if (found := self._watch(job_id)) is not None}
        self._ask(list(watched.values()))
        return {j: one.row.slurm_id for j, one in watched.items() if one.row is not None and one.absent_since is None}

    def _watch(self, job_id: str) -> Watched | None:
        if job_id not in self._watched:
            ref = job_ref(job_id)
            if ref is None:
                return None
            self._watched[job_id] = Watched(ref)
        return self._watched[job_id]

    # ---- asking -------------------------------------------------------------------------------------

    def _ask(self, watched: Sequence[Watched]) -> float:
        """Ask queue and records; return the cluster's time, in seconds since 1970."""
        # A job that Slurm may start again may have a newer claim than the one that is known.
        known = [not self._requeue and one.identity is not None and one.claim is not None for one in watched]
        lines = [f"{'end' if k else 'all'} {one.ref.directory}" for k, one in zip(known, watched, strict=True)]
        parts = self._remote.ask(f"{asking('queue', queue_command())}{_RECORDS}", lines)
        answered, text = answer(parts, "queue")
        if answered is not Answer.YES:
            words = next((after.text.strip() for after in parts if after.words[:1] == ["code"]), "")
            raise BackendUnavailable(self._remote.transport.name, "ask squeue", words or "it gave no answer")
        _take_records(parts, watched)
        rows = read_own_queue(text)
        by_name, by_id = _by_name(rows), {row.slurm_id: row for row in rows}
        now = time.monotonic()
        for one in watched:
            one.row = _row_of(one, by_name, by_id)
            over = one.row is None or kind_of(one.row.word) in (END, ENDING)
            one.absent_since = (one.absent_since or now) if over else None
        return next((float(part.words[1]) for part in parts if part.words[:1] == ["clock"]), time.time())

    def _ask_of_those_that_left(self, left: Sequence[Watched]) -> None:
        ids = [_plain(one) for one in left]
        script = f"{asking('accounting', accounting_command(ids))}{_LEFT}"
        lines = [f"{'over' if _over_for_good(one) else 'left'} {one.ref.directory}" for one in left]
        parts = self._remote.ask(script, lines)
        answered, text = answer(parts, "accounting")
        for one in left:
            one.gone = False
        _take_records(parts, left)
        rows: dict[str, list[AccountingRow]] = {}
        for row in read_accounting(text):
            rows.setdefault(row.slurm_id, []).append(row)
        for one in left:
            # One by one: a controller that forgot a job gives its id to another, which may be ours, too.
            plain = _plain(one)
            names = {plain: one.identity.name} if one.identity is not None and not _elsewhere(one) else None
            one.accounting, one.answered = newest(rows.get(plain, ()), names).get(plain), answered
            if answered is Answer.SILENT:
                one.silent_at = time.monotonic()

    # ---- evidence -----------------------------------------------------------------------------------

    def _evidence(self, one: Watched, clock: float, asked_at: float) -> SlurmEvidence:
        row, accounting, end = one.row, one.accounting, one.exit
        claim = one.claim
        started = end.started_at if end else claim.started_at if claim else None
        limit = one.identity.limit_s if one.identity else None
        ran_s = (end.ended_at if end else clock) - started if started is not None else 0.0
        return SlurmEvidence(
            queue=row.word if row else "",
            queue_reason=row.reason if row else "",
            accounting=accounting.word if accounting else "",
            accounting_exit_code=accounting.exit_code if accounting else None,
            accounting_signal=accounting.signal if accounting else None,
            by_user=accounting is not None and accounting.cancelled_by is not None and not _fell_at_start(accounting),
            fell_at_start=accounting is not None and _fell_at_start(accounting),
            accounting_answered=one.answered is Answer.YES,
            claimed=claim is not None or end is not None,
            exit_code=end.exit_code if end else None,
            setup_failed=end is not None and "setup" in end.flags,
            never_began=end is not None and one.unbegun,
            limit_near=one.limit_near or (end is not None and "limit-near" in end.flags),
            limit_reached=limit is not None and ran_s >= limit - _LIMIT_MARGIN_S,
            cancel_requested=one.cancel_requested,
            directory_gone=one.gone,
            second_start=one.second_start,
            absent=self._absence(one, asked_at),
            requeue=self._requeue,
            started_at=started,
            ended_at=end.ended_at if end else accounting.end if accounting else None,
            node=end.node if end else claim.node if claim else "",
            note=one.note,
            over=one.over,
        )

    def _absence(self, one: Watched, asked_at: float) -> Absence:
        if one.absent_since is None:
            return Absence.NO
        # Up to the question, not up to now: a process that was stopped since has an answer as old as that.
        waits, absent_s = self._waits, max(asked_at - one.absent_since, 0.0)
        if min(absent_s, max(asked_at - one.silent_at, 0.0)) >= waits.absence_s:
            return Absence.LONG
        if absent_s >= waits.infrastructure_s:
            return Absence.SETTLED
        return Absence.GRACE if absent_s >= waits.grace_s else Absence.BRIEF


def _fell_at_start(row: AccountingRow) -> bool:
    """Return whether Slurm cancelled the job within a second of its start, and names nobody but its own user."""
    if row.word != "CANCELLED" or row.cancelled_by not in (None, 0) or row.start is None or row.end is None:
        return False
    return row.end - row.start <= 1


def _over_for_good(one: Watched) -> bool:
    """Return whether the queue says that the job which has the attempt has ended and cannot come back."""
    word = one.row.word if one.row is not None else ""
    return kind_of(word) is END and plain_word(word) not in MAY_COME_BACK


def _unexplained(one: Watched) -> bool:
    """Return whether queue and records alone do not tell how the job ended."""
    if one.absent_since is None or (one.exit is not None and one.exit.exit_code == 0):
        return False
    word = one.row.word if one.row is not None else ""
    by_whom = plain_word(word) == "CANCELLED" and not one.cancel_requested  # only accounting knows
    return one.exit is None or kind_of(word) is not END or by_whom


def _by_name(rows: Iterable[QueueRow]) -> dict[tuple[str, int | None], QueueRow]:
    """Return the rows by name and index; of several starts the live one counts, else the last."""
    found: dict[tuple[str, int | None], QueueRow] = {}
    for row in rows:
        before = found.get((row.name, row.index))
        if before is None or kind_of(before.word) is END:
            found[row.name, row.index] = row
    return found


def _row_of(
    one: Watched, by_name: Mapping[tuple[str, int | None], QueueRow], by_id: Mapping[str, QueueRow]
) -> QueueRow | None:
    if one.identity is not None and not _elsewhere(one):
        return by_name.get((one.identity.name, one.identity.index))
    # Another job of ours has the claim, or nothing is left in the directory: then the id must do.
    return by_id.get(_plain(one))


def _elsewhere(one: Watched) -> bool:
    """Return whether another job than the one submitted last has started the attempt; that one counts."""
    return one.claim is not None and one.claim.slurm_id != one.ref.slurm_id.partition(";")[0]


def _plain(one: Watched) -> str:
    """Return the id, without the cluster, of the job that has the attempt."""
    return one.claim.slurm_id if one.claim is not None else one.ref.slurm_id.partition(";")[0]


def _take_records(parts: Iterable[Part], watched: Iterable[Watched]) -> None:
    """Put what the records say to the jobs that they belong to; those of other attempts are noted, not believed."""
    places = {one.ref.directory: one for one in watched}
    for part in parts:
        match part.words:
            case ["job", directory, *words] if directory in places:
                # Who the job is, the journal knows better: the file may be that of another journal's run.
                places[directory].identity = places[directory].identity or read_identity(" ".join(words))
            case ["claim", directory, *words] if directory in places:
                _take_claim(places[directory], read_claim(" ".join(words)))
                _take_over(places[directory], " ".join(words))
            case ["exit", directory, *words] if directory in places:
                _take_exit(places[directory], read_exit(" ".join(words)))
            case ["cancel", directory] if directory in places:
                places[directory].cancel_requested = True
            case ["limit", directory] if directory in places:
                places[directory].limit_near = True
            case ["refused", directory] if directory in places:
                places[directory].second_start = True
            case ["unbegun", directory] if directory in places:
                places[directory].unbegun = True
            case ["gone", directory] if directory in places:
                places[directory].gone = True


def _ours(one: Watched, token: str) -> bool:
    if one.identity is None or token == one.identity.token:
        return True
    one.note = f"a record of another attempt ({token}) lies in its directory and is not believed"
    return False


def _take_over(one: Watched, line: str) -> None:
    """Take down why the attempt was over before it began, where the line of its claim is no job's.

    On a full disk the claim is a second name of the job file, and does not say why.
    """
    over, identity = read_over(line), read_identity(line)
    if over is not None and _ours(one, over.token):
        one.over = over.reason
    elif over is None and identity is not None and _ours(one, identity.token):
        one.over = Reason.LOST


def _take_claim(one: Watched, claim: Claim | None) -> None:
    if claim is not None and _ours(one, claim.token) and (one.claim is None or claim.restart >= one.claim.restart):
        one.claim = claim
        if one.exit is not None and one.exit.restart < claim.restart:
            one.exit = None  # it has started anew since, and may have overwritten what it wrote


def _take_exit(one: Watched, record: Exit | None) -> None:
    if record is not None and _ours(one, record.token) and (one.claim is None or record.restart >= one.claim.restart):
        one.exit, one.unbegun = record, False  # what lies beside the record is said after it


def never_seen(evidence: SlurmEvidence) -> bool:
    """Return whether no witness knows the job."""
    known = evidence.queue or evidence.accounting or evidence.claimed or evidence.exit_code is not None
    return evidence.directory_gone and not known
