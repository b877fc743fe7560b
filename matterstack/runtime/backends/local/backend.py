"""LocalBackend: tasks as detached processes of this machine, with a queue on disk."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from matterstack.core.evidence import Evidence, JobStatus
from matterstack.core.machine import PENDING, RUNNING
from matterstack.core.reconcile import local_status
from matterstack.core.workflow import OutputRef, Task
from matterstack.errors import BackendUnavailable, MatterStackError, SubmitRefusedError, UnknownJob
from matterstack.runtime import staging
from matterstack.runtime.backends.base import LOG_BYTES, ComputeBackend, Submission
from matterstack.runtime.backends.local import processes, record
from matterstack.runtime.backends.local.job import ALONE, NO_TOKEN, check_secrets, job_of, recorded_job, row_of
from matterstack.runtime.backends.local.pump import Pump
from matterstack.runtime.backends.local.shell import bash, end_group
from matterstack.runtime.backends.local.store import JobRow, JobStore

if TYPE_CHECKING:
    import subprocess

ADOPT_S: Final = 1.0  # how often to look for jobs whose process is gone
_START_S: Final = 1.0  # how long a start line may be behind its claim


class LocalBackend(ComputeBackend):
    """Runs tasks on this machine, each in ``<workspace_root>/<run>/<task>/<attempt>/``.

    Tasks are detached: they outlive this process, and any other LocalBackend with the same
    ``workspace_root`` can poll, read and cancel them. All of those together use at most
    ``max_concurrent_tasks`` slots; a task takes as many as it has cores, or all. ``image`` is ignored.
    The command runs under ``/bin/sh`` with the environment that this process had when the backend was made.

    Args:
        workspace_root: Directory for the tasks, made when needed.
        max_concurrent_tasks: Slots, at least 1; by default the number of CPUs.
        grace_s: Whole seconds between TERM and KILL, at a time limit and on `cancel`.

    Raises:
        ValueError: ``max_concurrent_tasks`` is below 1.
    """

    idempotent: ClassVar[bool] = True
    cheap_poll: ClassVar[bool] = True

    def __init__(
        self,
        workspace_root: str | os.PathLike[str] = "./results",
        max_concurrent_tasks: int | None = None,
        *,
        grace_s: int = 5,
    ) -> None:
        slots = max_concurrent_tasks if max_concurrent_tasks is not None else os.cpu_count() or 1
        if slots < 1:
            raise ValueError(f"max_concurrent_tasks must be at least 1, not {slots}")
        self.root = Path(workspace_root).absolute()
        self.slots: int = slots
        self._grace_s = grace_s
        self._env = dict(os.environ)
        self._lock = threading.Lock()
        self._opened: tuple[JobStore, Pump] | None = None
        self._adopted_at = -ADOPT_S
        self._killers: list[subprocess.Popen[bytes]] = []

    # ---- the four methods, alone ----------------------------------------------------------------

    def submit(self, task: Task, *, attempt: int = 1) -> str:
        """Return the id of the task's job; the same task gives the same job, also after it ended.

        Args:
            task: Its ``files`` are text or paths.
            attempt: Another number starts it anew.

        Raises:
            SpecError: An input file does not exist.
            SubmitRefusedError: Another spec has this id already, or a secret is missing.
            BackendUnavailable: The workspace cannot be written.
        """
        if not isinstance(task, Task):
            raise TypeError(f"submit takes a Task, not {type(task).__name__}: Task(command, task_id)")
        if any(isinstance(source, OutputRef) for source in task.files.values()):
            raise SubmitRefusedError(
                f"task {task.task_id!r} takes another task's output, which submit() alone cannot find. "
                "Nothing was submitted; use run_workflow, or give the file as a Path."
            )
        digests = {str(s): staging.digest(task.task_id, s) for s in task.files.values() if isinstance(s, Path)}
        submission = Submission(task, ALONE, attempt, "", digests)
        row = row_of(submission)
        known = self._store.find(row.job_id)
        if known is not None and known.spec_hash != row.spec_hash:
            raise SubmitRefusedError(
                f"job {row.job_id!r} was submitted here with another spec. Nothing was submitted; use another "
                "task_id, or attempt=2 to start this one anew."
            )
        self._adopt_orphans()
        if known is None:
            check_secrets(task, self._env)
            job = job_of(submission)
            try:
                self._pump.stage(job)
            except OSError as error:
                raise BackendUnavailable("local", f"write {str(self.workdir(row.job_id))!r}", str(error)) from error
            self._store.add([row], flush=True)
            self._pump.add([job])
            self._pump.run_in_background()
        return row.job_id

    def poll(self, job_id: str) -> JobStatus:
        """Return the job's status: its record, and the processes where it has no end."""
        self._adopt_orphans()
        return local_status(self._pump.witness.evidence(job_id), job_id)

    def get_logs(self, job_id: str) -> dict[str, str]:
        """Return what the job has written; bytes that are no UTF-8 are replaced."""
        self._check_known(job_id)
        return {
            stream: path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            for stream in ("stdout", "stderr")
            for path in [self.workdir(job_id) / f"{stream}.txt"]
        }

    def read_log(self, job_id: str, stream: str, offset: int) -> bytes:
        """Return what the job has written from byte ``offset`` on, `LOG_BYTES` at most."""
        self._check_known(job_id)
        path = self.workdir(job_id) / f"{stream}.txt"
        if not path.exists():
            return b""
        with path.open("rb") as written:
            written.seek(offset)
            return written.read(LOG_BYTES)

    def cancel(self, job_id: str) -> None:
        """End the job's whole process group, TERM then KILL, and wait until it is over."""
        self._adopt_orphans()
        self._check_known(job_id)
        self.cancel_many([job_id])
        deadline = time.monotonic() + self._grace_s + 5
        while self.poll(job_id).state in (PENDING, RUNNING) and time.monotonic() < deadline:
            time.sleep(0.02)

    def settings(self) -> dict[str, Any]:
        """Return the keys of a profile with ``backend: local``."""
        return {
            "backend": "local",
            "workspace_root": str(self.root),
            "max_concurrent_tasks": self.slots,
            "grace_s": self._grace_s,
        }

    # ---- the batch forms ------------------------------------------------------------------------

    def submit_many(self, submissions: Sequence[Submission]) -> list[str | MatterStackError]:
        """Return the job ids. What cannot be started shows when it is polled."""
        rows = [row_of(submission) for submission in submissions]
        refused = self._of_others(rows)
        self._store.add([row for row in rows if row.job_id not in refused], flush=False)
        jobs = [
            (job_of(one), one.doubtful) for one, row in zip(submissions, rows, strict=True) if row.job_id not in refused
        ]
        self._pump.add(job for job, doubtful in jobs if not doubtful)
        for job, doubtful in jobs:
            if doubtful:
                self._pump.tell(job.job_id)
        return [refused.get(row.job_id, row.job_id) for row in rows]

    def _of_others(self, rows: Sequence[JobRow]) -> dict[str, MatterStackError]:
        """Return the errors of those jobs whose directory is that of a run in another journal."""
        refused: dict[str, MatterStackError] = {}
        for row in self._store.strangers(rows):
            in_use = not row.ended and row.owner is not None and processes.alive(row.owner)
            if record.read(self.workdir(row.job_id)) is None and not in_use:
                self._store.forget([row.job_id])  # nobody's any more
            else:
                directory = str(self.workdir(row.job_id))
                refused[row.job_id] = SubmitRefusedError(
                    f"directory {directory!r} belongs to a run of this name in another journal. "
                    "The task was not started; use another workspace_root or run id, or remove the directory."
                )
        return refused

    def poll_many(self, job_ids: Collection[str]) -> Mapping[str, Evidence]:
        """Return evidence of the jobs that have news since the last call, and of those not seen before."""
        return self._pump.news(job_ids)

    def cancel_many(self, job_ids: Collection[str]) -> None:
        """Begin to end the jobs: queued ones at once, running ones by TERM and, after the grace, KILL."""
        self._killers = [killer for killer in self._killers if killer.poll() is None]
        for job_id in job_ids:
            try:
                self._cancel(job_id)
            except OSError as error:
                raise BackendUnavailable("local", f"cancel {job_id!r}", str(error)) from error

    def _cancel(self, job_id: str) -> None:
        directory = self.workdir(job_id)
        row = self._store.find(job_id)
        found = _claimed_for_cancel(directory, row.token if row is not None else NO_TOKEN)
        if found is None:
            self._pump.tell(job_id)
        elif found.exit_code is None and not found.withdrawn:
            (directory / record.CANCEL_MARK).touch()
            if found.process is not None and processes.alive(found.process):
                with suppress(ProcessLookupError):  # it ended just now
                    os.killpg(found.process.pid, signal.SIGTERM)
                    self._killers.append(end_group(found.process.pid, self._grace_s))

    def withdraw(self, job_ids: Collection[str]) -> list[str]:
        """Take queued jobs of this process back."""
        return self._pump.withdraw(job_ids)

    def workdir(self, job_id: str) -> Path:
        """Return the job's directory."""
        return self.root / job_id

    def wait(self, timeout_s: float, interrupted: threading.Event) -> None:
        """Start what can start, and note what ended, until there is news."""
        if not interrupted.is_set():
            self._pump.turn(timeout_s)

    def interrupt(self) -> None:
        """Make `wait` return."""
        self._pump.wake()

    def release(self) -> None:
        """Give the slots back; those of running tasks with the tasks' end."""
        if self._opened is not None:
            self._pump.release()

    def close(self) -> None:
        """Stop starting tasks; running ones go on, queued ones wait for the next LocalBackend. It opens again."""
        with self._lock:
            opened, self._opened, self._adopted_at = self._opened, None, -ADOPT_S
        if opened is not None:
            store, pump = opened
            pump.close()
            store.close()

    # ---- the workspace --------------------------------------------------------------------------

    @property
    def _store(self) -> JobStore:
        return self._workspace()[0]

    @property
    def _pump(self) -> Pump:
        return self._workspace()[1]

    def _workspace(self) -> tuple[JobStore, Pump]:
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    bash()
                    store = JobStore(self.root)
                    self._opened = store, Pump(self.root, store, self.slots, self._env, self._grace_s)
        return self._opened

    def _adopt_orphans(self) -> None:
        """Take over, now and then, what was submitted alone and left queued by a process that is gone."""
        now = time.monotonic()
        if now - self._adopted_at < ADOPT_S:
            return
        self._adopted_at = now
        orphans = [row for row in self._store.orphans() if record.read(self.workdir(row.job_id)) is None]
        if orphans:
            self._pump.add(recorded_job(row) for row in orphans)
            self._pump.run_in_background()

    def _check_known(self, job_id: str) -> None:
        if self._store.find(job_id) is None:
            raise UnknownJob("local", job_id)


def _claimed_for_cancel(directory: Path, token: str) -> record.Record | None:
    """Take the claim and return None, or return the record of the start that has it.

    Between a claim and its start line there is nobody to send a signal to, so that line is waited for.
    """
    deadline = time.monotonic() + _START_S
    while not record.withdraw(directory, token):
        found = record.read(directory)
        settled = found is not None and (found.process or found.withdrawn or found.exit_code is not None)
        if found is not None and (settled or time.monotonic() > deadline):
            return found
        time.sleep(0.001)
    return None
