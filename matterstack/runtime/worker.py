"""One thread per backend: it does the I/O, so that a backend that hangs stalls no other and no decision."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from matterstack.core.evidence import Evidence, JobStatus
from matterstack.core.machine import COMPLETED, FAILED, Reason
from matterstack.core.reconcile import status_of
from matterstack.core.workflow import OutputRef
from matterstack.errors import BackendUnavailable, MatterStackError, SubmitRefusedError, UnknownJob
from matterstack.runtime.backends.base import ComputeBackend, Submission

POLL_MIN_S: Final = 0.1
POLL_MAX_S: Final = 5.0
BACKOFF_MAX_S: Final = 60.0
STOP_S: Final = 10.0  # longest wait for the call at hand


class Submitted(Struct, frozen=True):
    """The backend took the attempt."""

    task_id: str
    job_id: str


class Refused(Struct, frozen=True):
    """The backend will not take the attempt."""

    task_id: str
    detail: str


class Seen(Struct, frozen=True):
    """Evidence of a job."""

    job_id: str
    evidence: Evidence


class Withdrawn(Struct, frozen=True):
    """These jobs were taken back before they started, these tasks were never handed to the backend."""

    job_ids: list[str]
    task_ids: list[str]


class Trouble(Struct, frozen=True):
    """The backend could not work; ``detail`` is empty when it can again."""

    detail: str


class Crashed(Struct, frozen=True):
    """The backend failed in a way it should not; the run cannot go on."""

    error: BaseException


Report = Submitted | Refused | Seen | Withdrawn | Trouble | Crashed
Upstream = Mapping[str, str]  # job id by task id, for the tasks whose outputs a submission takes


class BackendWorker:
    """Carries out what the engine released and reports what the backend answers.

    Args:
        backend: Used by this worker's thread alone while it runs.
        wake: Called, from the thread, when there is something to `collect`.
    """

    def __init__(self, backend: ComputeBackend, wake: Callable[[], None]) -> None:
        self.backend = backend
        self._wake = wake
        self._lock = threading.Lock()
        self._submissions: deque[tuple[Submission, Upstream]] = deque()
        self._cancels: deque[str] = deque()
        self._withdrawals: list[str] | None = None
        self._live: set[str] = set()
        self._last: dict[str, Evidence] = {}
        self._reports: list[Report] = []
        self._interrupted = threading.Event()
        self._stopping = self._hurry = False
        self._trouble = ""
        self._poll_s, self._polled_at = POLL_MIN_S, 0.0
        self._thread = threading.Thread(target=self._run, name=f"matterstack-{type(backend).__name__}", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the call at hand and end the thread. What was not yet carried out stays undone.

        A backend that hangs is left behind: its thread does not keep the process from ending.
        """
        self._stopping = True
        self._interrupt()
        self._thread.join(STOP_S)

    def submit(self, submissions: Iterable[tuple[Submission, Upstream]]) -> None:
        """Submit these, in order."""
        self._submissions.extend(submissions)
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

    def follow(self, job_ids: Collection[str]) -> None:
        """Report evidence of these jobs, which an earlier process submitted."""
        with self._lock:
            self._live.update(job_ids)
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
                self._work()
                if self._trouble:
                    self._trouble = ""
                    self._report([Trouble("")])
                backoff_s = 0.0
                if not (self._submissions or self._cancels or self._withdrawals is not None):
                    self.backend.wait(self._poll_s, self._interrupted)
            except BackendUnavailable as error:
                backoff_s = min(max(2 * backoff_s, 1.0), BACKOFF_MAX_S)
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    self._report([Trouble(self._trouble)])
                self._pause(backoff_s)
            except BaseException as error:  # noqa: BLE001  # a thread has nobody to raise to: the engine raises it
                self._report([Crashed(error)])
                return

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not (self._stopping or self._hurry) and (left := deadline - time.monotonic()) > 0:
            self._interrupted.clear()
            self._interrupted.wait(left)
        self._hurry = False

    def _work(self) -> None:
        while self._cancels:
            with suppress(UnknownJob):  # polling will tell
                self.backend.cancel_many([self._cancels[0]])
            self._cancels.popleft()
        if self._withdrawals is not None:
            self._withdraw(self._withdrawals)
        if self._submissions:
            self._submit()
        self._poll()

    def _withdraw(self, job_ids: list[str]) -> None:
        taken = self.backend.withdraw(job_ids)
        self._withdrawals = None
        with self._lock:
            self._live.difference_update(taken)
        unsent = [submission.task.task_id for submission, _ in self._submissions]
        self._submissions.clear()
        self._report([Withdrawn(taken, unsent)])

    def _submit(self) -> None:
        # A loop over single submissions is better done here: what one of them breaks does not hide the others' ids.
        in_blocks = type(self.backend).submit_many is not ComputeBackend.submit_many
        block = list(self._submissions) if in_blocks else [self._submissions[0]]
        ready: list[Submission] = []
        reports: list[Report] = []
        for submission, upstream in block:
            try:
                ready.append(self._resolved(submission, upstream) if upstream else submission)
            except SubmitRefusedError as error:
                reports.append(Refused(submission.task.task_id, str(error)))
        answers = self.backend.submit_many(ready) if ready else []
        again = []
        for submission, answer in zip(ready, answers, strict=True):
            match answer:
                case str():
                    reports.append(Submitted(submission.task.task_id, answer))
                    with self._lock:
                        self._live.add(answer)
                case BackendUnavailable():
                    again.append(answer)
                    self._submissions.append((submission, {}))
                case MatterStackError():
                    reports.append(Refused(submission.task.task_id, str(answer)))
                case _:
                    raise TypeError(f"submit returned {answer!r}; a job id is text")
        for _ in block:
            self._submissions.popleft()
        self._report(reports)
        if again:
            raise again[0]

    def _resolved(self, submission: Submission, upstream: Upstream) -> Submission:
        files: dict[str, str | Path | OutputRef] = dict(submission.task.files)
        for name, source in files.items():
            if not isinstance(source, OutputRef):
                continue
            try:
                files[name] = self.backend.retrieve(upstream[source.task_id], source.path)
            except FileNotFoundError:
                raise SubmitRefusedError(
                    f"task {source.task_id!r} did not write {source.path!r}, or it was removed since; task "
                    f"{submission.task.task_id!r} takes it as {name!r} and was not started. Mend the command that "
                    f"should write it, or run the workflow with --rerun {source.task_id}."
                ) from None
        return replace(submission, task=replace(submission.task, files=files))

    def _poll(self) -> None:
        with self._lock:
            live = list(self._live)
        now = time.monotonic()
        if not live or (not self.backend.cheap_poll and now - self._polled_at < self._poll_s):
            return
        self._polled_at = now
        seen = [one for one in self._ask(live) if self._last.get(one.job_id) != one.evidence]
        with self._lock:
            for one in seen:
                if status_of(one.evidence).state in (COMPLETED, FAILED):
                    self._live.discard(one.job_id)
                    self._last.pop(one.job_id, None)
                else:
                    self._last[one.job_id] = one.evidence
        self._poll_s = POLL_MIN_S if seen else min(self._poll_s * 1.5, POLL_MAX_S)
        self._report(list(seen))

    def _ask(self, live: list[str]) -> list[Seen]:
        try:
            return [Seen(job_id, evidence) for job_id, evidence in self.backend.poll_many(live).items()]
        except UnknownJob as error:
            return [Seen(error.job_id, JobStatus(error.job_id, FAILED, Reason.LOST, detail=str(error)))]
