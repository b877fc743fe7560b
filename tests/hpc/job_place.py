"""Attempts in a workspace, started as Slurm starts them: by a real shell, with Slurm's variables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from matterstack import Task
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc.job_script import attempt_files, job_script, secrets_file
from matterstack.runtime.backends.hpc.layout import (
    SUBMISSIONS,
    directory_of,
    job_name,
    map_name,
    read_claim,
    read_exit,
)
from matterstack.runtime.backends.hpc.options import SlurmOptions

SHELLS = ("dash", "bash")  # each under the name sh, which makes a POSIX shell of bash
DEADLINE_S = 90.0
# Writes its arguments, directory and environment to a file, as bytes that JSON can keep.
PROBE = """
import json, os, sys
text = lambda data: os.fsencode(data).decode("latin-1")
found = {"argv": [text(word) for word in sys.argv[2:]], "cwd": text(os.getcwdb()),
         "env": {text(name): text(value) for name, value in os.environb.items()}}
with open(sys.argv[1], "w") as file:
    json.dump(found, file)
"""


def eventually(holds, what):
    """Return what ``holds`` returns, once that is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


class Job:
    """A lone job, or one element of an array."""

    def __init__(self, place, submission, token, index):
        self.place, self.submission, self.token, self.index = place, submission, token, index
        self.directory = place.root / directory_of(submission.run, submission.task.task_id, submission.attempt)
        self.records = self.directory / ".matterstack"

    def environment(self, job_id="7", restart=None, **more):
        """Return what Slurm sets, in the nearly empty environment that sbatch is called in."""
        names = {"PATH": os.environ["PATH"], "HOME": "/root", "USER": "root", "SLURMD_NODENAME": "n1"}
        names["SLURM_JOB_ID"] = job_id
        if self.index is not None:
            names |= {"SLURM_ARRAY_JOB_ID": job_id, "SLURM_ARRAY_TASK_ID": str(self.index)}
            names["SLURM_JOB_ID"] = str(1000 + self.index)
        if restart:
            names["SLURM_RESTART_COUNT"] = str(restart)
        names |= more
        return {name: value for name, value in names.items() if value is not None}

    def start(self, shell="dash", **environment):
        """Start the job's script in a session of its own."""
        script = f"{SUBMISSIONS}/{self.token}/job.sh"
        process = subprocess.Popen(
            ["sh", script],
            executable=shutil.which(shell),
            cwd=self.place.root,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.place.started.append(process)
        return process

    def run(self, shell="dash", **environment):
        """Return the exit code of the script, and what it said in place of the command."""
        process = self.start(shell, **environment)
        said, _ = process.communicate(timeout=DEADLINE_S)
        return process.returncode, said.decode(errors="replace")

    def end(self, process, *, said=True):
        """Return the exit code of a script that was started, once it, and what it ``said``, have ended."""
        process.communicate(timeout=DEADLINE_S) if said else process.wait(timeout=DEADLINE_S)
        return process.returncode

    @property
    def stdout(self):
        return (self.directory / "stdout.txt").read_bytes().decode()

    @property
    def stderr(self):
        return (self.directory / "stderr.txt").read_bytes().decode()

    @property
    def exit(self):
        """The exit record, None where there is none."""
        path = self.records / "exit"
        return read_exit(path.read_text()) if path.exists() else None

    @property
    def claims(self):
        """The claims by restart."""
        found = [read_claim(path.read_text()) for path in self.records.glob("claim*")]
        assert None not in found
        return {claim.restart: claim for claim in found}

    def says(self, text):
        """Wait until the command has written this."""
        eventually(lambda: (self.directory / "stdout.txt").exists() and text in self.stdout, repr(text))

    def snapshot(self):
        """Return content by name of all files below the attempt's directory, but the list of refused starts."""
        files = [path for path in self.directory.rglob("*") if path.is_file() and path.name != "refused"]
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in files}


class Place:
    """A workspace with the settings of a profile."""

    def __init__(self, root, **settings):
        self.root, self.options = Path(root), SlurmOptions.of(settings)
        self.started = []

    def text(self, task, token="ms-a", *, array=False):
        """Return the script of a task."""
        name = job_name(task.task_id, token)
        return job_script(submission=token, name=name, task=task, options=self.options, array=array)

    def lone(self, command, task_id="a", *, attempt=1, environ=None, **fields):
        """Return a job of its own that lies ready."""
        return self._stage("ms-a", [Task(command, task_id, **fields)], environ, attempt, array=False)[0]

    def array(self, *tasks, environ=None):
        """Return the elements of an array that lies ready."""
        return self._stage("ms-array", tasks, environ, 1, array=True)

    def _stage(self, token, tasks, environ, attempt, *, array):
        jobs = []
        for index, task in enumerate(tasks):
            submission = Submission(task, "run", attempt, f"ms-{task.task_id.lower()}{attempt}")
            job = Job(self, submission, token, index if array else None)
            files = attempt_files(submission)
            if task.secrets:
                files["secrets"] = secrets_file(task, environ or {})
            job.records.mkdir(parents=True)
            for name, content in files.items():
                file = job.records / name
                file.touch(mode=0o600)
                file.write_bytes(content)
            jobs.append(job)
        shared = self.root / SUBMISSIONS / token
        shared.mkdir(parents=True, exist_ok=True)
        (shared / "job.sh").write_text(self.text(tasks[0], token, array=array))
        maps = {map_name(job.index): "" for job in jobs}
        for job in jobs:
            index = "-" if job.index is None else job.index
            maps[map_name(job.index)] += f"{index}\t{job.directory.relative_to(self.root)}\t{job.submission.token}\n"
        for name, lines in maps.items():
            (shared / name).write_text(lines)
        return jobs

    def close(self):
        """End all that was started here."""
        for process in self.started:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


def probe_command(probe, target, words=()):
    """Return the words of a command that runs the probe."""
    return [sys.executable, "-I", "-S", str(probe), str(target), *words]


def probed(target):
    """Return what a probe has written, as bytes."""
    found = json.loads(Path(target).read_text())
    raw = lambda text: text.encode("latin-1")  # noqa: E731
    return [raw(w) for w in found["argv"]], raw(found["cwd"]), {raw(k): raw(v) for k, v in found["env"].items()}
