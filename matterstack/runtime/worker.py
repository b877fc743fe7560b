"""One thread per backend: it does the I/O, so that a backend that hangs stalls no other and no decision."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from matterstack.core.evidence import Evidence, JobStatus
from matterstack.core.machine import COMPLETED, FAILED, Reason
from matterstack.core.reconcile import status_of
from matterstack.core.workflow import OutputRef
from matterstack.errors import (
    AccessError,
    BackendUnavailable,
    MatterStackError,
    SubmitAbsentError,
    SubmitHeld,
    SubmitInDoubt,
    SubmitRefusedError,
    UnknownJob,
)
from matterstack.runtime.accounts import Accounts
from matterstack.runtime.backends.base import ComputeBackend, Submission
from matterstack.runtime.reports import (
    Absent,
    Crashed,
    Held,
    InDoubt,
    Notice,
    Offer,
    Refused,
    Report,
    Seen,
    Submitted,
    Trouble,
    Withdrawn,
)
from matterstack.runtime.stalls import Stalls

BACKOFF_MAX_S: Final = 60.0
STOP_S: Final = 10.0  # longest wait for the call at hand


class BackendWorker:
    """Carries out what the engine released and reports what the backend answers.

    Args:
        backend: Used by this worker's thread alone while it runs, except for `retrieve`.
        wake: Called, from the thread, when there is something to `collect`.
    """

    def __init__(self, backend: ComputeBackend, wake: Callable[[], None]) -> None:
        self.backend = backend
        self._wake = wake
        self._lock = threading.Lock()
        self._offers: deque[Offer] = deque()
        self._later: list[Offer] = []
        self._recalled: set[str] = set()
        self._cancels: deque[str] = deque()
        self._withdrawals: list[str] | None = None
        self._live: set[str] = set()
        self._last: dict[str, Evidence] = {}
        self._stalls = Stalls()
        self.accounts = Accounts(backend)
        self._reports: list[Report] = []
        self._interrupted = threading.Event()
        self._stopping = self._hurry = False
        self._trouble = self._held = self._notice = ""
        self._poll_s, self._polled_at = backend.poll_min_s, 0.0
        self._thread = threading.Thread(target=self._run, name=f"matterstack-{type(backend).__name__}", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the call at hand and end the thread. What was not yet carried out stays undone.

        A backend that hangs is left behind: its thread does not keep the process from ending.
        """
        self.ask_to_stop()
        self._thread.join(STOP_S)

    def ask_to_stop(self) -> None:
        """Begin to stop, without waiting for it."""
        self._stopping = True
        self._interrupt()

    def submit(self, offers: Iterable[Offer]) -> None:
        """Submit these, in order."""
        self.accounts.go_on()
        self._offers.extend(offers)
        self._interrupt()

    def recall(self, task_ids: Iterable[str]) -> None:
        """Submit none of these that is not submitted; `Absent` or `Submitted` follows for each that was offered."""
        with self._lock:
            self._recalled.update(task_ids)
        self._hurry = True
        self._interrupt()

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Ask for the end of these jobs."""
        self._cancels.extend(job_ids)
        self._interrupt()

    def withdraw(self, job_ids: Collection[str]) -> None:
        """Take back those of these jobs that did not start; a `Withdrawn` report follows in any case."""
        self._withdrawals = list(job_ids)
        self._hurry = True
        self._interrupt()

    def follow(self, jobs: Mapping[str, Submission]) -> None:
        """Report evidence of these jobs, by job id, which an earlier process submitted."""
        for job_id, submission in jobs.items():
            self.backend.recognize(job_id, submission)
            self.accounts.know(job_id, submission)
        with self._lock:
            self._live.update(jobs)
        self._interrupt()

    def owe(self, job_id: str, submission: Submission, ago_s: float) -> None:
        """Report what this job used, which ended some seconds ago; called before `start`."""
        self.backend.recognize(job_id, submission)
        self.accounts.know(job_id, submission)
        self.accounts.ended(job_id, ago_s)

    def unfollow(self, job_ids: Collection[str]) -> None:
        """Ask no more for these jobs: their attempts have been taken back."""
        with self._lock:
            self._live.difference_update(job_ids)

    def close_accounts(self) -> None:
        """Report soon what the ended jobs used, or that it is not known."""
        self.accounts.last_call()
        self._interrupt()

    def collect(self) -> list[Report]:
        """Return what was reported since the last call."""
        with self._lock:
            reports, self._reports = self._reports, []
        return reports

    def _interrupt(self) -> None:
        self._interrupted.set()
        self.backend.interrupt()

    def _report(self, reports: list[Report]) -> None:
        if reports:
            with self._lock:
                self._reports += reports
            # Nothing follows from a submission that went well, so it need not cost a commit of its own, unless
            # this id is all by which the job can be found again.
            if not self.backend.idempotent or not all(isinstance(report, Submitted) for report in reports):
                self._wake()

    def _run(self) -> None:
        backoff_s = 0.0
        while not self._stopping:
            self._interrupted.clear()
            try:
                if self._work():
                    if self._trouble:
                        self._trouble = ""
                        self._report([Trouble("")])
                    backoff_s = 0.0
                if not (self._offers or self._cancels or self._withdrawals is not None):
                    self.backend.wait(self._wait_s(), self._interrupted)
            except BackendUnavailable as error:
                backoff_s = min(max(2 * backoff_s, 1.0), BACKOFF_MAX_S)
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    self._report([Trouble(self._trouble, backoff_s)])
                self._pause(backoff_s)
            except BaseException as error:  # noqa: BLE001  # a thread has nobody to raise to: the engine raises it
                self._report([Crashed(error)])
                return

    def _wait_s(self) -> float:
        """Return how long nothing is to be done: until the next poll, or the next offer that is due again."""
        dues = [offer.due for offer in self._later]
        return max(0.0, min([self._poll_s, self.accounts.wait_s, *(due - time.monotonic() for due in dues)]))

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not (self._stopping or self._hurry) and (left := deadline - time.monotonic()) > 0:
            self._interrupted.clear()
            self._interrupted.wait(left)
        self._hurry = False

    def _work(self) -> bool:
        """Do what is to be done now; return whether the backend was asked anything, and so has answered."""
        self._recall()
        asked = bool(self._cancels or self._withdrawals is not None)
        self._cancel()
        if self._withdrawals is not None:
            self._withdraw(self._withdrawals)
        self._take_up_what_is_due()
        if self._offers:
            asked = True
            self._submit()
        asked = self._poll() or asked
        if used := self.accounts.ask():
            self._report([*used])
            self.accounts.settle(used)
        return asked

    def _cancel(self) -> None:
        """Cancel in one call where the backend has one for many; a job stays listed until it was asked for."""
        if type(self.backend).cancel_many is not ComputeBackend.cancel_many and self._cancels:
            asked = list(self._cancels)
            self.backend.cancel_many(asked)
            for _ in asked:
                self._cancels.popleft()
        while self._cancels:
            self.backend.cancel_many([self._cancels[0]])
            self._cancels.popleft()

    def _recall(self) -> None:
        """Drop recalled offers that were never made; of the others the backend finds out what came of them."""
        with self._lock:
            recalled, self._recalled = self._recalled, set()
        if not recalled:
            return
        dropped: list[Report] = []
        for offers in (self._offers, self._later):
            for offer in [one for one in offers if one.submission.task.task_id in recalled]:
                if offer.made:
                    offer.submission, offer.due = replace(offer.submission, cancelled=True), 0.0
                else:
                    offers.remove(offer)
                    dropped.append(Absent(offer.submission.task.task_id, "cancelled before it was submitted"))
        self._report(dropped)

    def _withdraw(self, job_ids: list[str]) -> None:
        taken = self.backend.withdraw(job_ids)
        self._withdrawals = None
        with self._lock:
            self._live.difference_update(taken)
        unsent: list[str] = []
        for offers in (self._offers, self._later):
            for offer in [one for one in offers if not one.made]:
                offers.remove(offer)
                unsent.append(offer.submission.task.task_id)
        self._report([Withdrawn(taken, unsent)])

    def _take_up_what_is_due(self) -> None:
        now = time.monotonic()
        due = {id(offer) for offer in self._later if offer.due <= now}
        if not due:
            return
        # The elements of an array go together: a part of it would be another array.
        arrays = {offer.submission.array for offer in self._later if id(offer) in due} - {""}
        due |= {id(offer) for offer in self._later if offer.submission.array in arrays}
        self._offers.extend(offer for offer in self._later if id(offer) in due)
        self._later = [offer for offer in self._later if id(offer) not in due]

    def _submit(self) -> None:
        # A loop over single submissions is better done here: what one of them breaks does not hide the others' ids.
        in_blocks = type(self.backend).submit_many is not ComputeBackend.submit_many
        block = list(self._offers) if in_blocks else [self._offers[0]]
        ready: list[Offer] = []
        reports: list[Report] = []
        for offer in block:
            try:
                self._resolve(offer)
                ready.append(offer)
            except SubmitRefusedError as error:
                reports.append(Refused(offer.submission.task.task_id, str(error)))
        answers: list[str | MatterStackError] = []
        if ready:
            asked = [replace(one.submission, again=True) if one.made else one.submission for one in ready]
            for offer in ready:
                offer.made = True
            answers = self.backend.submit_many(asked)
            self._poll_s = self.backend.poll_min_s
        again = []
        for offer, answer in zip(ready, answers, strict=True):
            if isinstance(answer, BackendUnavailable):
                offer.made = False
                again.append(answer)
                self._offers.append(offer)
            else:
                reports += self._answered(offer, answer)
        for _ in block:
            self._offers.popleft()
        self._report_holds(answers)
        self._report(reports)
        if again:
            raise again[0]

    def _answered(self, offer: Offer, answer: str | MatterStackError) -> list[Report]:
        """Return what follows for the engine from the backend's answer to one offer."""
        task_id = offer.submission.task.task_id
        match answer:
            case str():
                self.accounts.know(answer, offer.submission)
                with self._lock:
                    self._live.add(answer)
                    self._last.pop(answer, None)  # of a job taken back and found again all is news
                return [Submitted(task_id, answer)]
            case SubmitInDoubt() | SubmitHeld():
                offer.made = isinstance(answer, SubmitInDoubt)
                offer.due = time.monotonic() + answer.again_s
                self._later.append(offer)
                return [InDoubt(task_id, answer.detail)] if offer.made else []
            case SubmitAbsentError():
                return [Absent(task_id, str(answer))]
            case AccessError():
                raise answer
            case MatterStackError():
                return [Refused(task_id, str(answer))]
        raise TypeError(f"submit returned {answer!r}; a job id is text")

    def _report_holds(self, answers: list[str | MatterStackError]) -> None:
        held = next((answer.detail for answer in answers if isinstance(answer, SubmitHeld)), "")
        if answers and held != self._held:
            self._held = held
            self._report([Held(held)])

    def _resolve(self, offer: Offer) -> None:
        """Put paths in the place of other tasks' outputs, where the backend does not pass them on itself."""
        sources, task = offer.sources, offer.submission.task
        if sources is None:
            return
        files: dict[str, str | Path | OutputRef] = dict(task.files)
        for name, source in files.items():
            if not isinstance(source, OutputRef) or source.task_id in offer.submission.upstream:
                continue
            try:
                files[name] = sources.fetch(source.task_id, source.path)
            except (FileNotFoundError, SubmitRefusedError) as error:
                if offer.made:  # it may have started with it: the backend looks first, and misses the file after that
                    files[name] = sources.place(source.task_id, source.path)
                    continue
                if isinstance(error, SubmitRefusedError):
                    raise
                raise SubmitRefusedError(
                    f"task {source.task_id!r} did not write {source.path!r}, or it was removed since; task "
                    f"{task.task_id!r} takes it as {name!r} and was not started. Mend the command that "
                    f"should write it, or run the workflow with --rerun {source.task_id}."
                ) from None
        offer.submission = replace(offer.submission, task=replace(task, files=files))
        offer.sources = None

    def _poll(self) -> bool:
        """Ask for the jobs where it is time to; return whether it was."""
        with self._lock:
            live = list(self._live)
        now = time.monotonic()
        if not live or not (self.backend.cheap_poll or self.backend.has_news or now - self._polled_at >= self._poll_s):
            return False
        self._polled_at = now
        answers = self._ask(live)
        seen = [one for one in answers if self._last.get(one.job_id) != one.evidence]
        with self._lock:
            for one in seen:
                if status_of(one.evidence).state in (COMPLETED, FAILED):
                    self._live.discard(one.job_id)
                    self.accounts.ended(one.job_id)
                    self._last.pop(one.job_id, None)
                else:
                    self._last[one.job_id] = one.evidence
        self._poll_s = self._next_poll(self._poll_s, news=bool(seen))
        self._report([*seen, *self._stalls.look(answers)])
        if self.backend.notice != self._notice:
            self._notice = self.backend.notice
            self._report([Notice(self._notice)])
        return True

    def _next_poll(self, before_s: float, *, news: bool) -> float:
        """Return the time to the next question: at once short after news, then longer; not all at one beat."""
        if news:
            return self.backend.poll_min_s
        jitter = random.uniform(0.9, 1.1)  # noqa: S311  # to spread load, not to keep a secret
        return min(before_s * 1.5, self.backend.poll_max_s) * jitter

    def _ask(self, live: list[str]) -> list[Seen]:
        try:
            return [Seen(job_id, evidence) for job_id, evidence in self.backend.poll_many(live).items()]
        except UnknownJob as error:
            return [Seen(error.job_id, JobStatus(error.job_id, FAILED, Reason.LOST, detail=str(error)))]
