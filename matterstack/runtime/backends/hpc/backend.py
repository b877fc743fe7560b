"""SlurmBackend: tasks as jobs of a Slurm cluster, behind SSH or on its login node."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from msgspec.structs import asdict, replace

from matterstack.core.evidence import Evidence, JobStatus, SlurmEvidence
from matterstack.core.machine import PENDING, RUNNING
from matterstack.core.reconcile import slurm_status
from matterstack.core.spec import spec_hash, to_spec
from matterstack.core.token import token
from matterstack.core.usage import Usage
from matterstack.core.workflow import OutputRef, Task
from matterstack.errors import (
    BackendUnavailable,
    MatterStackError,
    SubmitHeld,
    SubmitInDoubt,
    SubmitRefusedError,
    UnknownJob,
)
from matterstack.runtime import staging
from matterstack.runtime.backends.base import LOG_BYTES, ComputeBackend, Submission
from matterstack.runtime.backends.hpc.barring import Bars, is_end
from matterstack.runtime.backends.hpc.batch import batches, place
from matterstack.runtime.backends.hpc.job_script import array_key
from matterstack.runtime.backends.hpc.layout import META, JobRef, job_ref
from matterstack.runtime.backends.hpc.monitoring import Monitor, never_seen
from matterstack.runtime.backends.hpc.options import SlurmOptions, root_problem
from matterstack.runtime.backends.hpc.preparing import Preparer, identity_of
from matterstack.runtime.backends.hpc.remote import Remote
from matterstack.runtime.backends.hpc.retrieval import UnreadableError, Wanted, fetch_file, read_range
from matterstack.runtime.backends.hpc.retriever import TRIES, Retriever
from matterstack.runtime.backends.hpc.submit_script import mark_cancelled
from matterstack.runtime.backends.hpc.submitting import Submitter
from matterstack.runtime.backends.hpc.usage import ask_usage
from matterstack.runtime.backends.hpc.waits import Waits
from matterstack.runtime.transports import open_transport
from matterstack.runtime.transports.ssh_config import SSHConfig

ALONE: Final = "_alone"  # stands for the run of a task submitted without one; no run can be called so
RETRIEVE: Final = ("none", "declared", "all")
_CANCEL_AGAIN_S: Final = 30.0
_CANCEL_WAIT_S: Final = 60.0


class SlurmBackend(ComputeBackend):
    """Runs tasks as Slurm jobs, each in ``<workspace_root>/<run>/<task>/<attempt>/`` on the cluster.

    Nothing is installed there. A job id is Slurm's own and the job's directory, e.g. ``4711_3@scan/relax-Al/1``:
    any other SlurmBackend with the same workspace can poll, read and cancel it.

    Args:
        ssh_config: The login node; None where this process runs on it.
        workspace_root: Directory on the cluster's shared file system, absolute, made when needed.
        slurm_config: Account, partition, modules and so on; see `SlurmOptions`.
        results_root: Directory on this machine for what comes back.
        retrieve: ``"declared"`` brings back declared outputs and logs, ``"all"`` everything, ``"none"`` nothing.
        waits: How long is waited for what.
        max_array: Most elements of a job array, at least 1; the site's MaxArraySize is above it.

    Raises:
        ValueError, TypeError: An argument makes no sense; the message names it.
    """

    idempotent: ClassVar[bool] = True
    passes_outputs: ClassVar[bool] = True

    def __init__(
        self,
        ssh_config: SSHConfig | None = None,
        workspace_root: str = "",
        slurm_config: Mapping[str, object] | None = None,
        *,
        results_root: str | os.PathLike[str] = "./results",
        retrieve: str = "declared",
        waits: Waits | None = None,
        max_array: int = 1000,
    ) -> None:
        if ssh_config is not None and not isinstance(ssh_config, SSHConfig):
            raise TypeError(f"ssh_config must be an SSHConfig, not {type(ssh_config).__name__}: SSHConfig(hostname=…)")
        if not isinstance(workspace_root, (str, os.PathLike)) or not os.fspath(workspace_root).startswith("/"):
            raise ValueError(
                f"workspace_root must be an absolute path on the cluster, such as '/scratch/user123/runs', not "
                f"{workspace_root!r}"
            )
        if problem := root_problem(os.fspath(workspace_root)):
            raise ValueError(f"workspace_root {problem}")
        if retrieve not in RETRIEVE:
            raise ValueError(f"retrieve must be one of {', '.join(RETRIEVE)}, not {retrieve!r}")
        if type(max_array) is not int or max_array < 1:
            raise ValueError(f"max_array must be a whole number of at least 1, not {max_array!r}")
        self._ssh, self.root = ssh_config, os.path.normpath(os.fspath(workspace_root))
        self.options = SlurmOptions.of(slurm_config or {})
        self.results = Path(results_root).absolute()
        self._retrieve, self._waits, self._max_array = retrieve, waits or Waits(), max_array
        self.poll_min_s, self.poll_max_s = self._waits.poll_min_s, self._waits.poll_max_s
        self.transport = open_transport(ssh_config)
        remote = Remote(self.transport, self.root, self._waits.command_s)
        self._remote = remote
        prepare = Preparer(remote, self.options, os.environ)
        self._submitter = Submitter(remote, self._waits, prepare)
        self._monitor = Monitor(remote, self._waits, requeue=self.options.requeue)
        self._bars = Bars(remote, self._monitor)
        self._retriever = Retriever(self.transport, self.root, self._arrived)
        self._lock = threading.RLock()
        self._jobs: dict[str, Submission] = {}
        self._ends: dict[str, SlurmEvidence] = {}
        self._cancels: dict[str, float] = {}
        self._faults: dict[tuple[str, str], int] = {}
        self._wake = threading.Event()
        self._news = False

    # ---- the four methods, alone ----------------------------------------------------------------

    def submit(self, task: Task, *, attempt: int = 1) -> str:
        """Return the id of the task's job; the same task gives the same job, also after it ended.

        Args:
            task: Its ``files`` are text or paths.
            attempt: Another number starts it anew.

        Raises:
            SpecError: An input file does not exist.
            SubmitRefusedError: Another spec has this id already, sbatch refused it, or a secret is missing.
            SubmitInDoubt: Whether it was submitted could not be settled; call it again later.
            BackendUnavailable: The cluster cannot be reached, or takes no more jobs now.
        """
        if not isinstance(task, Task):
            raise TypeError(f"submit takes a Task, not {type(task).__name__}: Task(command, task_id)")
        if any(isinstance(source, OutputRef) for source in task.files.values()):
            raise SubmitRefusedError(
                f"task {task.task_id!r} takes another task's output, which submit() alone cannot find. "
                "Nothing was submitted; use run_workflow, or give the file as a Path."
            )
        digests = {str(s): staging.digest(task.task_id, s) for s in task.files.values() if isinstance(s, Path)}
        name = token(self.root, ALONE, task.task_id, attempt)
        submission = Submission(task, ALONE, attempt, name, digests, again=True)
        self._take_id(submission, spec_hash(to_spec(task, digests)))
        deadline = time.monotonic() + 2 * self._waits.settle_s
        while True:
            (answer,) = self.submit_many([submission])
            match answer:
                case str():
                    return answer
                case SubmitInDoubt() if time.monotonic() < deadline:
                    time.sleep(answer.again_s)
                case SubmitHeld():
                    raise BackendUnavailable(self.transport.name, f"submit {task.task_id!r}", answer.detail)
                case _:
                    raise answer

    def _take_id(self, submission: Submission, spec: str) -> None:
        """Make the id stand for this spec; the first to come has it."""
        directory = f"{place(submission)}/{META}"
        parts = self._remote.ask(
            f'm={directory}; mkdir -p "$m"; printf \'%s\\n\' {spec} >"$m/spec.$$"; '
            'ln "$m/spec.$$" "$m/spec" 2>/dev/null; rm -f "$m/spec.$$"; read -r line <"$m/spec"; say spec "$line"'
        )
        if [part.words for part in parts] != [["spec", spec]]:
            raise SubmitRefusedError(
                f"task {submission.task.task_id!r}, attempt {submission.attempt}, was submitted here with another "
                "spec. Nothing was submitted; use another task_id, or attempt=2 to start this one anew."
            )

    def poll(self, job_id: str) -> JobStatus:
        """Return the job's status now, whether or not its results have been retrieved."""
        with self._lock:
            found = self._monitor.poll([job_id])
            if self._bars.hold(found):
                found = self._monitor.poll([job_id])
            evidence = found.get(job_id)
        if evidence is None or never_seen(evidence):
            raise UnknownJob(self.transport.name, job_id)
        return slurm_status(evidence, job_id)

    def get_logs(self, job_id: str) -> dict[str, str]:
        """Return what the job has written; bytes that are no UTF-8 are replaced."""
        logs: dict[str, str] = {}
        try:
            for stream in ("stdout", "stderr"):
                logs[stream] = self._whole_log(job_id, stream).decode("utf-8", "replace")
        finally:
            if not any(logs.values()):
                self.poll(job_id)  # raises where there never was such a job, maybe not even its workspace
        return logs

    def _whole_log(self, job_id: str, stream: str) -> bytes:
        log = page = self.read_log(job_id, stream, 0)
        while len(page) >= LOG_BYTES:
            page = self.read_log(job_id, stream, len(log))
            log += page
        return log

    def cancel(self, job_id: str) -> None:
        """End the job and wait until Slurm shows its end, for a minute at most."""
        self.poll(job_id)  # an unknown job is told
        self.cancel_many([job_id])
        deadline = time.monotonic() + _CANCEL_WAIT_S
        while self.poll(job_id).state in (PENDING, RUNNING) and time.monotonic() < deadline:
            time.sleep(0.5)

    def settings(self) -> dict[str, Any]:
        """Return the keys of a profile with ``backend: slurm``."""
        ssh = {"ssh": {k: v for k, v in asdict(self._ssh).items() if v is not None}} if self._ssh else {}
        return {
            "backend": "slurm",
            **ssh,
            "workspace_root": self.root,
            "slurm": self.options.to_mapping(),
            "results_root": str(self.results),
            "retrieve": self._retrieve,
            "waits": asdict(self._waits),
            "max_array": self._max_array,
        }

    # ---- the batch forms ------------------------------------------------------------------------

    def arrays(self, tasks: Sequence[Task]) -> list[list[int]]:
        """Return which tasks go as job arrays: those with equal directives and set-up, two or more of them."""
        if not self.options.arrays or self._max_array == 1:
            return []
        alike: dict[object, list[int]] = {}
        for position, task in enumerate(tasks):
            alike.setdefault(array_key(task, self.options), []).append(position)
        size = self._max_array
        groups = [found[start : start + size] for found in alike.values() for start in range(0, len(found), size)]
        return [group for group in groups if len(group) > 1]

    def submit_many(self, submissions: Sequence[Submission]) -> list[str | MatterStackError]:
        """Return the job ids, or what stands against them; one remote command for all, beside staging."""
        with self._lock:
            answers = self._submitter.submit(submissions)
            for one, answer in zip(submissions, answers, strict=True):
                if isinstance(answer, str):
                    self.recognize(answer, one)
            return answers

    def recognize(self, job_id: str, submission: Submission) -> None:
        """Take down which attempt a job stands for, so that its results can be retrieved."""
        (batch,) = batches([submission])
        self._jobs[job_id] = submission
        self._monitor.know(job_id, identity_of(batch, submission))

    def poll_many(self, job_ids: Collection[str]) -> Mapping[str, Evidence]:
        """Return evidence of the jobs; an end is told when the results are here."""
        with self._lock:
            self._news = False
            found = self._monitor.poll([job_id for job_id in job_ids if job_id not in self._ends])
            held = self._bars.hold(found)
            found = {job_id: one for job_id, one in found.items() if job_id not in held}
            self._ends.update((job_id, one) for job_id, one in found.items() if is_end(one))
            if late := [job_id for job_id, one in found.items() if one.over and one.queue]:
                self.cancel_many(late)  # they would only begin to end at once
            self._cancel_again(found)
            ended = {job_id: self._ends[job_id] for job_id in job_ids if job_id in self._ends}
            here = {job_id: self._noted(job_id, one) for job_id, one in ended.items() if self._is_here(job_id, one)}
            for job_id in here:
                self._ends.pop(job_id)
                self._monitor.forget(job_id)
            return {job_id: one for job_id, one in found.items() if job_id not in ended} | here

    def usage_many(self, job_ids: Collection[str]) -> Mapping[str, Usage]:
        """Return what accounting has of the ended jobs, by one question for all."""
        wanted = {}
        for job_id in job_ids:
            if (ref := job_ref(job_id)) is not None:
                submission = self._jobs.get(job_id)
                name = batches([submission])[0].name if submission is not None else ""
                wanted[job_id] = ref.slurm_id.partition(";")[0], name
        return ask_usage(self._remote, wanted)

    @property
    def has_news(self) -> bool:
        """Whether results have arrived since the last `poll_many`."""
        return self._news

    @property
    def notice(self) -> str:
        """Why results cannot be retrieved now, else ``""``."""
        problem = self._retriever.problem
        left = f"results stay on the cluster for now, and are tried again: {problem}" if problem else ""
        return "; ".join(filter(None, [left, self._bars.notice]))

    def _is_here(self, job_id: str, evidence: SlurmEvidence) -> bool:
        """Return whether nothing is left to retrieve of an ended job; begin to retrieve where there is."""
        submission, ref = self._jobs.get(job_id), job_ref(job_id)
        if self._retrieve == "none" or submission is None or ref is None or not evidence.claimed:
            return True
        if evidence.directory_gone:
            return True
        include = None if self._retrieve == "all" else tuple(submission.task.outputs)
        return self._retriever.want(job_id, lambda: Wanted(ref.directory, include, (), self.results / ref.directory))

    def _noted(self, job_id: str, evidence: SlurmEvidence) -> SlurmEvidence:
        """Return the evidence with a note of those results that were given up."""
        left = self._retriever.left(job_id)
        if not left:
            return evidence
        where = f"{self.transport.name}:{self.root}/{self._ref(job_id).directory}"
        note = f"not all results are here: {left}; they stay in {where}, copy them from there"
        return replace(evidence, note="; ".join(filter(None, [evidence.note, note])))

    def _arrived(self) -> None:
        self._news = True
        self.interrupt()

    def cancel_many(self, job_ids: Collection[str]) -> None:
        """Ask Slurm to end those of the jobs that it still has."""
        with self._lock:
            refs = {job_id: ref for job_id in job_ids if (ref := job_ref(job_id)) is not None}
            now = time.monotonic()
            self._cancels.update(dict.fromkeys(refs, now))
            live = self._monitor.live(refs)
            marks = "\n".join(mark_cancelled(ref.directory) for ref in refs.values())
            ids = " ".join(live.values())
            scancel = f"{{ scancel {ids} 2>&1; }}; say code $?" if ids else ""
            parts = self._remote.ask(f"{marks}\nsay scancel\n{scancel}")
            self._check_scancel(parts[0].text, parts[-1].words)

    def _check_scancel(self, text: str, code: Sequence[str]) -> None:
        if code[:1] == ["code"] and code[1:] != ["0"] and "Unable to contact" in text:
            raise BackendUnavailable(self.transport.name, "scancel", text.strip())

    def _cancel_again(self, found: Mapping[str, SlurmEvidence]) -> None:
        """Ask once more for the end of jobs that go on; a controller that crashes may forget that it was asked."""
        now = time.monotonic()
        stubborn = [
            one for one in found if one not in self._ends and now - self._cancels.get(one, now) > _CANCEL_AGAIN_S
        ]
        if stubborn:
            self.cancel_many(stubborn)

    def read_log(self, job_id: str, stream: str, offset: int) -> bytes:
        """Return what the job has written from byte ``offset`` on, `LOG_BYTES` at most."""
        ref, name = self._ref(job_id), f"{stream}.txt"
        local = self.results / ref.directory / name
        if local.is_file() and not local.is_symlink():
            with local.open("rb") as written:
                written.seek(offset)
                return written.read(LOG_BYTES)
        return read_range(self.transport, self.root, ref.directory, name, offset, LOG_BYTES)

    def workdir(self, job_id: str) -> Path:
        """Return the directory on this machine to which the job's results come."""
        return self.results / self._ref(job_id).directory

    def retrieve(self, job_id: str, name: str) -> Path:
        """Return a path on this machine with the file that the job wrote as ``name``, fetched where it is not here.

        Raises:
            FileNotFoundError: The job did not write it.
            SubmitRefusedError: It is there, and was tried in vain too often: what takes it cannot be submitted.
            BackendUnavailable, AccessError: It could not be fetched now.
        """
        ref = self._ref(job_id)
        target = self.results / ref.directory
        if not (target / name).is_file():
            try:
                fetch_file(self.transport, self.root, ref.directory, name, target)
            except UnreadableError as error:
                self._count_fault(job_id, name, error)
                raise
        return target / name

    def _count_fault(self, job_id: str, name: str, error: UnreadableError) -> None:
        tried = self._faults[job_id, name] = self._faults.get((job_id, name), 0) + 1
        if tried >= TRIES:
            raise SubmitRefusedError(
                f"{name!r} of job {job_id} cannot be brought here, tried {tried} times: {error.problem}. What takes it "
                "was not submitted; mend that, then `matterstack retry` tries it again."
            ) from error

    def _ref(self, job_id: str) -> JobRef:
        ref = job_ref(job_id)
        if ref is None:
            raise UnknownJob(self.transport.name, job_id)
        return ref

    def wait(self, timeout_s: float, interrupted: threading.Event) -> None:
        """Return after ``timeout_s``, or sooner when results have arrived."""
        if not interrupted.is_set() and not self._news:
            self._wake.wait(timeout_s)
        self._wake.clear()

    def interrupt(self) -> None:
        """Make `wait` return."""
        self._wake.set()

    def close(self) -> None:
        """Close the connection. Jobs go on."""
        self._retriever.close()
        self.transport.close()
