"""Submission that happens once: claim, sbatch, receipt; after a lost answer the job is found by its name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from shlex import quote
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from matterstack.core.machine import Reason
from matterstack.errors import (
    AccessError,
    BackendUnavailable,
    MatterStackError,
    SubmitAbsentError,
    SubmitHeld,
    SubmitInDoubt,
    SubmitRefusedError,
)
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc.barring import bar
from matterstack.runtime.backends.hpc.batch import Batch, batches, place
from matterstack.runtime.backends.hpc.layout import JobRef
from matterstack.runtime.backends.hpc.look_up import Found, look_up
from matterstack.runtime.backends.hpc.remote import Part, Remote
from matterstack.runtime.backends.hpc.replies import Accepted, Doubt, Held, Refused, read_reply
from matterstack.runtime.backends.hpc.slurm import indices_of
from matterstack.runtime.backends.hpc.submit_script import FUNCTIONS, mark_cancelled
from matterstack.runtime.backends.hpc.waits import Waits

_AGAIN_MIN_S: Final = 2.0
_AGAIN_MAX_S: Final = 30.0
_LEFT_S: Final = 5.0  # until those are tried that stood behind one without a clear answer

Answer = str | MatterStackError
Stage = Callable[[Sequence[Batch]], Mapping[str, MatterStackError]]


class Tried(Struct, frozen=True):
    """What stands of a submission's last try on the cluster.

    ``what``: none, left, full, fenced, withdrawn, claimed or receipt. ``number``: of the try. ``age_s``: of its
    claim or receipt by the cluster's clock. ``indices``: of the array's elements that were in it.
    """

    what: str
    number: int = 0
    age_s: float = 0.0
    code: int | None = None
    indices: str = ""
    out: str = ""
    err: str = ""


class _InDoubt(NamedTuple):
    """A batch, which of its tries leaves the doubt, and the newest of all that are behind it where it is settled."""

    batch: Batch
    tried: Tried
    newest: int


class Submitter:
    """Submits, and settles what earlier submissions came to. Used by one thread at a time.

    Args:
        remote: The workspace.
        waits: How long is waited for what.
        stage: Puts job scripts and inputs in place; returns errors by attempt token.
    """

    def __init__(self, remote: Remote, waits: Waits, stage: Stage) -> None:
        self._remote, self._waits, self._stage = remote, waits, stage
        self._settled: dict[str, int] = {}  # by batch: its tries up to this one are known not to have submitted it
        # The same by what was not found just now: no longer true for the next call, a late shell may have come between.
        self._absent: dict[str, int] = {}
        # By batch a try that was absent, and when that was learnt: its shell may live, and submit in the end.
        self._unsure: dict[str, tuple[Tried, float]] = {}
        self._staged: dict[str, list[str]] = {}  # attempts that lie ready, by a batch to be tried again
        self._fenced: dict[tuple[str, int], float] = {}  # when a try was fenced, by the monotonic clock

    def submit(self, submissions: Sequence[Submission]) -> list[Answer]:
        """Return for each submission its job id or what stands against it, as `ComputeBackend.submit_many` does.

        Raises:
            BackendUnavailable: The cluster could not be asked; what came of the submissions is to be looked up.
        """
        answers: dict[str, Answer] = {}
        self._absent.clear()
        todo = batches(submissions)
        known = [batch for batch in todo if batch.again or batch.key in self._unsure]
        if known:
            looked = self._look(known, answers)
            todo = [batch for batch in todo if batch not in known or batch.key in looked]
        if todo:
            self._submit(todo, answers)
        self._bar(submissions, answers)
        return [answers[one.token] for one in submissions]

    # ---- looking at what is there -------------------------------------------------------------------

    def _look(self, known: Sequence[Batch], answers: dict[str, Answer]) -> set[str]:
        """Answer for what an earlier call submitted; return the keys of those that it did not."""
        tried = self._try("look", known)
        open_: set[str] = set()
        doubts: list[_InDoubt] = []
        for batch in known:
            *earlier, found = tried[batch.key]
            reply = _reply(found)
            if doubtful := [one for one in earlier if not _came_to_nothing(one)]:
                self._unsure[batch.key] = doubtful[-1], time.monotonic()
            match reply:
                case Accepted():
                    self._accept(batch, found, reply, answers)
                case _ if found.what == "withdrawn":
                    self._all(batch, _withdrawn(), answers)
                case Refused() | Held():  # proved not submitted; whether it is taken now is another question
                    self._settled[batch.key] = found.number
                    doubts += self._left_open(batch)
                    open_.add(batch.key)
                case _ if found.what == "none":
                    doubts += self._left_open(batch)
                    open_.add(batch.key)
                case _:
                    doubts.append(_InDoubt(batch, found, found.number))
        if doubts:
            open_ -= {batch.key for batch, _, _ in doubts}
            open_ |= self._settle(doubts, answers)
        return open_

    def _left_open(self, batch: Batch) -> list[_InDoubt]:
        """Return the doubt that an earlier try left, whatever came of those after it."""
        if batch.key not in self._unsure:
            return []
        tried, at = self._unsure[batch.key]
        older = replace(tried, age_s=tried.age_s + time.monotonic() - at)
        return [_InDoubt(batch, older, self._settled.get(batch.key, tried.number))]

    def _settle(self, doubts: Sequence[_InDoubt], answers: dict[str, Answer]) -> set[str]:
        """Look for jobs by name; return the keys of those that are proved not to have been submitted."""
        now = time.monotonic()
        late = {b.key: t for b, t, _ in doubts if t.age_s >= self._waits.settle_s}
        found = look_up(
            self._remote,
            [batch for batch, _, _ in doubts],
            fences=[f"{b.token}/fence.{b.gen}.{t.number}" for b, t, _ in doubts if b.key in late],
        )
        looked_at = time.monotonic()
        absent: set[str] = set()
        for batch, tried, newest in doubts:
            there = found.jobs.get(batch.key)
            if there is not None:
                self._adopt(batch, tried, there, answers)
                continue
            fenced_at = self._fenced.setdefault((batch.key, tried.number), looked_at) if batch.key in late else now
            if found.answered and batch.key in late and now - fenced_at >= self._waits.again_s:
                self._absent[batch.key] = newest
                self._unsure[batch.key] = tried, now
                absent.add(batch.key)
                continue
            if not found.answered:
                self._fenced.pop((batch.key, tried.number), None)  # absence counts only when it was answered
            self._all(batch, self._doubt(tried, found, late=batch.key in late), answers)
        return absent

    def _doubt(self, tried: Tried, found: Found, *, late: bool) -> SubmitInDoubt:
        what = "sbatch gave no clear answer" if tried.what == "receipt" else "the answer of sbatch was lost"
        if not found.answered:
            return SubmitInDoubt(f"{what}, and {found.silent} does not answer", again_s=self._waits.again_s)
        if late:
            return SubmitInDoubt(f"{what}; no job of its name is there", again_s=self._waits.again_s)
        left_s = self._waits.settle_s - tried.age_s
        again_s = min(max(left_s / 4, _AGAIN_MIN_S), _AGAIN_MAX_S)
        return SubmitInDoubt(f"{what}; waiting {left_s:.0f} s more for a job of its name", again_s=again_s)

    def _adopt(self, batch: Batch, tried: Tried, slurm_ids: Sequence[str], answers: dict[str, Answer]) -> None:
        """Take the first of these jobs for the submission's, and end the others, which can start nothing."""
        owner, *strays = slurm_ids
        if strays:
            self._remote.ask(f"scancel --name={quote(batch.name)} {' '.join(map(quote, strays))}")
        self._accept(batch, tried, Accepted(owner), answers)

    # ---- submitting ---------------------------------------------------------------------------------

    def _submit(self, todo: Sequence[Batch], answers: dict[str, Answer]) -> None:
        going = [batch for batch in todo if batch.wanted]
        if len(going) < len(todo):
            self._withdraw([batch for batch in todo if not batch.wanted], answers)
        problems = self._stage([batch for batch in going if self._staged.pop(batch.key, None) != _tokens(batch)])
        ready: list[Batch] = []
        for batch in going:
            for member in batch.members:
                if member.cancelled:
                    answers[member.token] = _withdrawn()
                elif member.token in problems:
                    answers[member.token] = problems[member.token]
            left = tuple(member for member in batch.wanted if member.token not in problems)
            if left:
                ready.append(Batch(batch.token, batch.gen, batch.name, left))
        dropped = [member for batch in going for member in batch.members if member.cancelled]
        tried = self._try("submit", ready, dropped) if ready else {}
        held = ""
        for batch in ready:
            held = self._answer(batch, tried[batch.key][-1], held, answers) or held

    def _answer(self, batch: Batch, tried: Tried, held: str, answers: dict[str, Answer]) -> str:
        """Answer for a batch that was just tried; return the words that hold back those behind it, or ``""``."""
        # A shell of an earlier call that lives on may still submit what this one did not.
        unsure = batch.key in self._unsure
        doubtful = unsure or batch.again
        if tried.what == "left":
            self._staged[batch.key] = _tokens(batch)
            words = held or "sbatch gave no clear answer for another job"
            kept = SubmitInDoubt if doubtful else SubmitHeld
            self._all(batch, kept(words, again_s=self._waits.held_s if held else _LEFT_S), answers)
            return ""
        if tried.what == "full":
            words = tried.err or "no space"
            error: MatterStackError = BackendUnavailable(self._remote.transport.name, "write the submit claim", words)
            if doubtful:
                error = SubmitInDoubt(f"the submit claim could not be written: {words}", again_s=_LEFT_S)
            self._all(batch, error, answers)
            return ""
        reply = _reply(tried)
        match reply:
            case _ if tried.what == "withdrawn":
                self._all(batch, _withdrawn(), answers)
            case Accepted():
                self._accept(batch, tried, reply, answers)
            case Refused():
                self._all(batch, SubmitRefusedError(f"sbatch: {reply.words}"), answers)
            case Held():
                self._settled[batch.key] = tried.number
                self._staged[batch.key] = _tokens(batch)
                # In doubt it stays on offer to the backend, also when it is cancelled.
                kept = SubmitInDoubt if unsure else SubmitHeld
                self._all(batch, kept(f"sbatch: {reply.words}", again_s=self._waits.held_s), answers)
                return f"sbatch: {reply.words}"
            case Doubt():
                words = reply.words or "another command has submitted it, or is about to"
                self._all(batch, SubmitInDoubt(words, again_s=_AGAIN_MIN_S), answers)
        return ""

    def _withdraw(self, unwanted: Sequence[Batch], answers: dict[str, Answer]) -> None:
        """Take the submit claim of cancelled submissions, so that no late shell can submit them."""
        tried = self._try("withdraw", unwanted, [member for batch in unwanted for member in batch.members])
        for batch in unwanted:
            self._answer(batch, tried[batch.key][-1], "", answers)

    def _bar(self, submissions: Sequence[Submission], answers: dict[str, Answer]) -> None:
        """Let nothing begin any more of what is over; take up what has begun by now.

        A shell may submit minutes after its look at the fence.
        """
        members = {place(one): one for one in submissions}
        reasons = {at: self._over(one, answers[one.token]) for at, one in members.items()}
        ends = {at: (members[at].token, reason) for at, reason in reasons.items() if reason is not None}
        begun, unclear = bar(self._remote, ends)
        for directory, claim in begun.items():
            answers[members[directory].token] = str(JobRef(claim.slurm_id, directory))
        for directory in unclear:
            words = f"whether a job of it has begun cannot be read in {directory}"
            answers[members[directory].token] = SubmitInDoubt(words, again_s=_LEFT_S)

    def _over(self, submission: Submission, answer: Answer) -> Reason | None:
        """Return why the attempt is over with this answer though a shell may still submit it; else None."""
        match answer:
            case SubmitAbsentError() if submission.cancelled:
                return Reason.CANCELLED
            case str() | SubmitAbsentError() | SubmitInDoubt() | SubmitHeld() | BackendUnavailable() | AccessError():
                return None
        (batch,) = batches([submission])
        return Reason.SUBMIT_REFUSED if batch.key in self._unsure or submission.gen > 1 else None

    def _try(self, mode: str, todo: Sequence[Batch], cancelled: Iterable[Submission] = ()) -> dict[str, list[Tried]]:
        """Return by key what stands of each batch's tries, the newest last, after one try where ``mode`` says so.

        What a shell submits too late of those cancelled ends itself, also before `_bar` has been there.
        """
        marks = [mark_cancelled(place(one)) for one in cancelled]
        calls = [
            f"try_one {mode} {batch.token} {batch.gen} {self._behind(batch.key)} {batch.indices}".rstrip()
            for batch in todo
        ]
        gens = {batch.token: batch.key for batch in todo}
        parts = self._remote.ask("\n".join([FUNCTIONS, *marks, *calls]))
        found: dict[str, list[Tried]] = {}
        for token, tried in _tried(parts):
            found.setdefault(gens[token], []).append(tried)
        return found

    def _behind(self, key: str) -> int:
        """Return up to which of its tries nothing has to be told any more."""
        return max(self._settled.get(key, 0), self._absent.get(key, 0))

    # ---- answers ------------------------------------------------------------------------------------

    def _accept(self, batch: Batch, tried: Tried, reply: Accepted, answers: dict[str, Answer]) -> None:
        inside = indices_of(tried.indices) if batch.array else None
        for member in batch.members:
            if inside is not None and member.index not in inside:
                answers[member.token] = SubmitAbsentError("it was not in the array that was submitted")
            else:
                answers[member.token] = batch.job_id(member, reply.slurm_id, reply.cluster)

    @staticmethod
    def _all(batch: Batch, error: MatterStackError, answers: dict[str, Answer]) -> None:
        for member in batch.members:
            answers[member.token] = error


def _tried(parts: Iterable[Part]) -> Iterable[tuple[str, Tried]]:
    """Yield token and outcome of each try that the script told of."""
    waiting: tuple[str, Tried] | None = None
    for part in parts:
        match part.words:
            case ["err"] if waiting is not None:
                token, tried = waiting
                yield (
                    token,
                    Tried(tried.what, tried.number, tried.age_s, tried.code, tried.indices, tried.out, part.text),
                )
                waiting = None
            case ["receipt", token, number, age, code, *indices]:
                waiting = token, Tried("receipt", int(number), float(age), _code(code), "".join(indices), part.text)
            case ["claimed", token, number, age, *indices]:
                yield token, Tried("claimed", int(number), float(age), indices="".join(indices))
            case ["withdrawn", token, number]:
                yield token, Tried("withdrawn", int(number))
            case [("none" | "left" | "full" | "fenced") as what, token]:
                yield token, Tried(what)


def _reply(tried: Tried) -> Accepted | Refused | Held | Doubt:
    return read_reply(tried.code, tried.out, tried.err) if tried.what == "receipt" else Doubt("")


def _came_to_nothing(tried: Tried) -> bool:
    """Return whether it is proved that this try submitted nothing."""
    return tried.what == "withdrawn" or isinstance(_reply(tried), Refused | Held)


def _withdrawn() -> SubmitAbsentError:
    return SubmitAbsentError("cancelled before it was submitted")


def _tokens(batch: Batch) -> list[str]:
    return [member.token for member in batch.wanted]


def _code(word: str) -> int | None:
    return int(word) if word.isdigit() else None
