"""Moves a workspace's queue: starts what has a slot, notes what ended, follows what others started."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from matterstack.core.evidence import Evidence, LocalEvidence
from matterstack.core.machine import COMPLETED, FAILED
from matterstack.core.reconcile import local_status
from matterstack.errors import BackendUnavailable, SubmitRefusedError
from matterstack.runtime import staging
from matterstack.runtime.backends.local import record
from matterstack.runtime.backends.local.job import ALONE, Job, check_secrets, recorded_job
from matterstack.runtime.backends.local.shell import COMMAND_MAX, SlotShell, payload
from matterstack.runtime.backends.local.slots import ASK_AGAIN_S, Slots
from matterstack.runtime.backends.local.store import JobStore
from matterstack.runtime.backends.local.witness import Witness

LOOK_S: Final = 0.2  # how often to look at jobs that run
_RETRY_S: Final = 2.0  # how long to wait when the disk or the process table was full
_BLOCK: Final = 32  # ended jobs to note at once


class Pump:
    """The open jobs of one process in one workspace. Any thread may call it.

    Args:
        root: The workspace.
        store: Its queue.
        limit: Cores that all processes together may use.
        env: Environment of the tasks.
        grace_s: Whole seconds between TERM and KILL at a time limit.
    """

    def __init__(self, root: Path, store: JobStore, limit: int, env: Mapping[str, str], grace_s: int) -> None:
        self.witness = Witness(root, store)
        self._store, self._limit, self._env, self._grace_s = store, limit, env, grace_s
        self._slots = Slots(store, limit, str(root), env)
        self._lock = threading.RLock()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._slots.watch(self._wake_fd)
        self._queue: deque[Job] = deque()
        self._open: dict[str, Job] = {}
        self._running: dict[int, Job] = {}  # by file descriptor of its shell
        self._foreign: dict[str, Job] = {}  # claimed, but not in a shell of ours
        self._news: dict[str, Evidence] = {}
        self._unnoted: list[str] = []
        self._looked_at = self._stalled_until = 0.0
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, jobs: Iterable[Job]) -> None:
        """Queue jobs; those that are open already stay where they are."""
        with self._lock:
            for job in jobs:
                if job.job_id not in self._open:
                    self._open[job.job_id] = job
                    self._queue.append(job)

    def wake(self) -> None:
        """Make `turn`, in another thread, return."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake_fd, 1)

    def stage(self, job: Job) -> None:
        """Put the job's input files into its directory.

        Raises:
            SubmitRefusedError: An input is gone or has changed.
            OSError: The directory cannot be written.
        """
        directory = self.witness.directory(job.job_id)
        os.makedirs(directory, 0o700, exist_ok=True)
        if job.task.files:
            staging.stage_in(job.task, directory, job.digests)
        if len(job.task.command) > COMMAND_MAX:
            Path(directory, record.COMMAND_FILE).write_text(job.task.command, encoding="utf-8")

    def news(self, job_ids: Collection[str]) -> dict[str, Evidence]:
        """Return evidence of what has news since the last call, and of jobs that were not open here before."""
        with self._lock:
            news, self._news = self._news, {}
            for job_id in job_ids:
                if job_id not in self._open and job_id not in news:
                    news[job_id] = self._follow(job_id)
            if len(self._unnoted) >= _BLOCK:
                self._note_ends()
        return news

    def tell(self, job_id: str) -> None:
        """Have `news` include this job."""
        if job_id.startswith(f"{ALONE}/"):  # nobody calls `news` for it, and what is there ends each turn
            return
        with self._lock:
            self._news[job_id] = self.witness.evidence(job_id)

    def withdraw(self, job_ids: Collection[str]) -> list[str]:
        """Take jobs out of the queue; return those that were still in it."""
        wanted = set(job_ids)
        with self._lock:
            taken = [job.job_id for job in self._queue if job.job_id in wanted]
            self._store.forget(taken)  # first: where it fails, they stay queued
            self._queue = deque(job for job in self._queue if job.job_id not in wanted)
            for job_id in taken:
                del self._open[job_id]
        return taken

    def turn(self, timeout_s: float) -> None:
        """Start what can start and note what ended; wait for that, at most ``timeout_s``, unless there is news.

        Raises:
            BackendUnavailable: The disk or the process table is full; nothing was started.
        """
        with self._lock:
            self._start_queued()
            if self._news or self._closed:
                return
            self._stage_ahead()
            waits = (self._slots.waiting or self._foreign or self._slots.held) and not self._running
        ready = self._slots.ready(min(timeout_s, ASK_AGAIN_S if waits else LOOK_S))
        with self._lock:
            if self._closed:
                return
            over, trouble = self._freed(ready)
            try:
                self._start_queued()
            finally:
                trouble += [error for job, begun in over if (error := self._harvest(job, begun=begun)) is not None]
            if trouble:
                raise trouble[0]
            self._look()
            self._slots.trim()

    def run_in_background(self) -> None:
        """Keep turning, in a thread, until nothing is left to do."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._drain, name="matterstack-local", daemon=True)
                self._thread.start()
        self.wake()

    def release(self) -> None:
        """Give all slots back; those of running tasks with the tasks' end."""
        with self._lock:
            if self._thread is None:
                self._foreign.update({job.job_id: job for job in self._running.values()})
                self._running.clear()
                self._slots.let_go()

    def close(self) -> None:
        """Start nothing more and let go of everything; running tasks go on."""
        thread = self._thread
        self.wake()
        with self._lock:
            self._closed = True
        if thread is not None:
            thread.join()
        with self._lock:
            self._note_ends()
            self._store.disown([job.job_id for job in self._queue if job.alone])
            self._slots.close()
            os.close(self._wake_fd)

    # ---- starting -------------------------------------------------------------------------------

    def _start_queued(self) -> None:
        if self._closed or time.monotonic() < self._stalled_until:
            return
        while self._queue:
            job = self._queue[0]
            try:
                shell = self._slots.take(job.task.cores)
                if shell is None:
                    return
                self._start(job, shell)
                self._queue.popleft()
            except OSError as error:
                raise self._stalled(job, str(error)) from error
        if self._slots.waiting:
            self._slots.give_up()

    def _stalled(self, job: Job, why: str) -> BackendUnavailable:
        self._stalled_until = time.monotonic() + _RETRY_S
        return BackendUnavailable("local", f"start {job.job_id!r}", why)

    def _start(self, job: Job, shell: SlotShell) -> None:
        task = job.task
        try:
            check_secrets(task, self._env)
            if not (job.staged or self._staged(job)):
                self._slots.idle(shell.fd)
                self._claimed_before(job)
                return
        except SubmitRefusedError as error:
            self._slots.idle(shell.fd)
            self._store.refuse(job.job_id, str(error))
            self._end(job, self.witness.evidence(job.job_id))
            return
        except OSError:
            self._slots.idle(shell.fd)
            raise
        limit = None if task.time_limit_minutes is None else task.time_limit_minutes * 60
        job.started_at = time.time()
        self._running[shell.fd] = job
        try:
            shell.start(job.job_id, limit, self._grace_s, job.token, payload(task, self._names(job)))
        except BrokenPipeError:  # somebody killed the idle shell
            del self._running[shell.fd]
            self._slots.retire(shell.fd)
            raise

    def _stage_ahead(self) -> None:
        """Make the next directories ready while the slots are busy; whatever is wrong is met at the start."""
        if self._running:
            for job in islice(self._queue, self._limit):
                if not job.staged:
                    try:
                        job.staged = self._staged(job)
                    except (OSError, SubmitRefusedError):
                        return

    def _names(self, job: Job) -> dict[str, str]:
        """Return the variables that tell a task who it is."""
        cores = str(job.task.cores)
        names = {
            "MATTERSTACK_RUN": job.run,
            "MATTERSTACK_TASK": job.task.task_id,
            "MATTERSTACK_ATTEMPT": job.attempt,
            "MATTERSTACK_CORES": cores,
        }
        if "OMP_NUM_THREADS" not in self._env:
            names["OMP_NUM_THREADS"] = cores
        return names

    def _staged(self, job: Job) -> bool:
        """Make the directory ready; return False where an earlier start has the claim already."""
        directory = self.witness.directory(job.job_id)
        try:
            if job.attempt == "1":  # its parent is most likely not there yet
                os.mkdir(os.path.dirname(directory), 0o700)
            os.mkdir(directory, 0o700)
        except FileNotFoundError:
            os.makedirs(directory, 0o700)
        except FileExistsError:
            if record.read(directory) is not None:
                return False
            if job.alone:
                return True  # staged when it was submitted
            os.makedirs(directory, 0o700, exist_ok=True)
        if job.task.files or len(job.task.command) > COMMAND_MAX:
            self.stage(job)
        return True

    # ---- ends -----------------------------------------------------------------------------------

    def _freed(self, ready: Iterable[int]) -> tuple[list[tuple[Job, bool | None]], list[BackendUnavailable]]:
        """Take back shells that are done, or gone; return the tasks that they had with their answers, and trouble."""
        over: list[tuple[Job, bool | None]] = []
        trouble: list[BackendUnavailable] = []
        for fd in ready:
            if fd == self._wake_fd:
                with suppress(BlockingIOError):  # another thread was first
                    os.eventfd_read(fd)
            elif self._slots.has(fd):  # unless another thread was first
                begun = self._slots.answer(fd)
                job = self._running.pop(fd, None)
                if job is not None:
                    over.append((job, begun))
                try:
                    self._slots.rest(fd, alive=begun is not None)
                except BackendUnavailable as error:
                    trouble.append(error)
        return over, trouble

    def _harvest(self, job: Job, *, begun: bool | None) -> BackendUnavailable | None:
        """Note what came of a task whose shell is done; return why it could not be started, where that is so.

        Args:
            job: The task.
            begun: Whether this start took the claim; None: the shell died and did not say.
        """
        evidence = self.witness.evidence(job.job_id, job, gone=begun is not False)
        if begun is False and not evidence.claimed and not evidence.refused:
            job.staged = False
            self._queue.appendleft(job)
            return self._stalled(job, "its record could not be written; see the disk's free space and inodes")
        if local_status(evidence).state in (COMPLETED, FAILED):
            self._end(job, evidence)
        else:  # the shell was killed, its task lives; or an earlier start has the claim
            self._foreign[job.job_id] = job
        return None

    def _note_ends(self) -> None:
        if self._unnoted:
            self._store.end(self._unnoted)  # where it fails, they are noted the next time
            self._unnoted.clear()

    def _claimed_before(self, job: Job) -> None:
        evidence = self.witness.evidence(job.job_id, job)
        if local_status(evidence).state in (COMPLETED, FAILED):
            self._end(job, evidence)
        else:
            self._foreign[job.job_id] = job
            self._tell(job, evidence)

    def _end(self, job: Job, evidence: LocalEvidence) -> None:
        self._tell(job, evidence)
        self._open.pop(job.job_id, None)
        self._foreign.pop(job.job_id, None)
        self._unnoted.append(job.job_id)

    def _tell(self, job: Job, evidence: LocalEvidence) -> None:
        if not job.alone:  # for the others nobody calls `news`
            self._news[job.job_id] = evidence

    def _look(self) -> None:
        """Look, now and then, at what runs: jobs of shells that are not ours, and whether ours have begun."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        self._note_ends()
        for job in list(self._foreign.values()):
            evidence = self.witness.evidence(job.job_id, job, gone=True)
            if local_status(evidence).state in (COMPLETED, FAILED):
                self._end(job, evidence)
        for job in self._running.values():
            if not job.alone:
                self._tell(job, self.witness.evidence(job.job_id, job))

    def _follow(self, job_id: str) -> LocalEvidence:
        """Begin to look at a job that an earlier process started."""
        evidence = self.witness.evidence(job_id, gone=True)
        row = self._store.find(job_id)
        if row is not None and local_status(evidence).state not in (COMPLETED, FAILED):
            self._open[job_id] = self._foreign[job_id] = recorded_job(row)
        return evidence

    def _drain(self) -> None:
        while True:
            try:
                self.turn(LOOK_S)
            except BackendUnavailable:  # it says nothing about any job: poll shows them queued
                time.sleep(LOOK_S)
            with self._lock:
                if self._closed or not (self._queue or self._running or self._slots.held):
                    self._thread = None
                    return
