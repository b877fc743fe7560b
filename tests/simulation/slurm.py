"""The controller: its queue, its late and forgetful memory, and the jobs that it starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from matterstack.runtime.backends.hpc.slurm import indices_of
from simulation.accounting import Accounting
from simulation.jobs import Run
from simulation.timeline import EPOCH

if TYPE_CHECKING:
    from simulation.world import World

LIVE = ("PENDING", "RUNNING", "COMPLETING")
TIMED_OUT = "Socket timed out on send/recv operation"
NO_CONTACT = "Unable to contact slurm controller (connect failure)"
LIMIT = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)\n"
)
MAX_ID = 67_043_328
OURS = 1000  # our uid
SAVED_S = 5.0  # so late may the controller's memory be on its disk


class Now(NamedTuple):
    """What the controller believes of a job."""

    word: str
    reason: str = "None"
    start: float | None = None
    end: float | None = None
    code: int = 0
    signal: int = 0
    restarts: int = 0
    by: int | None = None


class Job:
    """A job or array element; ``token`` and ``base`` are whose it is. Its states are kept: memory may be late."""

    def __init__(self, number, index, name, base, token, at, *, requeue, limit_s, text):
        self.id, self.index, self.name, self.base, self.token, self.accepted = number, index, name, base, token, at
        self.requeue, self.limit_s, self.text = requeue, limit_s, text
        self.history = [(at, Now("PENDING", "Priority"))]
        self.ticket = 0  # what was planned for an earlier state is void
        self.run: Run | None = None
        self.gone_at: float | None = None
        self.prompt = True  # accepted as long after its claim as is waited for
        self.forgotten = False
        self.held = False

    @property
    def now(self) -> Now:
        return self.history[-1][1]

    @property
    def shown(self) -> str:
        return str(self.id) if self.index is None else f"{self.id}_{self.index}"

    @property
    def live(self) -> bool:
        return not self.forgotten and self.now.word in LIVE

    def set(self, at: float, state: Now) -> None:
        self.history.append((at, state))
        self.ticket += 1
        self.gone_at = None if state.word in ("PENDING", "RUNNING") else at if self.gone_at is None else self.gone_at


class Slurm:
    """The cluster. ``silent`` is how the controller is silent now: "", "down" or "hung"."""

    def __init__(self, world: World) -> None:
        self.world, self.chance, self.timeline = world, world.chance, world.timeline
        self.accounting = Accounting(world)
        self.jobs: dict[tuple[int, int | None], Job] = {}
        self.of_token: dict[str, list[Job]] = {}
        self.of_base: dict[str, list[Job]] = {}
        self.next = world.plan.first_id
        self.silent = ""
        self._when_up: list[Callable[[], None]] = []
        self.refusals: list[str] = []  # words with which the next submissions are refused
        self._crash_s = 0.0
        self.lost_answers = 0  # so many submissions are accepted and say that they timed out
        self.all: list[Job] = []

    # ---- the controller's own life ------------------------------------------------------------------

    def up(self, call: Callable[[], None]) -> None:
        """Do it as soon as the controller lives."""
        if self.silent:
            self._when_up.append(call)
        else:
            call()

    def silence(self, how: str, seconds: float) -> None:
        """Let the controller be down, or hang, for so long."""
        if self.silent:
            return
        self.silent = how
        self.timeline.after(seconds, self.answer_again)

    def answer_again(self) -> None:
        self.silent = ""
        waiting, self._when_up = self._when_up, []
        for call in waiting:
            self.up(call)

    def crash(self, down_s: float) -> None:
        """Kill the controller; it comes back with what it had saved, up to five seconds ago."""
        if self.silent:
            return
        saved = self.timeline.now - self.chance.uniform(0, SAVED_S)
        self.silence("down", down_s)
        lost = [job for job in self.jobs.values() if job.accepted > saved]
        for job in lost:
            self._forget(job)
        if lost:
            self.next = min(job.id for job in lost)
        for job in list(self.jobs.values()):
            self._turn_back(job, saved)

    def crash_soon(self, down_s: float) -> None:
        """Kill the controller some seconds after it next takes or starts a job: then it has most to forget."""
        self._crash_s = down_s

    def _tempt(self) -> None:
        if self._crash_s:
            down_s, self._crash_s = self._crash_s, 0.0
            self.timeline.after(self.chance.uniform(0, SAVED_S), lambda: self.crash(down_s))

    def _forget(self, job: Job) -> None:
        """Lose an accepted job; its processes, if it has any, are ended or live on unseen."""
        del self.jobs[job.id, job.index]
        self.world.trace("slurmctld forgets job", job.shown)
        job.forgotten = True
        job.gone_at = self.timeline.now
        job.ticket += 1
        run = job.run
        if run is not None and self.chance.random() < 0.7:
            self.timeline.after(self.chance.uniform(0, 60), run.kill)
        self.accounting.orphan(job)

    def _turn_back(self, job: Job, saved: float) -> None:
        """Let the controller's memory of a job be that of an earlier moment."""
        before = job.now
        while job.history[-1][0] > saved:
            job.history.pop()
        if job.now is before:
            return
        job.ticket += 1
        run, word = job.run, job.now.word
        self.world.trace("slurmctld believes of", job.shown, word, "instead of", before.word)
        job.gone_at = None if word in ("PENDING", "RUNNING") else job.gone_at
        if word == "PENDING":  # and so it is started once more, under the same id and restart count
            if run is not None and self.chance.random() < 0.5:
                self.timeline.after(self.chance.uniform(0, 60), run.kill)
            self._plan_start(job)
        elif before.end is not None:
            self._plan(job, self.chance.uniform(1, 30), lambda: self._end(job, before.word, before.code, before.signal))
        elif run is not None and run.over:
            word, code = ("COMPLETED", 0) if run.code == 0 else ("FAILED", run.code or 1)
            self._plan(job, self.chance.uniform(1, 30), lambda: self._end(job, word, code, 0))
        elif run is None:  # its node says that it has no such job
            self._plan(job, self.chance.uniform(1, 60), lambda: self.fail_node(job, "NODE_FAIL"))

    # ---- submission ---------------------------------------------------------------------------------

    def accept(self, base: str, indices: str, claimed_at: float, sent_at: float) -> str:
        """Take a submission, and return its id."""
        text = self.world.files.on_node(f"{base}/job.sh") or ""
        option = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE))
        limit = re.fullmatch(r"(\d+)-(\d\d):(\d\d):00", option.get("time", ""))
        limit_s = ((int(limit[1]) * 24 + int(limit[2])) * 60 + int(limit[3])) * 60 if limit else None
        elements = [None] if not indices else list(indices_of(indices) or ())
        # A late shell may submit elements that a cancel has since taken out of the map: they start nothing.
        known, submission = self.world.truth.elements, base.rpartition("/")[2]
        rows = [self.world.files.map_row(base, index) for index in elements]
        whose = [row[1] if row else known[submission, at] for at, row in zip(elements, rows, strict=True)]
        self.world.truth.submitting(submission, whose, sent_at)
        number = self._take_id(elements)
        for index, token in zip(elements, whose, strict=True):
            more = {"requeue": "requeue" in option, "limit_s": limit_s, "text": text}
            job = Job(number, index, option["job-name"], base, token, self.timeline.now, **more)
            job.prompt = self.timeline.now - claimed_at <= self.world.plan.prompt_s
            self.jobs[number, index] = job
            self.all.append(job)
            self.of_token.setdefault(token, []).append(job)
            self.of_base.setdefault(base, []).append(job)
            self.accounting.submitted(job)
            self._plan_start(job)
        self._tempt()
        self.world.trace("slurm accepts", number, option["job-name"], indices)
        return str(number)

    def _take_id(self, elements: list[int | None]) -> int:
        while any((self.next, index) in self.jobs for index in [*elements, None]) or self.next > MAX_ID:
            self.next = 1 if self.next >= MAX_ID else self.next + 1
        number = self.next
        self.next += 1 + (len(elements) if elements != [None] else 0)
        return number

    def stranger(self) -> None:
        """Let the same user submit a job that is not ours."""
        number = self._take_id([None])
        more = {"requeue": False, "limit_s": None, "text": ""}
        job = Job(number, None, self.chance.choice(["vasp", "bash", "relax.ms"]), "", "", self.timeline.now, **more)
        self.jobs[number, None] = job
        self.accounting.submitted(job)
        self._plan_start(job)

    def crowd(self) -> int:
        """Return how many jobs are live."""
        return sum(job.live for job in self.jobs.values())

    # ---- the life of a job --------------------------------------------------------------------------

    def _plan(self, job: Job, delay_s: float, call: Callable[[], None]) -> None:
        """Do it later, unless the job's state changes before; a controller that is down does it when it is up."""
        ticket = job.ticket

        def due() -> None:
            if job.ticket == ticket and not job.forgotten:
                call()

        self.timeline.after(delay_s, lambda: self.up(due))

    def _plan_start(self, job: Job) -> None:
        self._plan(job, self.chance.uniform(0.5, self.world.plan.queue_s), lambda: self._start(job))

    def _start(self, job: Job) -> None:
        if job.held:
            self._plan_start(job)
            return
        job.set(self.timeline.now, job.now._replace(word="RUNNING", reason="None", start=self.clock(), end=None))
        self._tempt()
        self.accounting.started(job)
        job.run = Run(self.world, job)
        if job.limit_s is not None:
            self._plan(job, job.limit_s - self.chance.uniform(30, 60), lambda: self._near(job))
            self._plan(job, job.limit_s + self.chance.uniform(0, 30), lambda: self._over(job))
        job.run.begin()

    def _near(self, job: Job) -> None:
        if job.run is not None:
            job.run.near()

    def _over(self, job: Job) -> None:
        self._stop(job, "TIMEOUT", 0, 15)

    def _stop(self, job: Job, word: str, code: int, signal: int, by: int | None = None) -> None:
        """End the processes of a running job, gently or not, and then the job."""
        run = job.run
        job.set(self.timeline.now, job.now._replace(word="COMPLETING"))
        if run is not None:
            run.terminate()
        self._plan(job, self.chance.uniform(0.5, 40), lambda: self._end(job, word, code, signal, by))

    def ended(self, job: Job, run: Run, code: int) -> None:
        """Take a job script's end; a run that the controller does not know ends unheard."""
        if job.run is not run:
            return

        def told() -> None:
            if job.run is run and not job.forgotten and job.now.word == "RUNNING":
                job.set(self.timeline.now, job.now._replace(word="COMPLETING"))
                word = "FAILED" if code else "COMPLETED"
                self._plan(job, self.chance.uniform(0, 3), lambda: self._end(job, word, code, 0))

        self.up(told)

    def _end(self, job: Job, word: str, code: int, signal: int, by: int | None = None) -> None:
        start = job.now.start
        if job.run is not None:
            job.run.kill()
        job.set(self.timeline.now, job.now._replace(word=word, end=self.clock(), code=code, signal=signal, by=by))
        self.world.truth.word(job.token, word, code)
        self.world.trace("job", job.shown, "ends as", word, code)
        self.accounting.ended(job, start)
        age_s = self.world.plan.min_job_age_s
        self._plan(job, self.chance.uniform(age_s, 2 * age_s), lambda: self._purge(job))

    def _purge(self, job: Job) -> None:
        if self.jobs.get((job.id, job.index)) is job:
            del self.jobs[job.id, job.index]

    def fail_node(self, job: Job, word: str) -> None:
        """End a running job as NODE_FAIL or PREEMPTED; one that may be started again is put back."""
        if job.now.word != "RUNNING":
            return
        run = job.run
        if run is not None and (word == "PREEMPTED" or self.chance.random() < 0.7):
            run.kill()
        job.run = None  # its processes may live on
        start = job.now.start
        if not job.requeue:
            self._end(job, word, 0, 0)
            return
        # Measured: accounting shows the end of this start, the queue at once a job that waits.
        job.set(self.timeline.now, job.now._replace(word=word, end=self.clock()))
        self.accounting.ended(job, start)
        self.world.truth.word(job.token, word, 0)
        self._put_back(job, Now("PENDING", "BeginTime", restarts=job.now.restarts + 1))

    def _put_back(self, job: Job, state: Now) -> None:
        job.gone_at = None
        self.jobs[job.id, job.index] = job
        job.set(self.timeline.now, state)
        self.accounting.submitted(job)
        self._plan_start(job)

    def requeue(self, job: Job) -> None:
        """Put a running job back, as an operator's ``scontrol requeue`` does."""
        if job.now.word == "RUNNING" and job.requeue:
            if job.run is not None:
                job.run.kill()
            self._put_back(job, Now("PENDING", "BeginTime", restarts=job.now.restarts + 1))

    def cancel(self, jobs: Iterable[Job], by: int | None) -> None:
        """End jobs as scancel does."""
        for job in list(jobs):
            if job.now.word == "PENDING":
                self._end(job, "CANCELLED", 0, 0, by)
            elif job.now.word == "RUNNING":
                self._stop(job, "CANCELLED", 0, 15, by)

    # ---- answers ------------------------------------------------------------------------------------

    def clock(self) -> float:
        """Return the cluster's time."""
        return EPOCH + self.timeline.now

    def queue(self) -> str:
        """Return what squeue prints, in `queue_command`'s format."""
        return "".join(
            f"{job.name}#{'N/A' if job.index is None else job.index}|{job.shown}|{job.now.word}|{job.now.reason}"
            f"|{int(EPOCH + job.accepted)}|.\n"
            for job in self.jobs.values()
        )

    def find(self, shown: str) -> list[Job]:
        """Return the jobs that an id names: an array's own id all its elements."""
        number, _, index = shown.partition("_")
        if index:
            job = self.jobs.get((int(number), int(index)))
            return [job] if job else []
        return [job for job in self.jobs.values() if job.id == int(number)]
