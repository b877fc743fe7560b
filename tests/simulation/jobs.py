"""A job script on a node, as `job_script` writes it: the run claim, the command, the exit record."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from matterstack.runtime.backends.hpc.layout import read_claim
from simulation.files import DiskFull
from simulation.timeline import EPOCH

if TYPE_CHECKING:
    from simulation.slurm import Job
    from simulation.world import World

# What a script must have for one start to be refused after another.
CLAIM = ('ln "$ms_try" "$ms_claim"', '[ "$ms_x" = "$ms_line" ] || ms_refuse')
REFUSE = '-lt "$ms_restart" ] || ms_refuse'
REFUSED, NO_PLACE, NO_CLAIM, ENDED = 75, 76, 73, 143
_RECORD_TRIES = 300


class Run:
    """One start of a job's script, which lives until it ends or is killed."""

    def __init__(self, world: World, job: Job) -> None:
        self.world, self.job, self.chance = world, job, world.chance
        self.restart = job.now.restarts
        self.over = False
        self.code: int | None = None
        self.term = False
        self.claimed = False
        self.begun = False
        self._wake = 0
        self._steps: Generator[float, None, int] | None = None
        self.meta = self.token = ""
        self.began = 0.0
        self.node = f"n{self.chance.randint(1, 4)}"
        self.skew_s = world.plan.node_skew_s if self.node == "n2" else 0.0

    def begin(self) -> None:
        script = self._script() if self.job.base else self._strangers()
        self._steps = script
        self._go_on(self.chance.uniform(0.05, 2.0))

    def _go_on(self, delay_s: float) -> None:
        self._wake += 1
        wake = self._wake
        self.world.timeline.after(delay_s, lambda: self._step() if wake == self._wake and not self.over else None)

    def _step(self) -> None:
        assert self._steps is not None
        try:
            self._go_on(next(self._steps))
        except StopIteration as done:
            self._finish(done.value)

    def _finish(self, code: int) -> None:
        self.over, self.code = True, code
        self.world.slurm.ended(self.job, self, code)

    def kill(self) -> None:
        """End it at once: nothing more is written."""
        self.over = True

    def near(self) -> None:
        """Take Slurm's warning of the time limit."""
        if self.claimed and not self.over:
            self._write("limit-near", "")

    def terminate(self) -> None:
        """Take a TERM: mostly the end is still written down."""
        if self.over:
            return
        self.term = True
        if self.begun and self.chance.random() < 0.6:
            self._steps = self._record(ENDED)
            self._go_on(self.chance.uniform(0.0, 5.0))

    # ---- the script ---------------------------------------------------------------------------------

    def _strangers(self) -> Generator[float, None, int]:
        yield self.chance.uniform(5, 600)
        return self.chance.choice([0, 1])

    def _script(self) -> Generator[float, None, int]:
        files, job = self.world.files, self.job
        place = files.map_row(job.base, job.index)
        if place is None or not files.is_directory(f"{place[0]}/.matterstack"):
            return NO_PLACE
        directory, self.token = place
        self.meta = f"{directory}/.matterstack"
        self.began = self._clock()
        yield self.chance.uniform(0.0, 0.3)
        code = yield from self._claim()
        if code is not None:
            return code
        self.claimed = True
        yield self.chance.uniform(0.0, 2.0)
        if self.term or files.on_node(f"{self.meta}/cancel") is not None:
            return (yield from self._record(ENDED))
        self.begun = True
        self._write("begun", "")
        self.world.truth.started(self.token, job, self.restart)
        seconds, code = self.world.payload(directory)
        yield seconds
        return (yield from self._record(code))

    def _claim(self) -> Generator[float, None, int | None]:
        files = self.world.files
        name = f"{self.meta}/claim"
        for old in files.names(self.meta, "claim", seen=False):
            claim = read_claim(files.on_node(f"{self.meta}/{old}") or "")
            mine = claim is not None and claim.slurm_id == self.job.shown
            again = self.job.requeue and mine and claim.restart < self.restart
            if not again and REFUSE in self.job.text:
                return self._refuse()
            name = f"{self.meta}/claim.{self.restart}"
        yield self.chance.uniform(0.0, 0.2)
        line = f"ms1 {self.token} {self.job.shown} {self.restart} {self.began:.6f} {self.node} 4711 ."
        delay_s = self.chance.uniform(0, self.world.plan.visible_s)
        try:
            made = files.link(name, line, delay_s)
        except DiskFull:
            return NO_CLAIM
        if not made and all(part in self.job.text for part in CLAIM):
            return self._refuse()
        self.world.truth.claimed(self.token, self.restart, self.world.timeline.now + delay_s)
        if self.restart:
            files.remove(f"{self.meta}/exit")
            self.world.truth.exits.pop(self.token, None)
        return None

    def _refuse(self) -> int:
        self._write("refused", f"{self.job.shown} {self.restart}\n")
        return REFUSED

    def _record(self, code: int) -> Generator[float, None, int]:
        near = self.world.files.on_node(f"{self.meta}/limit-near") is not None
        flags = "limit-near" if near else "-"
        if not self.begun:
            cancelled = self.term or self.world.files.on_node(f"{self.meta}/cancel") is not None
            flags = "-" if cancelled else "setup"
        for _ in range(_RECORD_TRIES):
            line = (
                f"ms1 {self.token} {self.job.shown} {self.restart} {code} {self.began:.6f} {self._clock():.6f} "
                f"{self.node} {flags} ."
            )
            delay_s = self.chance.uniform(0, self.world.plan.visible_s)
            if self._write("exit", line, delay_s):
                self.world.truth.recorded(self.token, self.restart, code, self.world.timeline.now + delay_s)
                break
            yield 1.0
        yield 0.01
        return code

    def _write(self, name: str, text: str, delay_s: float = 0.0) -> bool:
        try:
            self.world.files.write(f"{self.meta}/{name}", text, delay_s)
        except DiskFull:
            return False
        return True

    def _clock(self) -> float:
        return EPOCH + self.world.timeline.now + self.skew_s


Payload = Callable[[str], tuple[float, int]]
