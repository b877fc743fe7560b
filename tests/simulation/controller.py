"""One process of MatterStack, taken step by step: its engine's turns and its worker's rounds are events."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from journal import Journal, LeaseHeld, LeaseLost, NewEvent
from matterstack.core import events as ev
from matterstack.core.schedule import Schedule
from matterstack.errors import RunBusy
from matterstack.runtime.backends.hpc import SlurmBackend
from matterstack.runtime.drive import Driver
from matterstack.runtime.engine import Engine
from matterstack.runtime.offers import RunFacts
from matterstack.runtime.projections import TaskTables
from matterstack.runtime.specs import JournalSpecs
from matterstack.runtime.state import load_attempts
from matterstack.runtime.worker import BACKOFF_MAX_S, BackendWorker
from matterstack.runtime.workers import Lane, Workers
from simulation.network import SimulatedTransport

if TYPE_CHECKING:
    from simulation.world import World

_TTL_S = 60.0
_IDLE_S = 20.0  # between two turns of an engine that is not woken; in truth half a second


class Crash(BaseException):
    """The end of a controller; nothing of it survives this."""


class Ordered(dict):
    """A set whose order is that of its making, so that a seed replays whatever the hashes are."""

    def add(self, one):
        self[one] = None

    def discard(self, one):
        self.pop(one, None)

    def update(self, more):
        super().update(dict.fromkeys(more))

    def difference_update(self, less):
        for one in less:
            self.pop(one, None)


class SteppedBackend(SlurmBackend):
    """Does not wait: it says for how long it would."""

    stepped: SteppedWorker

    def wait(self, timeout_s, interrupted):
        self.stepped.backoff_s = 0.0
        if not interrupted.is_set():
            self.stepped.rest(timeout_s)


class SteppedWorker(BackendWorker):
    """Its thread's loop, one round at a time."""

    def __init__(self, backend, wake):
        super().__init__(backend, wake)
        self._live = Ordered()
        self.ended = False
        self.rest_s = self.backoff_s = 0.0
        self.pausing = False

    def start(self):
        """Do nothing: the simulation takes the steps."""

    def stop(self):
        self.ended = True

    def ask_to_stop(self):
        self.ended = True

    def rest(self, seconds, *, pausing=False):
        self.rest_s, self.pausing = seconds, pausing
        self._stopping = True

    def _pause(self, _seconds):
        self.backoff_s = min(max(2 * self.backoff_s, 1.0), BACKOFF_MAX_S)
        self.rest(self.backoff_s, pausing=True)
        self._hurry = False

    @property
    def roused(self):
        """Whether it would not go on resting."""
        return self._hurry if self.pausing else self._interrupted.is_set()

    def round(self):
        """Work until it would rest."""
        self._stopping = False
        self._run()


class Controller:
    """One process. ``dead``: killed, or ended by itself."""

    def __init__(self, world: World, number: int, host: int) -> None:
        self.world, self.number, self.host = world, number, host
        self.timeline, self.chance = world.timeline, world.chance
        self.dead = self.finished = False
        self.busy = False  # its worker is within a step
        self.stopped_until = 0.0
        self.seen: dict[str, object] = {}
        self._planned = self._worker_wake = 0
        self._turn_at = float("inf")

    # ---- being alive --------------------------------------------------------------------------------

    def survive(self) -> None:
        """Return while the process lives; one that is stopped waits."""
        if not self.dead and self.timeline.now < self.stopped_until:
            self.timeline.wait(self.stopped_until - self.timeline.now)
        if self.dead:
            raise Crash
        self.world.host = self.host

    def kill(self, why: str = "killed") -> None:
        if not self.dead:
            self.world.trace("controller", self.number, why)
            self.dead = True
            self.world.gone(self)

    def point(self) -> None:
        """Die here, if it is the time."""
        if self.world.faults.dies_now():
            self.kill("dies at a commit")
        if self.dead:
            raise Crash

    # ---- starting -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the journal, take the lease, take the run up."""
        world = self.world
        self.world.host = self.host
        self.journal = Journal.open(world.path, projections=[TaskTables()], now=world.clock_us)
        self._watch_appends()
        try:
            self.lease = self.journal.acquire(
                world.run_id, owner={"controller": self.number}, ttl_s=_TTL_S, is_dead=world.is_dead
            )
        except LeaseHeld:
            self.kill("finds the run held")
            return
        world.trace("controller", self.number, "takes the run")
        world.holder = self.number
        self._guarded(self._take_up)

    def _take_up(self) -> None:
        world, run = self.world, self.world.run_id
        started = ev.RunStarted(f"host{self.host}", self.number, "boot", "0", {})
        self._append(started)
        backend = SteppedBackend(
            None,
            "/w",
            {"requeue": world.plan.requeue, "arrays": world.plan.arrays},
            results_root=world.path.parent,
            retrieve="none",
            max_array=world.plan.max_array,
        )
        backend.transport = backend._remote.transport = SimulatedTransport(world, self)
        wake = threading.Event()
        self.worker = backend.stepped = SteppedWorker(backend, partial(self._woken, wake))
        workers = Workers(Lane("", self.worker, world.plan.retry))
        specs = JournalSpecs(self.journal, run)
        ((key,),) = self.journal.query("SELECT key FROM runs WHERE run = ?", (run,))
        self.engine = Engine(
            RunFacts(self.journal.id, run, key, "boot", fail_fast=False),
            specs,
            load_attempts(self.journal, run),
            self._schedule(specs),
            world.writer(self.journal, run, self.lease, self._between),
            workers,
        )
        self.driver = Driver(
            self.engine, workers, self.journal, self.lease, wake, reschedule=lambda: self._schedule(specs)
        )
        self.engine.begin()
        self.driver._requests()
        self._plan_turn(0.01)
        self._plan_round(0.01)

    def _schedule(self, specs: JournalSpecs) -> Schedule:
        rows = self.journal.query(
            "SELECT task FROM tasks WHERE run = ? AND state <> 'COMPLETED' AND NOT dropped", (self.world.run_id,)
        )
        tasks = [task for (task,) in rows]
        return Schedule(specs.needs(tasks), [task for task in tasks if specs[task].allow_failure])

    def _append(self, event: ev.Event) -> None:
        new = NewEvent(type(event).__name__, self.world.run_id, ev.encode(event))
        self.journal.append(self.world.run_id, [new], lease=self.lease)

    def _watch_appends(self) -> None:
        append = self.journal.append

        def watched(stream, events, **more):
            self.point()
            version = append(stream, events, **more)
            self.world.truth.committed(stream, events)
            self.point()
            return version

        self.journal.append = watched

    def _between(self) -> None:
        """Let the worker's thread go on right after an effect, as it may."""
        if self.chance.random() < 0.3 and not self.busy and not self.world.deep:
            self._round()
        self.point()

    # ---- stepping -----------------------------------------------------------------------------------

    def _guarded(self, step) -> None:
        """Take a step, and see to it that errors end the process as they would."""
        if self.dead:
            return
        if self.timeline.now < self.stopped_until:
            self.timeline.after(self.stopped_until - self.timeline.now, lambda: self._guarded(step))
            return
        self.world.host = self.host
        try:
            step()
        except Crash:
            pass
        except (RunBusy, LeaseLost):
            self.kill("finds that another has taken over")

    def _woken(self, wake: threading.Event) -> None:
        wake.set()
        self._plan_turn(self.chance.uniform(0.003, 0.3))

    def _plan_turn(self, delay_s: float) -> None:
        at = self.timeline.now + delay_s
        if at < self._turn_at:
            self._turn_at = at
            self._planned += 1
            number = self._planned
            self.timeline.after(delay_s, lambda: self._guarded(self._turn) if number == self._planned else None)

    def _turn(self) -> None:
        self._turn_at = float("inf")
        driver = self.driver
        driver._turn(0.0)
        if driver._over():
            driver._requests()
            if driver._over():
                self._end()
                return
        self._check()
        self._rouse()
        self._plan_turn(_IDLE_S)

    def _end(self) -> None:
        self._check()
        undecided = bool(self.engine.undecided)
        self._append(ev.RunStopped("paused" if undecided else "finished", {}))
        self.finished = True
        self.world.undecided = set(self.engine.undecided)
        with suppress(LeaseLost):
            self.lease.release()
        self.kill("has finished")

    def _check(self) -> None:
        """Compare what the engine believes with the fold of what is in the journal, where it changed.

        One that was replaced, and does not know yet, believes what was.
        """
        if self.world.holder != self.number:
            return
        truth = self.world.truth.attempts
        for task, attempt in self.engine.attempts.items():
            if self.seen.get(task) is not attempt:
                self.seen[task] = attempt
                if truth[task] != attempt:
                    self.world.truth.violate(f"the engine believes {attempt}, the journal says {truth[task]}")

    def _rouse(self) -> None:
        if self.worker.roused and not self.busy:
            self._plan_round(self.chance.uniform(0.0, 0.05))

    def _plan_round(self, delay_s: float) -> None:
        self._worker_wake += 1
        number = self._worker_wake

        def due() -> None:
            if number != self._worker_wake or self.busy or self.dead:
                return
            if self.world.deep:
                self.timeline.after(1.0, due)
            else:
                self._guarded(self._round)

        self.timeline.after(delay_s, due)

    def _round(self) -> None:
        """Let the worker work until it rests; other things happen while it waits for answers."""
        if self.busy:
            return
        self.busy = True
        self.world.depth += 1
        try:
            self.worker.round()
        finally:
            self.busy = False
            self.world.depth -= 1
        if self.dead:
            raise Crash
        self._plan_round(0.0 if self.worker.roused else self.worker.rest_s)
