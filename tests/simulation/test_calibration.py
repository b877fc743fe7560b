"""The simulated shell answers as the real one does: one scenario through both, their answers part by part.

The real one is ``sh`` with the fake Slurm's commands, which are themselves calibrated on a real Slurm.
"""

from __future__ import annotations

import os
import re
import subprocess
import time

import pytest
from fake_slurm import FakeSlurm

from matterstack import Task
from matterstack.errors import BackendUnavailable, SubmitHeld, SubmitInDoubt, SubmitRefusedError
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc import SlurmBackend, Waits
from matterstack.runtime.backends.hpc.remote import Remote
from matterstack.runtime.transports.base import Reply, Transport
from simulation.files import DiskFull
from simulation.jobs import Run
from simulation.shell import Shell
from simulation.world import World

DEADLINE_S = 60.0
WAITS = Waits(settle_s=0.001, again_s=0.001)
REFUSAL = "Invalid account or account/partition combination specified"


class Real:
    """``sh`` and the fake Slurm."""

    def __init__(self, here, monkeypatch):
        self.root = here / "workspace"
        self.slurm = FakeSlurm(here / "slurm")
        self.slurm.use(monkeypatch)
        self.backend = SlurmBackend(None, str(self.root), results_root=here, retrieve="none", waits=WAITS)
        self.slurm.order("hold")

    def order(self, fault):
        self.slurm.order(fault, f"sbatch: error: Batch job submission failed: {REFUSAL}" if fault == "refuse" else "")

    def mend(self, fault):
        self.slurm.mend(fault)

    def full(self):
        mkdir = self.slurm.bin / "mkdir"
        mkdir.write_text('#!/bin/sh\ncase $* in */claim.*) exit 1 ;; esac\nexec /bin/mkdir "$@"\n')
        mkdir.chmod(0o755)
        self.mend_full = mkdir.unlink

    def run_jobs(self, directories):
        self.slurm.mend("hold")
        subprocess.run([self.slurm.bin / "squeue", "-o", "%i"], check=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + DEADLINE_S
        jobs = self.slurm.jobs()
        while not all((self.root / one / ".matterstack/exit").exists() for one in directories) or any(
            (job / "word").read_text() in ("PENDING", "RUNNING") for job in jobs
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def start_again(self, number, token):
        script = f".matterstack/submissions/{token}/job.sh"
        environment = os.environ | {"SLURM_JOB_ID": str(number), "SLURMD_NODENAME": "n1"}
        return subprocess.run(["sh", script], cwd=self.root, env=environment, check=False).returncode

    def end(self):
        self.slurm.end()


class Direct(Transport):
    """The simulated shell, with nothing between."""

    name = "login"

    def __init__(self, world):
        self.world = world

    def run(self, script, *, payload=b"", sink=None, timeout_s=0.0):
        shell = Shell(self.world, script, payload if isinstance(payload, bytes) else b"".join(payload), 0.0)
        text = shell.run_through()
        return Reply(int(shell.failed), text.encode(), b"")

    def close(self):
        pass


class Simulated:
    """The simulation, in which time stands still unless it is told to pass."""

    def __init__(self, here, monkeypatch):
        self.world = world = World(1, 1, here / "j.db", faults=False)
        world.plan.first_id = world.slurm.next = 1
        world.plan.queue_s, world.plan.min_job_age_s = 1.0, 1e6
        world.slurm.accounting.on = True
        world.slurm.accounting._tell = lambda call: call()
        world.slurm.accounting.refused = lambda *_: None  # the fake Slurm keeps no trace of what it refused
        world.chance.random = lambda: 0.99
        monkeypatch.setattr(world, "payload", lambda _: (1.0, 0))
        monkeypatch.setattr(world.truth, "submitting", lambda *_: None)
        self.backend = SlurmBackend(None, "/w", results_root=here, retrieve="none", waits=WAITS)
        self.backend.transport = self.backend._remote.transport = Direct(world)
        monkeypatch.setattr(world.slurm, "_take_id", self._take_id)

    def _take_id(self, _elements):
        """Return an id as the fake Slurm counts them: an array has one."""
        self.world.slurm.next += 1
        return self.world.slurm.next - 1

    def order(self, fault):
        slurm = self.world.slurm
        match fault:
            case "ctld":
                slurm.silent = "hung"
            case "lose":
                slurm.lost_answers = 1
            case "refuse":
                slurm.refusals.append(REFUSAL)
            case "dbd":
                slurm.accounting.down = True
            case "off":
                slurm.accounting.on = False

    def mend(self, fault):
        slurm = self.world.slurm
        slurm.silent = ""
        slurm.accounting.down, slurm.accounting.on = False, True

    def full(self):
        def make(_directory):
            raise DiskFull

        self.world.files.make = make
        self.mend_full = lambda: delattr(self.world.files, "make")

    def run_jobs(self, directories):
        timeline = self.world.timeline
        timeline.after(100, lambda: None)
        timeline.until(lambda: timeline.now >= 100)

    def start_again(self, number, token):
        (job,) = self.world.slurm.find(str(number))
        run = Run(self.world, job)
        run.begin()
        self.world.timeline.until(lambda: run.over)
        return run.code

    def end(self):
        pass


def lone(task_id, **more):
    return Submission(Task("true", task_id, time_limit_minutes=5), "run", 1, f"ms-{task_id}", **more)


def elements(**more):
    return [
        Submission(Task("true", f"e{i}"), "run", 1, f"ms-e{i}", array="ms-array", index=i, **more) for i in range(3)
    ]


def scenario(side):
    """Do what a campaign does, and what may go wrong with it."""
    backend = side.backend
    jobs = backend.submit_many([lone("a"), *elements()])
    assert jobs == ["1@run/a/1", *(f"2_{i}@run/e{i}/1" for i in range(3))]
    backend.submit_many([lone("a", again=True), *elements(again=True)])
    assert set(backend.poll_many(jobs)) == set(jobs)
    side.order("refuse")
    (answer,) = backend.submit_many([lone("refused")])
    assert isinstance(answer, SubmitRefusedError)
    side.mend("refuse")
    side.order("lose")
    (answer,) = backend.submit_many([lone("lost")])
    assert isinstance(answer, SubmitInDoubt)
    (found,) = backend.submit_many([lone("lost", again=True)])
    assert isinstance(found, str)
    side.order("ctld")
    answers = backend.submit_many([lone("silent"), lone("behind")])
    assert [type(one) for one in answers] == [SubmitInDoubt, SubmitHeld]
    with pytest.raises(BackendUnavailable):
        backend.poll_many(jobs)
    (answer,) = backend.submit_many([lone("silent", again=True)])
    assert isinstance(answer, SubmitInDoubt)
    side.mend("ctld")
    side.full()
    (answer,) = backend.submit_many([lone("full")])
    side.mend_full()
    assert isinstance(answer, BackendUnavailable)
    backend.submit_many([lone("unwanted", again=True, cancelled=True)])
    side.run_jobs(["run/a/1", *(f"run/e{i}/1" for i in range(3)), "run/lost/1"])
    assert side.start_again(1, "ms-a") == 75
    side.order("dbd")
    fresh = type(side.backend._monitor)(backend._remote, WAITS, requeue=False)
    fresh.poll([*jobs, found])
    side.mend("dbd")
    fresh._ask_of_those_that_left(list(fresh._watched.values()))
    side.order("off")
    fresh._ask_of_those_that_left(list(fresh._watched.values()))
    side.mend("off")
    backend.cancel_many(jobs[:2])
    fresh._ask_of_those_that_left(list(fresh._watched.values()))


def plain(words, text):
    """Return a part without what differs between any two runs: times, nodes, pids, raw ids."""
    line = "\n".join([" ".join(words), text])
    line = re.sub(r"\b\d{9,}(\.\d+)?\b", "TIME", line)
    line = re.sub(r"(?m)^\d+\|(\d[\d_]*\|)", r"RAW|\1", line)
    line = re.sub(r"\|(n1|None assigned)\|", "|NODE|", line)
    line = line.replace("|Priority|", "|None|")
    line = re.sub(r"^((?:started|claim) .* TIME) \S+ \d+ \.", r"\1 NODE PID .", line)
    line = re.sub(r"^(exit .* TIME) n\d (\S+ \.)", r"\1 NODE \2", line)
    return re.sub(r"^(receipt \S+ \d+|claimed \S+ \d+) \d+", r"\1 AGE", line)


@pytest.mark.timeout(200)
def test_the_simulated_shell_says_what_the_real_one_says(tmp_path, monkeypatch):
    said = {}
    for kind in (Real, Simulated):
        here = tmp_path / kind.__name__
        here.mkdir()
        answers = said[kind] = []
        ask = Remote.ask

        def recorded(self, script, lines=(), *, payload=(), ask=ask, answers=answers):
            parts = ask(self, script, lines, payload=payload)
            answers.append([plain(part.words, part.text) for part in parts])
            return parts

        with monkeypatch.context() as patch:
            side = kind(here, patch)
            patch.setattr(Remote, "ask", recorded)
            try:
                scenario(side)
            finally:
                side.end()
    for real, simulated in zip(said[Real], said[Simulated], strict=True):
        assert _rows(simulated) == _rows(real)


def _rows(parts):
    """Return the parts with the rows of listings in an order of their own: that of jobs is nobody's promise."""
    return ["\n".join([part.split("\n")[0], *sorted(part.split("\n")[1:])]) for part in parts]
