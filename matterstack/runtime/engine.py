"""The engine: the only writer of a run's events. One thread that decides; it never waits for a backend."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial

from msgspec.structs import replace

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt, evolve
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING, Reason, State
from matterstack.core.notices import of_task
from matterstack.core.policy import Outcome, outcome
from matterstack.core.reconcile import interpret
from matterstack.core.schedule import Schedule
from matterstack.core.token import array_token
from matterstack.errors import BackendBroken, MatterStackError
from matterstack.runtime.budget import Budget
from matterstack.runtime.offers import RunFacts, Specs, freed_by, intent, make_offer, untraceable
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
    Stalled,
    Submitted,
    Trouble,
    Used,
    Withdrawn,
)
from matterstack.runtime.workers import Lane, Workers
from matterstack.runtime.writer import Effect, Writer


class Engine:
    """Drives one run: takes what the backend reports, records what follows, releases what comes next.

    Args:
        facts: The run.
        specs: Its tasks.
        attempts: What is known of each, in the order of the workflow.
        schedule: Their dependencies, nothing of them settled yet.
        writer: Where events go.
        workers: The backends' workers.
        budget: What the run may use.
    """

    def __init__(
        self,
        facts: RunFacts,
        specs: Specs,
        attempts: Mapping[str, Attempt],
        schedule: Schedule,
        writer: Writer,
        workers: Workers,
        budget: Budget | None = None,
    ) -> None:
        self.facts, self._specs, self._schedule = facts, specs, schedule
        self._writer, self._workers, self.budget = writer, workers, budget or Budget()
        self.attempts = dict(attempts)
        self.counts = dict.fromkeys(State, 0)
        for attempt in self.attempts.values():
            self.counts[attempt.state] += not attempt.dropped
        self.undecided: set[str] = set()
        self.stopping = False
        self._live: dict[str, Lane] = {}
        self._by_job: dict[str, str] = {}
        self._pending_facts: list[tuple[str, ev.Event]] = []
        self._effects: list[Effect] = []

    @property
    def live(self) -> int:
        """Number of attempts that a backend has, or is about to get."""
        return len(self._live)

    @property
    def done(self) -> bool:
        """Whether nothing is left that this engine could do or wait for."""
        ready = any(lane.ready for lane in self._workers)
        return not self._live and not self._workers.withdrawing and (not ready or self.stopping)

    @property
    def held_back(self) -> bool:
        """Whether tasks that could start do not, since the budget is used up."""
        waiting = any(self.attempts[task_id].may_start for lane in self._workers for task_id in lane.ready)
        return waiting and self.budget.over is not None

    @property
    def trouble(self) -> str:
        """Why a backend cannot be asked, or takes or gets nothing now; empty where all is well."""
        told = [lane.trouble or lane.held or lane.notice for lane in self._workers]
        return "; ".join(filter(None, [*told, str(self.budget.over or "")]))

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
        for lane in self._workers:
            for report in lane.worker.collect():
                self._take(lane, report)
        self._submit_ready()
        self.commit()

    def cancel(self, task_ids: Iterable[str], by: str) -> None:
        """End these tasks: those under way by their backend, those not yet submitted at once."""
        for task_id in task_ids:
            attempt = self.attempts[task_id]
            if attempt.state in (COMPLETED, FAILED) or attempt.cancel_requested or attempt.dropped:
                continue
            attempt = self._record(task_id, ev.CancelRequested(by))
            if task_id in self._live:
                self._cancel_live(attempt)
            elif not attempt.live:  # what is live and not yet taken up is cancelled when it is
                self._fail(task_id, ev.TaskFailed(Reason.CANCELLED, detail="cancelled before it was submitted"))

    def retry(self, task_ids: Iterable[str], why: str) -> None:
        """Put failed tasks, and what failed only because of them, back to PENDING."""
        chosen = {task_id for task_id in task_ids if self.attempts[task_id].state is FAILED}
        freed = freed_by(chosen, self._schedule, self._specs, self.attempts)
        for task_id in [one for one in self.attempts if one in chosen or one in freed]:
            self._record(task_id, ev.TaskRetried(why))
            self.undecided.discard(task_id)

    def restart_schedule(self, schedule: Schedule) -> None:
        """Begin anew with the dependencies, after tasks went back to PENDING; what is live stays so."""
        self._schedule = schedule
        for lane in self._workers:
            lane.ready.clear()
        self._take_stock()

    def _take_stock(self) -> None:
        """Tick off what has ended, and line up what may start. A task that is lined up twice starts once."""
        for task_id, attempt in list(self.attempts.items()):
            if attempt.dropped:
                continue
            if attempt.state in (COMPLETED, FAILED):
                self._settle(task_id, attempt)
            elif not attempt.live and self._schedule.is_ready(task_id):
                self._line_up(task_id)

    def stop(self) -> None:
        """Submit nothing more, and take back what has not started."""
        self.stopping = True
        for lane in self._workers:
            mine = [(job, task_id) for job, task_id in self._by_job.items() if self._live.get(task_id) is lane]
            queued = [job for job, task_id in mine if self.attempts[task_id].state is PENDING]
            lane.withdrawing = True
            self._effects.append(partial(lane.worker.withdraw, queued))

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
        self.budget.take(self._specs, attempt, event)
        return attempt

    def _take(self, lane: Lane, report: Report) -> None:  # noqa: C901, PLR0912  # a case a report
        match report:
            case Seen():
                self._seen(report)
            case Submitted():
                self._submitted(report.task_id, report.job_id)
            case Refused():
                self._record(report.task_id, ev.SubmitRefused(report.detail))
                self._after(report.task_id)
            case InDoubt():
                if not self.attempts[report.task_id].in_doubt:
                    self._record(report.task_id, ev.SubmitUnknown(report.detail))
            case Absent():
                self._absent(report.task_id, report.detail)
            case Stalled():
                self._stalled(report)
            case Used():
                self._record(report.task_id, report.event)
            case Withdrawn():
                self._take_back(lane, report)
            case Held():
                lane.held = report.detail
            case Notice():
                lane.notice = report.detail
            case Trouble():
                self._trouble(lane, report.detail)
            case Crashed():
                self._effects.clear()
                self.commit()  # what was learned before counts
                if isinstance(report.error, MatterStackError):
                    raise report.error
                raise BackendBroken(type(lane.backend).__name__, report.error) from report.error

    def _trouble(self, lane: Lane, detail: str) -> None:
        """Take down that a backend cannot be asked, once, and that it can again."""
        if detail and not lane.trouble:
            self.note(ev.ContactLost(detail, lane.profile))
        elif lane.trouble and not detail:
            self.note(ev.ContactRestored(lane.profile))
        lane.trouble = detail

    def _seen(self, report: Seen) -> None:
        task_id = self._by_job.get(report.job_id)
        if task_id is None:
            return
        for event in interpret(self.attempts[task_id], report.evidence):
            self._record(task_id, event)
        if self.attempts[task_id].requested:
            self._after(task_id)
        else:
            self._effects.append(partial(self._live[task_id].worker.unfollow, [report.job_id]))
            self._drop_live(task_id, report.job_id)
            self._again(task_id)

    def _stalled(self, report: Stalled) -> None:
        attempt = self.attempts.get(self._by_job.get(report.job_id, ""))
        if attempt is not None and attempt.state is PENDING and attempt.stalled != report.reason:
            self._record(attempt.task_id, ev.JobStalled(report.reason, report.since))

    def _absent(self, task_id: str, detail: str) -> None:
        """Take back an intent of which nothing came, and nothing can come."""
        self._drop_live(task_id)
        self._record(task_id, ev.SubmitAbsent(detail))
        self._again(task_id)

    def _again(self, task_id: str) -> None:
        """Submit an attempt once more that was proved not to have started; unless nobody wants it any longer."""
        if self.attempts[task_id].cancel_requested:
            self._fail(task_id, ev.TaskFailed(Reason.CANCELLED, detail="cancelled before it started"))
        else:
            self._line_up(task_id)

    def _submitted(self, task_id: str, job_id: str) -> None:
        self._by_job[job_id] = task_id
        attempt = self.attempts[task_id]
        if attempt.job_id != job_id:
            attempt = self._record(task_id, ev.JobSubmitted(job_id))
        if attempt.cancel_requested:
            self._cancel_live(attempt)

    def _take_back(self, lane: Lane, report: Withdrawn) -> None:
        lane.withdrawing = False
        jobs = [self._by_job[job_id] for job_id in report.job_ids if job_id in self._by_job]  # unless it has ended
        for task_id in (*jobs, *report.task_ids):
            self._absent(task_id, "taken back before it started")

    def _drop_live(self, task_id: str, job_id: str | None = None) -> None:
        """Forget what a backend has of the task."""
        lane = self._live.pop(task_id, None)
        if lane is not None:
            lane.live -= 1
        job_id = job_id or self.attempts[task_id].job_id
        if job_id is not None:
            self._by_job.pop(job_id, None)

    def _make_live(self, task_id: str, lane: Lane) -> None:
        self._live[task_id] = lane
        lane.live += 1

    def _line_up(self, task_id: str) -> None:
        profile = "" if self._workers.alone else self._specs[task_id].profile
        self._workers.of(profile).ready.append(task_id)

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
        self._drop_live(task_id)
        what = self._settle(task_id, attempt)
        if (due := of_task(self.facts.on, attempt, what, self.counts)) is not None:
            self.note(due)
        if what is Outcome.BLOCKED and self.facts.fail_fast:
            self.stop()

    def _settle(self, task_id: str, attempt: Attempt) -> Outcome:
        what = Outcome.DONE
        if attempt.state is not COMPLETED:
            what = outcome(self._specs[task_id], attempt, self._workers.of(attempt.profile).retry)
        match what:
            case Outcome.RETRY:
                self._record(task_id, ev.TaskRetried(f"{attempt.reason}: tried again by its retry policy"))
                self._line_up(task_id)
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
                    self._line_up(dependent)
                else:
                    self._record(dependent, ev.TaskFailed(Reason.DEPENDENCY_FAILED, detail=f"task {source!r} failed"))
                    todo.append((dependent, self._specs[dependent].allow_failure))

    def _submit_ready(self) -> None:
        if not self.stopping and self.budget.reached():
            self.stop()
        if not self.stopping:
            for lane in self._workers:
                if lane.ready and (block := lane.take(lambda one: self.attempts[one].may_start)):
                    self._request(lane, block)

    def _request(self, lane: Lane, task_ids: list[str]) -> None:
        """Record the intent to submit these, with the arrays in which they go, and then offer them."""
        requests = [intent(self.facts, self.attempts[task_id], lane.profile) for task_id in task_ids]
        for positions in lane.backend.arrays([self._specs[task_id] for task_id in task_ids]):
            array = array_token([f"{requests[position].token}.{requests[position].gen}" for position in positions])
            for index, position in enumerate(positions):
                requests[position] = replace(requests[position], array=array, index=index)
        offers = []
        for task_id, request in zip(task_ids, requests, strict=True):
            attempt = self._record(task_id, request)
            self._make_live(task_id, lane)
            offers.append(self._offer(attempt, lane))
        self._effects.append(lambda: lane.worker.submit(offers))

    def _offer(self, attempt: Attempt, lane: Lane, *, doubtful: bool = False) -> Offer:
        return make_offer(self.facts, self._specs, self.attempts, self._workers, attempt, lane, doubtful=doubtful)

    def _resume(self, task_id: str, attempt: Attempt) -> None:
        lane = self._workers.of(attempt.profile)
        self._make_live(task_id, lane)
        queued_there = attempt.job_id is not None and lane.backend.slots is None
        if attempt.job_id is not None and (attempt.state is RUNNING or queued_there):
            self._follow(attempt, attempt.job_id)
        elif lane.backend.idempotent:
            if attempt.job_id is not None:
                self._by_job[attempt.job_id] = task_id
            # An intent of an earlier boot may have been carried out and its traces lost with the machine.
            offer = self._offer(attempt, lane, doubtful=attempt.boot != self.facts.boot)
            offer.made = True
            self._effects.append(lambda: lane.worker.submit([offer]))
            if attempt.cancel_requested and attempt.job_id is not None:
                self._cancel_live(attempt)
        else:
            self._fail(task_id, untraceable())

    def _follow(self, attempt: Attempt, job_id: str) -> None:
        self._by_job[job_id] = attempt.task_id
        lane = self._live[attempt.task_id]
        submission = self._offer(attempt, lane).submission
        self._effects.append(lambda: lane.worker.follow({job_id: submission}))
        if attempt.cancel_requested:
            self._cancel_live(attempt)

    def _cancel_live(self, attempt: Attempt) -> None:
        worker, job_id, task_id = self._live[attempt.task_id].worker, attempt.job_id, attempt.task_id
        end = partial(worker.recall, [task_id]) if job_id is None else partial(worker.cancel, [job_id])
        self._effects.append(end)
