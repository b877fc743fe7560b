"""The engine: the only writer of a run's events. One thread that decides; it never waits for a backend."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Protocol

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt, evolve
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING, Reason, State
from matterstack.core.policy import Outcome, outcome
from matterstack.core.reconcile import interpret
from matterstack.core.schedule import Schedule
from matterstack.core.spec import Digests
from matterstack.core.token import token
from matterstack.core.workflow import OutputRef, Task
from matterstack.errors import BackendBroken
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.worker import (
    BackendWorker,
    Crashed,
    Refused,
    Report,
    Seen,
    Submitted,
    Trouble,
    Upstream,
    Withdrawn,
)
from matterstack.runtime.writer import Effect, Writer

# Submitted beyond the backend's slots, so that slots never stand empty during a commit. Kept small: after a
# kill each of these has to be checked against its record.
AHEAD: Final = 16
BLOCK: Final = 500  # for backends with a queue of their own


class Specs(Protocol):
    """The run's tasks, by id, in order. Read from the journal only when they are needed."""

    def __getitem__(self, task_id: str) -> Task: ...

    def digests(self, task_id: str) -> Digests:
        """Return the recorded content of the task's ``Path`` inputs."""


class RunFacts:
    """What is fixed while a run is driven: its identity, this boot of the machine, its options."""

    def __init__(self, journal_id: str, run: str, key: str, boot: str, *, fail_fast: bool = False) -> None:
        self.journal_id, self.run, self.key, self.boot, self.fail_fast = journal_id, run, key, boot, fail_fast


class Engine:
    """Drives one run: takes what the backend reports, records what follows, releases what comes next.

    Args:
        facts: The run.
        specs: Its tasks.
        attempts: What is known of each, in the order of the workflow.
        schedule: Their dependencies, nothing of them settled yet.
        writer: Where events go.
        worker: The backend's worker.
    """

    def __init__(
        self,
        facts: RunFacts,
        specs: Specs,
        attempts: Mapping[str, Attempt],
        schedule: Schedule,
        writer: Writer,
        worker: BackendWorker,
    ) -> None:
        self.facts, self._specs, self._schedule = facts, specs, schedule
        self._writer, self._worker = writer, worker
        self.attempts = dict(attempts)
        self.counts = dict.fromkeys(State, 0)
        for attempt in self.attempts.values():
            self.counts[attempt.state] += not attempt.dropped
        self.undecided: set[str] = set()
        self.trouble = ""
        self.stopping = False
        self.withdrawing = False
        self._ready: deque[str] = deque()
        self._live: set[str] = set()
        self._by_job: dict[str, str] = {}
        self._pending_facts: list[tuple[str, ev.Event]] = []
        self._effects: list[Effect] = []

    # ---- state ----------------------------------------------------------------------------------

    @property
    def live(self) -> int:
        """Number of attempts that a backend has, or is about to get."""
        return len(self._live)

    @property
    def done(self) -> bool:
        """Whether nothing is left that this engine could do or wait for."""
        return not self._live and not self.withdrawing and (not self._ready or self.stopping)

    @property
    def hungry(self) -> bool:
        """Whether the backend may soon run out of work that the engine has."""
        slots = self._worker.backend.slots
        return slots is None or len(self._live) < slots + AHEAD * 3 // 4

    def running(self) -> list[str]:
        """Return the ids of the tasks that run."""
        return [task_id for task_id in self._live if self.attempts[task_id].state is RUNNING]

    # ---- turns ----------------------------------------------------------------------------------

    def begin(self, *, only: Collection[str] | None = None) -> None:
        """Take up what the journal says: settle what ended, submit again or follow what was under way.

        Args:
            only: Touch none but these, and submit nothing new.
        """
        self.stopping = only is not None
        self._take_stock()
        for task_id, attempt in list(self.attempts.items()):
            if attempt.live and (only is None or task_id in only):
                self._resume(task_id, attempt)
        self._submit_ready()
        self.commit()

    def turn(self) -> None:
        """Take in what was reported, decide, record."""
        for report in self._worker.collect():
            self._take(report)
        self._submit_ready()
        self.commit()

    def cancel(self, task_ids: Iterable[str], by: str) -> None:
        """End these tasks: those under way by their backend, those not yet submitted at once."""
        for task_id in task_ids:
            attempt = self.attempts[task_id]
            if attempt.state in (COMPLETED, FAILED) or attempt.cancel_requested or attempt.dropped:
                continue
            attempt = self._record(task_id, ev.CancelRequested(by))
            if attempt.live:
                self._effects.append(lambda attempt=attempt: self._cancel_job(attempt))  # type: ignore[misc]
            else:
                self._fail(task_id, ev.TaskFailed(Reason.CANCELLED, detail="cancelled before it was submitted"))

    def retry(self, task_ids: Iterable[str], why: str) -> None:
        """Put failed tasks, and what failed only because of them, back to PENDING."""
        chosen = {task_id for task_id in task_ids if self.attempts[task_id].state is FAILED}
        freed = self._freed_by(chosen)
        for task_id in [one for one in self.attempts if one in chosen or one in freed]:
            self._record(task_id, ev.TaskRetried(why))
            self.undecided.discard(task_id)

    def _freed_by(self, chosen: set[str]) -> set[str]:
        """Return the tasks that failed only because of those chosen, directly or not."""
        freed = {
            task_id
            for task_id in self._schedule.downstream(chosen)
            if self.attempts[task_id].reason == Reason.DEPENDENCY_FAILED
        }
        todo = list(freed)
        while todo:
            task_id = todo.pop()
            others = [one for one in self._specs[task_id].needs() if one not in chosen and one not in freed]
            if task_id in freed and any(map(self._blocks, others)):
                freed.discard(task_id)
                todo += [one for one in self._schedule.dependents(task_id) if one in freed]
        return freed

    def _blocks(self, task_id: str) -> bool:
        """Return whether the task's end keeps its dependents from running."""
        return self.attempts[task_id].state is FAILED and not self._specs[task_id].allow_failure

    def restart_schedule(self, schedule: Schedule) -> None:
        """Begin anew with the dependencies, after tasks went back to PENDING; what is live stays so."""
        self._schedule = schedule
        self._ready.clear()
        self._take_stock()

    def _take_stock(self) -> None:
        """Tick off what has ended, and line up what may start. A task that is lined up twice starts once."""
        for task_id, attempt in list(self.attempts.items()):
            if attempt.dropped:
                continue
            if attempt.state in (COMPLETED, FAILED):
                self._settle(task_id, attempt)
            elif not attempt.live and self._schedule.is_ready(task_id):
                self._ready.append(task_id)

    def stop(self) -> None:
        """Submit nothing more, and take back what has not started."""
        self.stopping = True
        queued = [job for job, task_id in self._by_job.items() if self.attempts[task_id].state is PENDING]
        self.withdrawing = True
        self._effects.append(lambda: self._worker.withdraw(queued))

    def commit(self) -> None:
        """Make recorded events durable and release what waits for them."""
        facts, self._pending_facts = self._pending_facts, []
        effects, self._effects = self._effects, []
        if facts or effects:
            self._writer.write(facts, effects)

    # ---- decisions ------------------------------------------------------------------------------

    def _record(self, task_id: str, event: ev.Event) -> Attempt:
        before = self.attempts[task_id]
        attempt = evolve(before, event)
        self.attempts[task_id] = attempt
        self.counts[before.state] -= 1
        self.counts[attempt.state] += 1
        self._pending_facts.append((f"{self.facts.run}/{task_id}", event))
        return attempt

    def _take(self, report: Report) -> None:
        match report:
            case Seen():
                self._seen(report)
            case Submitted():
                self._submitted(report.task_id, report.job_id)
            case Refused():
                self._record(report.task_id, ev.SubmitRefused(report.detail))
                self._after(report.task_id)
            case Withdrawn():
                self._take_back(report)
            case Trouble():
                self.trouble = report.detail
            case Crashed():
                name = type(self._worker.backend).__name__
                self._effects.clear()
                self.commit()  # what was learned before counts
                raise BackendBroken(name, report.error) from report.error

    def _seen(self, report: Seen) -> None:
        task_id = self._by_job.get(report.job_id)
        if task_id is not None:
            for event in interpret(self.attempts[task_id], report.evidence):
                self._record(task_id, event)
            self._after(task_id)

    def _submitted(self, task_id: str, job_id: str) -> None:
        self._by_job[job_id] = task_id
        attempt = self.attempts[task_id]
        if attempt.job_id != job_id:
            attempt = self._record(task_id, ev.JobSubmitted(job_id))
        if attempt.cancel_requested:
            self._effects.append(lambda: self._worker.cancel([job_id]))

    def _take_back(self, report: Withdrawn) -> None:
        self.withdrawing = False
        jobs = [self._by_job.pop(job_id) for job_id in report.job_ids if job_id in self._by_job]  # unless it has ended
        for task_id in (*jobs, *report.task_ids):
            self._live.discard(task_id)
            self._record(task_id, ev.SubmitAbsent("taken back before it started"))

    def note(self, event: ev.Event) -> None:
        """Record a fact about the run itself."""
        self._pending_facts.append((self.facts.run, event))

    def _fail(self, task_id: str, event: ev.TaskFailed) -> None:
        self._record(task_id, event)
        self._after(task_id)

    def _after(self, task_id: str) -> None:
        """Draw the consequences where the task has ended."""
        attempt = self.attempts[task_id]
        if attempt.state not in (COMPLETED, FAILED):
            return
        self._live.discard(task_id)
        if attempt.job_id is not None:
            self._by_job.pop(attempt.job_id, None)
        if self._settle(task_id, attempt) is Outcome.BLOCKED and self.facts.fail_fast:
            self.stop()

    def _settle(self, task_id: str, attempt: Attempt) -> Outcome:
        what = Outcome.DONE if attempt.state is COMPLETED else outcome(self._specs[task_id], attempt)
        match what:
            case Outcome.RETRY:
                self._record(task_id, ev.TaskRetried(f"{attempt.reason}: tried again by its retry policy"))
                self._ready.append(task_id)
            case Outcome.DECIDE:
                self.undecided.add(task_id)
            case Outcome.DONE | Outcome.BLOCKED:
                self._pass_on(task_id, ok=what is Outcome.DONE)
        return what

    def _pass_on(self, task_id: str, *, ok: bool) -> None:
        """Let dependents start, or fail; a failure runs down the graph without recursion."""
        todo = [(task_id, ok)]
        while todo:
            source, went_well = todo.pop()
            for dependent, ready in self._schedule.settle(source, ok=went_well):
                if self.attempts[dependent].state is not PENDING:
                    continue
                if ready:
                    self._ready.append(dependent)
                else:
                    self._record(dependent, ev.TaskFailed(Reason.DEPENDENCY_FAILED, detail=f"task {source!r} failed"))
                    todo.append((dependent, self._specs[dependent].allow_failure))

    def _submit_ready(self) -> None:
        if self.stopping:
            return
        slots = self._worker.backend.slots
        room = BLOCK if slots is None else slots + AHEAD - len(self._live)
        block: list[tuple[Submission, Upstream]] = []
        while self._ready and len(block) < room:
            task_id = self._ready.popleft()
            attempt = self.attempts[task_id]
            if attempt.state is PENDING and not attempt.live and not attempt.dropped:
                # A token without a request is that of an attempt proved absent: it is the same attempt still.
                number = attempt.number if attempt.token else attempt.number + 1
                name = token(self.facts.journal_id, self.facts.key, task_id, number)
                event = ev.SubmitRequested(number, name, self.facts.boot)
                block.append(self._submission(task_id, self._record(task_id, event)))
                self._live.add(task_id)
        if block:
            self._effects.append(lambda: self._worker.submit(block))

    def _submission(self, task_id: str, attempt: Attempt, *, doubtful: bool = False) -> tuple[Submission, Upstream]:
        task = self._specs[task_id]
        upstream: dict[str, str] = {}
        for source in task.files.values():
            if isinstance(source, OutputRef):
                upstream[source.task_id] = self.attempts[source.task_id].job_id or ""
        digests = self._specs.digests(task_id) if task.files else {}
        submission = Submission(task, self.facts.run, attempt.number, attempt.token, digests, doubtful)
        return submission, upstream

    def _resume(self, task_id: str, attempt: Attempt) -> None:
        self._live.add(task_id)
        if attempt.job_id is not None and attempt.state is RUNNING:
            self._follow(task_id, attempt.job_id)
        elif self._worker.backend.idempotent:
            if attempt.job_id is not None:
                self._by_job[attempt.job_id] = task_id
            # An intent of an earlier boot may have been carried out and its traces lost with the machine.
            submission = self._submission(task_id, attempt, doubtful=attempt.boot != self.facts.boot)
            self._effects.append(lambda: self._worker.submit([submission]))
            if attempt.cancel_requested and attempt.job_id is not None:
                self._effects.append(lambda: self._cancel_job(attempt))
        elif attempt.job_id is not None:
            self._follow(task_id, attempt.job_id)
        else:
            self._fail(
                task_id,
                ev.TaskFailed(
                    Reason.LOST,
                    detail="the controller ended while it was submitted, and this backend cannot tell whether it was",
                ),
            )

    def _follow(self, task_id: str, job_id: str) -> None:
        self._by_job[job_id] = task_id
        self._effects.append(lambda: self._worker.follow([job_id]))
        if self.attempts[task_id].cancel_requested:
            self._effects.append(lambda: self._worker.cancel([job_id]))

    def _cancel_job(self, attempt: Attempt) -> None:
        if attempt.job_id is not None:
            self._worker.cancel([attempt.job_id])
