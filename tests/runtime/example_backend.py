"""A backend as somebody else would write it: the four methods and nothing more, and one that has files too."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from matterstack import ComputeBackend, JobStatus, Task
from matterstack.errors import UnknownJob


class PopenBackend(ComputeBackend):
    """Runs each task at once, in a temporary directory."""

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def submit(self, task: Task) -> str:
        directory = Path(tempfile.mkdtemp(prefix=task.task_id))
        for name, source in task.files.items():
            (directory / name).write_text(source if isinstance(source, str) else Path(source).read_text())
        with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
            command = ["/bin/sh", "-c", task.command]
            env = {**os.environ, **task.env}
            process = subprocess.Popen(command, cwd=directory, env=env, stdout=out, stderr=err, process_group=0)
        self.jobs[directory.name] = process, directory
        return directory.name

    def poll(self, job_id: str) -> JobStatus:
        code = self._job(job_id)[0].poll()
        if code is None:
            return JobStatus(job_id, "RUNNING")
        if code == 0:
            return JobStatus(job_id, "COMPLETED", exit_code=0)
        return JobStatus(
            job_id, "FAILED", exit_code=code % 256 if code > 0 else 128 - code, signal=-code if code < 0 else None
        )

    def get_logs(self, job_id: str) -> dict[str, str]:
        directory = self._job(job_id)[1]
        return {"stdout": (directory / "out").read_text(), "stderr": (directory / "err").read_text()}

    def cancel(self, job_id: str) -> None:
        process = self._job(job_id)[0]
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _job(self, job_id: str) -> tuple[subprocess.Popen[bytes], Path]:
        if job_id not in self.jobs:
            raise UnknownJob("popen", job_id)
        return self.jobs[job_id]


class PopenBackendWithFiles(PopenBackend):
    """One method more gives it files."""

    def workdir(self, job_id: str) -> Path:
        return self._job(job_id)[1]
