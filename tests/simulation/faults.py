"""What goes wrong, by the seed: some kinds in each seed, so that deep combinations of few come up, too."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from journal import Journal
from matterstack.core import events as ev
from matterstack.core.machine import FAILED
from matterstack.runtime.projections import TaskTables
from matterstack.runtime.requests import ask

if TYPE_CHECKING:
    from simulation.world import World

COMMAND = ("unreachable", "lazy", "twice", "cut", "cut and killed", "lost", "truncated", "doubled", "noise")
EVENTS = (
    *("network down", "slurmctld down", "slurmctld hangs", "slurmctld crash", "slurmdbd down", "answers lost"),
    *("refusal", "disk full", "node failure", "preemption", "requeue", "scancel", "cancelled by Slurm", "strangers"),
    *("controller killed", "controller dies at a commit", "controller stopped", "second controller"),
    *("cancel request", "retry request", "held", "accounting late"),
)


class Faults:
    """Injects, and counts. ``over``: no more of it."""

    def __init__(self, world: World, *, active: bool) -> None:
        self.world, self.chance, self.timeline = world, world.chance, world.timeline
        self.counts: Counter[str] = Counter()
        self.over = not active
        self.unreachable = False
        self._doomed = 0
        kinds = [*COMMAND, *EVENTS]
        share = self.chance.choice([0.15, 0.35, 0.7, 1.0])
        chosen = [kind for kind in kinds if self.chance.random() < share] if active else []
        self.commands = [kind for kind in chosen if kind in COMMAND]
        self.events = [kind for kind in chosen if kind in EVENTS]
        self.rate = self.chance.choice([0.05, 0.2, 0.5])  # of commands that go wrong
        self.every_s = self.chance.choice([60.0, 200.0, 600.0])

    def begin(self) -> None:
        if self.events and not self.over:
            self.timeline.after(self.chance.uniform(0, self.every_s), self._next)

    def _next(self) -> None:
        if not self.over:
            kind = self.chance.choice(self.events)
            self.world.trace("FAULT", kind)
            self.counts[kind] += 1
            getattr(self, f"_{kind.replace(' ', '_')}")()
            self.timeline.after(self.chance.uniform(0, 2 * self.every_s), self._next)

    def of_command(self) -> str:
        """Return what goes wrong with a remote command, mostly nothing."""
        if self.over or not self.commands or self.chance.random() > self.rate:
            return ""
        kind = self.chance.choice(self.commands)
        self.counts[kind] += 1
        self.world.trace("FAULT", kind)
        return kind

    def dies_now(self) -> bool:
        """Return whether the controller dies at this point."""
        if self._doomed:
            self._doomed -= 1
            return self._doomed == 0
        return False

    def heal(self) -> None:
        """Let everything be well from now on."""
        world = self.world
        self.over, self.unreachable, self._doomed = True, False, 0
        world.files.full = False
        world.slurm.refusals.clear()
        world.slurm.lost_answers = 0
        world.slurm.crash_soon(0.0)
        for job in world.slurm.all:
            job.held = False

    # ---- the cluster --------------------------------------------------------------------------------

    def _long(self) -> float:
        return self.chance.choice([self.chance.uniform(1, 60), self.chance.uniform(60, 600), 1500.0])

    def _network_down(self) -> None:
        self.unreachable = True
        self.timeline.after(self._long(), lambda: setattr(self, "unreachable", False))

    def _slurmctld_down(self) -> None:
        self.world.slurm.silence("down", self._long())

    def _slurmctld_hangs(self) -> None:
        self.world.slurm.silence("hung", self._long())

    def _slurmctld_crash(self) -> None:
        crash = self.world.slurm.crash if self.chance.random() < 0.3 else self.world.slurm.crash_soon
        crash(self.chance.uniform(1, 120))

    def _slurmdbd_down(self) -> None:
        accounting = self.world.slurm.accounting
        if not accounting.down:
            accounting.down = True
            self.timeline.after(self._long(), accounting.come_back)

    def _accounting_late(self) -> None:
        self.world.slurm.accounting.late_s = self.chance.choice([2.0, 60.0, 200.0])

    def _answers_lost(self) -> None:
        self.world.slurm.lost_answers = self.chance.randint(1, 3)

    def _refusal(self) -> None:
        words = self.chance.choice(
            ["Invalid account or account/partition combination specified", "Requested time limit is invalid"]
        )
        self.world.slurm.refusals.append(words)
        self.world.truth.refused.add(words)

    def _disk_full(self) -> None:
        self.world.files.full = True
        self.timeline.after(self.chance.uniform(1, 500), lambda: setattr(self.world.files, "full", False))

    def _jobs(self, *words: str) -> list:
        return [job for job in self.world.slurm.jobs.values() if job.now.word in words and job.base]

    def _node_failure(self) -> None:
        for job in self._some("RUNNING"):
            self.world.slurm.fail_node(job, "NODE_FAIL")

    def _preemption(self) -> None:
        for job in self._some("RUNNING"):
            self.world.slurm.fail_node(job, "PREEMPTED")

    def _some(self, *words: str) -> list:
        found = self._jobs(*words)
        return self.chance.sample(found, min(len(found), self.chance.randint(1, 3)))

    def _requeue(self) -> None:
        for job in self._some("RUNNING"):
            self.world.slurm.requeue(job)

    def _scancel(self) -> None:
        self.world.slurm.cancel(self._some("PENDING", "RUNNING"), 1000)

    def _cancelled_by_Slurm(self) -> None:  # noqa: N802  # after the fault's name
        self.world.slurm.cancel(self._some("PENDING"), None)

    def _held(self) -> None:
        for job in self._some("PENDING"):
            job.held = True
            self.timeline.after(self._long(), lambda job=job: setattr(job, "held", False))

    def _strangers(self) -> None:
        for _ in range(self.chance.randint(1, 5)):
            self.world.slurm.stranger()

    # ---- controllers and people ---------------------------------------------------------------------

    def _controller_killed(self) -> None:
        for controller in self.world.alive():
            controller.kill()

    def _controller_dies_at_a_commit(self) -> None:
        self._doomed = self.chance.randint(1, 6)

    def _controller_stopped(self) -> None:
        for controller in self.world.alive()[:1]:
            controller.stopped_until = self.timeline.now + self.chance.uniform(1, 300)

    def _second_controller(self) -> None:
        self.world.add_controller()

    def _ask(self, event, tasks) -> None:
        if tasks:
            with Journal.open(self.world.path, projections=[TaskTables()], now=self.world.clock_us) as journal:
                ask(journal, self.world.run_id, event, tasks)

    def _tasks(self, holds) -> list[str]:
        found = [task for task, attempt in self.world.truth.attempts.items() if holds(attempt)]
        return self.chance.sample(found, min(len(found), self.chance.randint(1, 2)))

    def _cancel_request(self) -> None:
        self._ask(ev.CancelRequested("somebody"), self._tasks(lambda a: a.state not in ("COMPLETED", "FAILED")))

    def _retry_request(self) -> None:
        self._ask(ev.RetryRequested("somebody"), self._tasks(lambda a: a.state is FAILED))
