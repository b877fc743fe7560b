"""Everything of one seed, put together, and driven to its end."""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
import threading
import time as real_time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from msgspec import Struct, field

import journal.store
from journal import Journal
from matterstack import Task, Workflow
from matterstack.core import events as ev
from matterstack.core.attempt import Attempt, fold
from matterstack.core.workflow import RETRIES
from matterstack.errors import BackendBroken
from matterstack.runtime import accounts, drive, prepare, worker
from matterstack.runtime.backends.hpc import backend, look_up, monitoring, submitting, waits
from matterstack.runtime.projections import TaskTables
from matterstack.runtime.specs import WorkflowSpecs
from matterstack.runtime.state import load_attempts
from matterstack.runtime.writer import InlineWriter
from simulation.controller import Controller
from simulation.faults import Faults
from simulation.files import Files
from simulation.slurm import MAX_ID, Slurm
from simulation.timeline import EPOCH, Timeline, Violation
from simulation.truth import Truth

TASKS = 30
FAULTS_S = 7200.0  # for so long, at most, things go wrong
REST_S = 86400.0  # until then everything has to be settled
_DEEP = 4
_MODULES = (worker, accounts, submitting, monitoring, look_up, backend, drive, journal.store)


class Plan(Struct):
    """What a seed's cluster and campaign are like."""

    accounting: bool
    accounting_lag_s: float
    min_job_age_s: float
    queue_s: float
    first_id: int
    submit_limit: int
    visible_s: float
    host_skew_s: float
    node_skew_s: float
    server_skew_s: float
    requeue: bool
    arrays: bool
    max_array: int
    retry: str
    prompt_s: float


class Outcome(Struct):
    """What came of a seed. ``violation`` is empty where all held."""

    seed: int
    violation: str
    faults: dict[str, int]
    controllers: int
    simulated_s: float
    seconds: float
    events: int
    ends: dict[str, int]
    digest: str
    trace: list[str] = field(default_factory=list)


def _plan(chance: random.Random, *, faults: bool) -> Plan:
    pick = chance.choice
    settle_s = waits.Waits().settle_s
    server_skew_s = pick([0.0, 0.0, -3.0, 3.0]) if faults else 0.0
    return Plan(
        accounting=chance.random() < 0.8 or not faults,
        accounting_lag_s=pick([1.0, 5.0, 60.0]) if faults else 1.0,
        min_job_age_s=pick([2.0, 60.0, 300.0]),
        queue_s=pick([2.0, 60.0, 900.0]),
        first_id=pick([1, 500, MAX_ID - 20]),
        submit_limit=pick([0, 0, 0, 8]) if faults else 0,
        visible_s=pick([0.0, 0.0, 5.0, 60.0]) if faults else 0.0,
        host_skew_s=pick([0.0, 3600.0, -3600.0]) if faults else 0.0,
        node_skew_s=pick([0.0, 3600.0, -3600.0]) if faults else 0.0,
        server_skew_s=server_skew_s,
        requeue=pick([False, True]),
        arrays=pick([False, True, True]),
        max_array=pick([2, 5, 1000]),
        retry=pick(RETRIES),
        prompt_s=settle_s - max(server_skew_s, 0.0) - 2.0,
    )


class _Clock:
    """Stands for the module ``time`` in modules under test."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return 1000.0 + self._world.timeline.now

    def time(self) -> float:
        return self._world.clock_us() / 1e6

    def time_ns(self) -> int:
        return self._world.clock_us() * 1000

    def sleep(self, _seconds: float) -> None:
        """Do nothing: turns have times of their own."""


class _Chance(random.Random):
    """A seed's chance for the thread that simulates; others, such as connections that tests left, have their own."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._thread, self._others = threading.get_ident(), random.Random()

    def random(self) -> float:
        return super().random() if threading.get_ident() == self._thread else self._others.random()

    def randbytes(self, n: int) -> bytes:
        return super().randbytes(n) if threading.get_ident() == self._thread else self._others.randbytes(n)


class _Followed:
    """A writer behind each of whose effects something else may happen."""

    def __init__(self, writer: InlineWriter, between: Callable[[], None]) -> None:
        self._writer, self._between = writer, between

    def write(self, facts, effects) -> None:
        self._writer.write(facts, [lambda effect=effect: self._follow(effect) for effect in effects])

    def _follow(self, effect: Callable[[], None]) -> None:
        effect()
        self._between()


class World:
    """One seed's."""

    run_id = "run"

    def __init__(self, seed: int, tasks: int, path: Path, *, faults: bool, writer=InlineWriter) -> None:
        self.chance = random.Random(seed)
        self.seed, self.path, self._writer = seed, path, writer
        self.timeline = Timeline()
        self.plan = _plan(self.chance, faults=faults)
        self.files = Files(self.timeline)
        self.slurm = Slurm(self)
        self.truth = Truth(self)
        self.faults = Faults(self, active=faults)
        self.controllers: list[Controller] = []
        self.undecided: set[str] = set()
        self.holder: int | None = None  # the controller that took the run last
        self.host = self.depth = 0
        self.log: list[tuple[float, tuple[object, ...]]] = []
        self.campaign = _campaign(self.chance, tasks)

    def trace(self, *words: object) -> None:
        self.log.append((self.timeline.now, words))

    def clock_us(self) -> int:
        """Return the time by the clock of the controllers' host that is at work."""
        skew_s = self.plan.host_skew_s if self.host == 0 else 0.0
        return int((EPOCH + self.timeline.now + skew_s) * 1e6)

    @property
    def deep(self) -> bool:
        """Whether too many controllers wait for answers within one another."""
        return self.depth >= _DEEP

    # ---- controllers --------------------------------------------------------------------------------

    def alive(self) -> list[Controller]:
        return [controller for controller in self.controllers if not controller.dead]

    def is_dead(self, owner) -> bool | None:
        controller = self.controllers[owner["controller"]]
        return controller.dead if controller.host == self.host else None

    def add_controller(self) -> None:
        if not self.over:
            controller = Controller(self, len(self.controllers), self.chance.choice([0, 0, 1]))
            self.controllers.append(controller)
            controller._guarded(controller.start)

    def gone(self, controller: Controller) -> None:
        """Start another one after a while, unless the run is over."""
        if not self.over and not self.alive():
            self.timeline.after(self.chance.uniform(0.1, 200), lambda: self.alive() or self.add_controller())

    @property
    def over(self) -> bool:
        return self.faults.over and any(one.finished for one in self.controllers[-1:])

    def writer(self, opened, run, lease, between):
        """Return a writer whose effects other threads may be faster than."""
        return _Followed(self._writer(opened, run, lease), between)

    # ---- the campaign -------------------------------------------------------------------------------

    def payload(self, directory: str) -> tuple[float, int]:
        """Return how long an attempt's command takes and how it ends."""
        chance = random.Random(f"{self.seed}/{directory}")
        seconds = chance.choice([chance.uniform(1, 30), chance.uniform(30, 600), chance.uniform(600, 3000)])
        return seconds, chance.choice([0] * 9 + [1, 3, 75, 137])

    def campaign_needs(self, task: str):
        return self.campaign[task].needs()

    def prepare(self) -> None:
        """Record the campaign."""
        with Journal.open(self.path, projections=[TaskTables()], now=self.clock_us) as opened:
            lease = opened.acquire(self.run_id, owner={"controller": -1})
            specs = WorkflowSpecs(self.campaign)
            plan = prepare.make_plan(opened, self.run_id, self.campaign, specs, self.campaign.dependencies())
            prepare.record_plan(opened, self.run_id, "run", plan, lease, {})
            lease.release()
        for task in self.campaign:
            self.truth.attempts[task.task_id] = Attempt(task.task_id)

    # ---- the whole ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Let it all happen.

        Raises:
            Violation: Something that is promised does not hold.
        """
        self.prepare()
        self.faults.begin()
        self.add_controller()
        timeline = self.timeline
        timeline.after(FAULTS_S, lambda: None)
        timeline.until(lambda: timeline.now >= FAULTS_S or self.faults.over or self._settled())
        self.faults.heal()
        if not self.over and not self.alive():
            self.add_controller()
        end = timeline.now + REST_S
        timeline.after(REST_S, lambda: None)
        timeline.until(lambda: self.over or timeline.now >= end)
        if not self.over:
            self.truth.violate("the run does not come to its end: " + self._open())
        self.truth.at_rest(self.undecided)
        self._drain()
        self._check_journal()
        if timeline.violation:
            raise Violation(timeline.violation)

    def _settled(self) -> bool:
        return bool(self.controllers) and self.controllers[-1].finished

    def _open(self) -> str:
        tasks = [f"{a.task_id} {a.state} {a.stage} {a.detail}" for a in self.truth.attempts.values() if a.live]
        return "; ".join(tasks[:5])

    def _drain(self) -> None:
        """Let what is left in the queue end by itself; it must, and nothing of it may begin a command."""
        timeline, slurm = self.timeline, self.slurm
        starts = sum(map(len, self.truth.starts.values()))
        end = timeline.now + REST_S
        timeline.after(REST_S, lambda: None)
        timeline.until(lambda: timeline.now >= end or not any(job.live for job in slurm.jobs.values()))
        left = [job.shown for job in slurm.jobs.values() if job.live]
        if left:
            self.truth.violate(f"jobs are left in the queue: {left}")
        if sum(map(len, self.truth.starts.values())) > starts:
            self.truth.violate("a command began after its run was over")

    def _check_journal(self) -> None:
        with Journal.open(self.path, projections=[TaskTables()], read_only=True, create=False) as opened:
            report = opened.verify()
            if not report.ok:
                self.truth.violate(f"the journal does not verify: {report.problems}")
            known = load_attempts(opened, self.run_id)
            by_task: dict[str, list[ev.Event]] = {task: [] for task in known}
            for record in opened.read(self.run_id):
                task = record.subject.partition("/")[2]
                if task:
                    by_task[task].append(ev.decode(record.type, record.data))
            for task, attempt in known.items():
                if not attempt == fold(task, by_task[task]) == self.truth.attempts[task]:
                    self.truth.violate(f"the journal's table has {attempt}, its events give another")


def _campaign(chance: random.Random, tasks: int) -> Workflow:
    """Return tasks with some dependencies among them, a few limits and policies."""
    flow = Workflow("run")
    for number in range(tasks):
        earlier = list(flow.tasks)[-12:]
        needs = chance.sample(earlier, min(len(earlier), chance.choice([0, 0, 1, 2])))
        flow.add(
            Task(
                "true",
                f"t{number}",
                dependencies=needs,
                retry=chance.choice(RETRIES),
                max_attempts=chance.choice([1, 2, 3]),
                time_limit_minutes=chance.choice([None, None, 5, 60]),
                allow_failure=chance.random() < 0.2,
            )
        )
    return flow


@contextmanager
def virtual(world: World) -> Iterator[None]:
    """Give the modules under test the world's clock and chance."""
    clock, chance = _Clock(world), _Chance(world.seed)
    with mock.patch.multiple(worker, random=chance), mock.patch("os.urandom", chance.randbytes):
        patches = [mock.patch.object(module, "time", clock) for module in _MODULES]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


def simulate(
    seed: int, tasks: int = TASKS, *, faults: bool = True, trace: bool = False, writer=InlineWriter
) -> Outcome:
    """Return what came of a seed."""
    began = real_time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="ms-simulation-", dir=_fast()))
    try:
        world = World(seed, tasks, place / "j.db", faults=faults, writer=writer)
        violation = ""
        with virtual(world):
            try:
                world.run()
            except Violation as found:
                violation = str(found)
            except BackendBroken as broken:  # a violation that a worker met is told by its engine
                violation = world.timeline.violation or f"a controller broke: {broken.__cause__!r}"
            finally:
                for controller in world.controllers:
                    controller.journal.close()
    finally:
        shutil.rmtree(place)
    lines = [f"{at:10.2f} {' '.join(map(str, words))}" for at, words in world.log]
    ends: dict[str, int] = {}
    for attempt in world.truth.attempts.values():
        end = attempt.reason or str(attempt.state)
        ends[end] = ends.get(end, 0) + 1
    return Outcome(
        seed,
        violation,
        dict(world.faults.counts),
        len(world.controllers),
        world.timeline.now,
        real_time.monotonic() - began,
        world.truth.events,
        ends,
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        lines if trace else [],
    )


def _fast() -> str | None:
    """Return a directory in memory, where there is one."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() else None
