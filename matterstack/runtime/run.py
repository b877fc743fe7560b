"""Starting, resuming and changing runs: puts journal, backend and engine together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from journal import Journal, JournalError, Lease, LeaseLost, NewEvent
from matterstack import __version__
from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.machine import FAILED, State
from matterstack.core.notices import ON, RUN_FINISHED, of_run
from matterstack.core.policy import UNDECIDED
from matterstack.core.schedule import Schedule
from matterstack.core.workflow import Workflow
from matterstack.errors import MatterStackError, RunBusy, RunError, UnknownName
from matterstack.runtime import outputs
from matterstack.runtime.backends.local import processes
from matterstack.runtime.budget import Budget, budget_of, load_meter, load_spending
from matterstack.runtime.drive import Driver, Observer
from matterstack.runtime.engine import Engine
from matterstack.runtime.notices import load_notices, telling
from matterstack.runtime.offers import RunFacts, Specs
from matterstack.runtime.opening import chosen_run, open_journal, take_lease
from matterstack.runtime.owed import is_owed, take_over
from matterstack.runtime.prepare import Plan, checked_run_id, make_plan, record_plan, refuse_live, wished
from matterstack.runtime.requests import Inbox, user
from matterstack.runtime.result import WorkflowResult
from matterstack.runtime.settings import Settings, check_files, lanes_of, place_of
from matterstack.runtime.specs import JournalSpecs, WorkflowSpecs
from matterstack.runtime.state import load_attempts, load_counts
from matterstack.runtime.writer import InlineWriter, taken_over


class Options(Struct, kw_only=True):
    """How to drive a run. See `matterstack.api.run_workflow` for what each means."""

    fail_fast: bool = False
    replace: bool = False
    rerun: Sequence[str] = ()
    retry_failed: bool = False
    retry_interrupted: bool = False
    retry: Sequence[str] = ()
    cancel: Sequence[str] = ()
    only_cancel: bool = False
    budget: float | None = None
    observe: Observer | None = None
    announce: Callable[[str], None] | None = None
    ask: Callable[[], bool] | None = None


def run(workflow: Workflow, path: Path, settings: Settings, run_id: str | None, options: Options) -> WorkflowResult:
    """Return the results after driving the workflow as far as it goes; what is done already stays done.

    Raises:
        WorkflowError, SpecError, RunError: It cannot be run as it is; nothing was started.
        RunBusy: Another controller drives the run.
        JournalError: The journal cannot be opened or written.
        KeyboardInterrupt: It was interrupted; running tasks go on.
    """
    run_id = checked_run_id(workflow, run_id, options.rerun)
    needs = workflow.dependencies()
    settings = settings.with_budget(options.budget)
    check_files(workflow, settings)
    specs = WorkflowSpecs(workflow)
    with open_journal(path) as journal:
        session = _Session(journal, path, run_id, settings, options)
        before = journal.head(run_id).version

        def planned() -> Plan:
            return make_plan(journal, run_id, workflow, specs, needs, rerun=options.rerun)

        plan = planned()
        if before and not plan.facts and session.nothing_to_do():
            session.tell_the_rest()
            return session.result()
        with session.held():
            if journal.head(run_id).version != before:
                plan = planned()
            if plan.in_the_way:
                plan = session.clear_the_way(plan, planned)
            if before and options.announce is not None and plan.facts:
                options.announce(plan.summary())
            record_plan(journal, run_id, workflow.name or run_id, plan, session.lease, settings.profile)
            tolerant = {task.task_id for task in workflow if task.allow_dependency_failure}
            session.drive(specs, lambda: Schedule(needs, tolerant))
        return session.result()


def resume(
    run_id: str | None,
    path: Path,
    settings: Callable[[Mapping[str, Any], Mapping[str, Any]], Settings],
    options: Options,
) -> WorkflowResult:
    """Return the results after going on with a run from its journal alone.

    Args:
        run_id: The run; None for the newest.
        path: Its journal, which must exist.
        settings: Gives the backends for the profile of the run and those of its tasks that the journal remembers.
        options: See `Options`.

    Raises:
        UnknownName: There is no such run, or no such task to retry or cancel.
        RunBusy, JournalError, KeyboardInterrupt: As for `run`.
    """
    with open_journal(path, create=False) as journal:
        run_id = chosen_run(journal, run_id)
        ((profile, others),) = journal.query("SELECT profile, profiles FROM runs WHERE run = ?", (run_id,))
        chosen = settings(ev.profile_of(profile), ev.profile_of(others)).with_budget(options.budget)
        session = _Session(journal, path, run_id, chosen, options)
        if session.nothing_to_do():
            session.tell_the_rest()
        else:
            with session.held():
                specs = JournalSpecs(journal, run_id)
                session.drive(specs, lambda: _schedule(journal, run_id, specs))
        return session.result()


def _schedule(journal: Journal, run_id: str, specs: JournalSpecs) -> Schedule:
    rows = journal.query("SELECT task FROM tasks WHERE run = ? AND state <> 'COMPLETED' AND NOT dropped", (run_id,))
    open_tasks = [task for (task,) in rows]
    tolerant = [task for task in open_tasks if specs[task].allow_dependency_failure]
    return Schedule(specs.needs(open_tasks), tolerant)


class _Session:
    """One controller's hold on one run."""

    lease: Lease

    def __init__(self, journal: Journal, path: Path, run: str, settings: Settings, options: Options) -> None:
        self._journal, self._path, self._run = journal, path, run
        self._settings, self._options = settings, options

    def nothing_to_do(self) -> bool:
        """Return whether the run, as recorded, is over, nothing more was asked and its accounts are complete."""
        options = self._options
        if options.retry or options.cancel:
            self._check_names([*options.retry, *options.cancel])
        counts = load_counts(self._journal, self._run)
        wishes = options.retry_failed or options.retry_interrupted or options.retry
        if Inbox(self._journal, self._run).waiting():
            return False
        ((stopped_at,),) = self._journal.query("SELECT stopped_at FROM runs WHERE run = ?", (self._run,))
        if RUN_FINISHED in self._on and stopped_at is None:  # its controller died before it could say so
            return False
        if counts[State.PENDING] or counts[State.RUNNING] or (wishes and counts[FAILED]):
            return False
        return not is_owed(self._journal, self._run, [settings.backend for settings in self._settings.each()])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's lease."""
        self.lease = take_lease(self._journal, self._run)
        try:
            yield
        except LeaseLost as error:
            raise taken_over(self._run) from error
        finally:
            with suppress(LeaseLost):  # then there is nothing to release
                self.lease.release()
            for settings in self._settings.each():
                settings.backend.release()

    def clear_the_way(self, plan: Plan, again: Callable[[], Plan]) -> Plan:
        """Cancel the live tasks that a changed workflow replaces, wait for their end, and plan anew."""
        if not self._options.replace:
            raise refuse_live(self._run, plan.in_the_way)
        specs = JournalSpecs(self._journal, self._run)
        options = Options(
            cancel=plan.in_the_way, only_cancel=True, observe=self._options.observe, ask=self._options.ask
        )
        self._drive(specs, lambda: _schedule(self._journal, self._run, specs), options)
        plan = again()
        if plan.in_the_way:
            raise refuse_live(self._run, plan.in_the_way)
        return plan

    def drive(self, specs: Specs, schedule: Callable[[], Schedule]) -> None:
        """Drive the run as far as it goes."""
        self._drive(specs, schedule, self._options)

    def _drive(self, specs: Specs, schedule: Callable[[], Schedule], options: Options) -> None:
        journal, run = self._journal, self._run
        attempts = load_attempts(journal, run)
        self._check_place(attempts)
        self._started()
        ((key,),) = journal.query("SELECT key FROM runs WHERE run = ?", (run,))
        on = {} if options.only_cancel else self._on
        wake = threading.Event()
        workers = lanes_of(self._settings, wake)
        engine = Engine(
            RunFacts(journal.id, run, key, processes.boot_id(), fail_fast=options.fail_fast, on=on),
            specs,
            attempts,
            schedule(),
            InlineWriter(journal, run, self.lease),
            workers,
            self._budget(attempts, specs),
        )
        self._wishes(engine, options)
        if not options.only_cancel:
            take_over(journal, run, specs, workers)
        with telling(journal, run, on, wake) as notifier:
            driver = Driver(
                engine,
                workers,
                journal,
                self.lease,
                wake,
                reschedule=schedule,
                observe=options.observe,
                ask=options.ask,
                only=set(options.cancel) if options.only_cancel else None,
                notifier=notifier,
            )
            try:
                finished = driver.run()
            except MatterStackError:
                with suppress(LeaseLost, JournalError):  # where it cannot be recorded, the error itself is what counts
                    self._append(
                        ev.RunStopped("stopped by an error", {state.value: n for state, n in engine.counts.items()})
                    )
                raise
            if finished:
                self._record_outputs()
            self._stopped(engine, finished=finished)
            if not finished:
                raise KeyboardInterrupt
            if notifier is not None:
                notifier.finish(self._append, self.lease.renew, wake)

    @property
    def _on(self) -> Mapping[str, str]:
        """Commands by what they tell of."""
        return self._settings.profile.get(ON) or {}

    def tell_the_rest(self) -> None:
        """Tell what an earlier controller of the run, which is over, left untold."""
        if self._on and load_notices(self._journal, self._run, owed=True):
            with suppress(RunBusy), self.held():  # who has it tells it
                wake = threading.Event()
                with telling(self._journal, self._run, self._on, wake) as notifier:
                    assert notifier is not None
                    notifier.finish(self._append, self.lease.renew, wake)

    def _budget(self, attempts: Mapping[str, Attempt], specs: Specs) -> Budget:
        limit = budget_of(settings.profile for settings in self._settings.each())
        return Budget(limit, load_meter(self._journal, self._run, attempts, specs) if limit is not None else None)

    def _record_outputs(self) -> None:
        """Record what completed tasks left; what an impatient Ctrl-C leaves out, ``verify --record-files`` records."""
        with suppress(KeyboardInterrupt):
            outputs.record(
                self._journal, self._run, self.lease, lambda name, job: self._settings.of(name).backend.workdir(job)
            )

    def _check_place(self, attempts: Mapping[str, Attempt]) -> None:
        """Refuse to go on elsewhere than where the run's live attempts are: there they could not be found."""
        ((recorded, others),) = self._journal.query("SELECT profile, profiles FROM runs WHERE run = ?", (self._run,))
        known = {"": ev.profile_of(recorded), **ev.profile_of(others)}
        for profile, settings in known.items():
            there, here = place_of(settings), place_of(self._settings.of(profile).profile)
            live = [a.task_id for a in attempts.values() if a.live and a.profile == profile]
            if live and there and there != here:
                raise RunError(
                    f"run {self._run!r}: {len(live)} tasks are submitted or running in {there!r}, but this is "
                    f"{here or 'another backend'!r}. Nothing was started; use the same workspace_root (is this the "
                    f"directory the run was started in?), or go on with `matterstack resume {self._run}`."
                )

    def _check_names(self, tasks: Sequence[str]) -> None:
        known = [task for (task,) in self._journal.query("SELECT task FROM tasks WHERE run = ?", (self._run,))]
        for task in tasks:
            if task not in known:
                raise UnknownName("task", task, known, f"Run {self._run!r} is unchanged")

    def _wishes(self, engine: Engine, options: Options) -> None:
        known = engine.attempts.values()
        chosen = {*options.retry, *wished(known, failed=options.retry_failed, interrupted=options.retry_interrupted)}
        if chosen:
            engine.retry(chosen, "asked for")
        if options.cancel:
            engine.cancel(options.cancel, "asked for")

    def _started(self) -> None:
        profile = dict(self._settings.profile)
        others = {name: dict(settings.profile) for name, settings in self._settings.others.items()}
        event = ev.RunStarted(processes.host(), os.getpid(), processes.boot_id(), __version__, profile, others, user())
        self._append(event)

    def _stopped(self, engine: Engine, *, finished: bool) -> None:
        why, detail = "interrupted", ""
        if finished:
            why = "paused" if engine.undecided else "finished"
            if engine.held_back:
                why, detail = "budget", str(engine.budget.over)
        stopped = ev.RunStopped(why, {state.value: n for state, n in engine.counts.items()}, detail)
        due = of_run(engine.facts.on, why, detail, engine.counts)
        self._append(*filter(None, [stopped, due]))

    def _append(self, *events: ev.Event) -> None:
        records = [NewEvent(type(event).__name__, self._run, ev.encode(event)) for event in events]
        self._journal.append(self._run, records, lease=self.lease)

    def result(self) -> WorkflowResult:
        """Return the results as the journal has them now."""
        attempts = load_attempts(self._journal, self._run) if load_counts(self._journal, self._run)[FAILED] else None
        failed = [a for a in (attempts or {}).values() if a.state is FAILED and not a.dropped]
        specs = JournalSpecs(self._journal, self._run) if failed else None
        path, run = self._path, self._run

        def load() -> Mapping[str, Any]:
            if attempts is not None:
                return attempts
            with open_journal(path, create=False, read_only=True) as journal:
                return load_attempts(journal, run)

        return WorkflowResult(
            run,
            path,
            load_counts(self._journal, run),
            load,
            lambda profile: self._settings.of(profile).backend,
            budget=load_spending(self._journal, run),
            undecided=tuple(a.task_id for a in failed if a.reason in UNDECIDED),
            tolerated=all(specs is not None and specs[a.task_id].allow_failure for a in failed),
        )
