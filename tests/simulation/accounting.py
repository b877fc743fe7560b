"""slurmdbd: late, sometimes down, and with names of its own for what it has just heard of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulation.timeline import EPOCH

if TYPE_CHECKING:
    from simulation.slurm import Job
    from simulation.world import World


class Row:
    """One start of a job."""

    def __init__(self, job: Job, name: str) -> None:
        self.id, self.index, self.shown, self.name = job.id, job.index, job.shown, name
        self.submit, self.word, self.code, self.signal = EPOCH + job.accepted, "PENDING", 0, 0
        self.start: float | None = None
        self.end: float | None = None
        self.by: int | None = None

    def line(self) -> str:
        """Return it as ``sacct -p`` prints it."""
        word = f"CANCELLED by {self.by}" if self.by is not None and self.word == "CANCELLED" else self.word
        start = "Unknown" if self.start is None else str(int(self.start))
        end = "Unknown" if self.end is None else str(int(self.end))
        node = "None assigned" if self.start is None else "n1"
        raw = self.id if self.index is None else self.id + self.index + 1
        codes = f"{self.code}:{self.signal}"
        return f"{raw}|{self.shown}|{word}|{codes}|{int(self.submit)}|{start}|{end}|{node}|{self.name}|\n"


class Accounting:
    """The records. ``on``: whether any are kept. ``down``: whether it answers nobody and hears nothing."""

    def __init__(self, world: World) -> None:
        self.world, self.chance, self.timeline = world, world.chance, world.timeline
        self.on = world.plan.accounting
        self.down = False
        self.late_s = world.plan.accounting_lag_s
        self.rows: list[Row] = []
        self._latest: dict[tuple[int, int | None, float], Row] = {}
        self._backlog: list[Callable[[], None]] = []
        self._told_until = 0.0

    def _tell(self, call: Callable[[], None]) -> None:
        """Let it hear of something later, and in order."""
        if not self.on:
            return
        self._told_until = max(self._told_until, self.timeline.now + self.chance.uniform(0.2, self.late_s))

        def arrive() -> None:
            if self.down:
                self._backlog.append(call)
            else:
                call()

        self.timeline.after(self._told_until - self.timeline.now, arrive)

    def come_back(self) -> None:
        self.down = False
        waiting, self._backlog = self._backlog, []
        for call in waiting:
            call()

    def _key(self, job: Job) -> tuple[int, int | None, float]:
        return job.id, job.index, job.accepted

    def submitted(self, job: Job) -> None:
        fresh_s = self.chance.uniform(0, 4) if self.chance.random() < 0.5 else 0.0

        def hear() -> None:
            row = Row(job, "allocation" if fresh_s else job.name)
            self.rows.append(row)
            self._latest[self._key(job)] = row
            if fresh_s:
                self.timeline.after(fresh_s, lambda: setattr(row, "name", job.name))

        self._tell(hear)

    def started(self, job: Job) -> None:
        start = job.now.start

        def hear() -> None:
            row = self._latest.get(self._key(job))
            if row is None or row.start is not None:  # the same job is started once more
                row = self._latest[self._key(job)] = Row(job, job.name)
                self.rows.append(row)
            row.word, row.start = "RUNNING", start

        self._tell(hear)

    def ended(self, job: Job, start: float | None) -> None:
        state = job.now

        def hear() -> None:
            row = self._latest.get(self._key(job))
            if row is None:
                row = self._latest[self._key(job)] = Row(job, job.name)
                self.rows.append(row)
            row.word, row.end, row.code, row.signal, row.by = state.word, state.end, state.code, state.signal, state.by
            row.start, row.name = start, job.name

        self._tell(hear)

    def orphan(self, job: Job) -> None:
        """Keep of a job that the controller forgot what it had heard, or a record without end."""
        row = self._latest.get(self._key(job))
        if row is not None and self.chance.random() < 0.5:
            row.name, row.word = "allocation", "PENDING"

    def refused(self, name: str, number: int) -> None:
        """Keep the trace of a submission that was refused."""
        if self.on:
            row = Row.__new__(Row)
            row.id, row.index, row.shown, row.name = number, None, str(number), name
            row.submit = row.start = row.end = EPOCH + self.timeline.now
            row.word, row.code, row.signal, row.by = "FAILED", 1, 0, None
            row.line = lambda: (  # no node was assigned to it
                f"{number}|{number}|FAILED|1:0|{int(row.submit)}|{int(row.submit)}|{int(row.submit)}|None assigned"
                f"|{name}|\n"
            )
            self.rows.append(row)

    def by_name(self, names: list[str]) -> str:
        wanted = set(names)
        return "".join(row.line() for row in self.rows if row.name in wanted)

    def by_id(self, ids: list[str]) -> str:
        wanted = set(ids)
        return "".join(row.line() for row in self.rows if row.shown in wanted or str(row.id) in wanted)

    def usage(self, ids: list[str]) -> str:
        """Return what ``sacct`` without ``-X`` prints: a row a start, with a step where it ran."""
        lines = []
        for line in self.by_id(ids).splitlines():
            _, shown, word, codes, submit, start, end, node, name, _ = line.split("|")
            ran = start.isdecimal() and end.isdecimal()
            elapsed = int(end) - int(start) if ran else 0
            times = f"{submit}|{submit}|{start}|{end}|{elapsed}"
            lines.append(
                f"{shown}|{word}|{codes}|{times}|1|cpu=1,mem=1G,node=1||00:01|{node}|acct|part|normal|{name}|\n"
            )
            if ran and node == "n1":
                step = f"{shown}.batch|{word}|{codes}|{times}|1|cpu=1|2048K|00:01.500|{node}|acct|||batch|\n"
                lines.append(step)
        return "".join(lines)
