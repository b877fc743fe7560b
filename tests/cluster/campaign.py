"""Campaigns on the real cluster, and what must hold of them afterwards."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

from matterstack import Task, Workflow
from matterstack.runtime.backends.hpc import SlurmBackend, SSHConfig, Waits

WAITS = {
    "poll_min_s": 0.3,
    "poll_max_s": 1.5,
    "settle_s": 12.0,
    "again_s": 2.0,
    "grace_s": 3.0,
    "infrastructure_s": 6.0,
    "absence_s": 15.0,
    "held_s": 2.0,
    "command_s": 60.0,
}


def backend_of(cluster, root, tmp_path, *, transport="paramiko", slurm=None, waits=None, **options):
    """Return a SlurmBackend on the cluster, over SSH."""
    ssh = SSHConfig(**cluster.ssh_config_kwargs(), transport=transport)
    settings = {"account": "acct", **(slurm or {})}
    chosen = Waits(**{**WAITS, **(waits or {})})
    return SlurmBackend(ssh, str(root), settings, results_root=tmp_path / "results", waits=chosen, **options)


def counted(log: Path, name: str, command: str = ":", **more) -> Task:
    """Return a task that writes down each of its starts."""
    return Task(f"echo started >>{log}/{name}; {command}", name, **more)


def starts(log: Path) -> dict[str, int]:
    """Return how often each payload was started."""
    return {path.name: len(path.read_text().splitlines()) for path in log.iterdir()}


def mixed(log: Path, count: int, command: str = "sleep 0.2; echo $MATTERSTACK_TASK >out") -> Workflow:
    """Return a campaign of ``count`` tasks alike, each with an output of its own."""
    return Workflow("mixed", [counted(log, f"t{i:03}", command, outputs=["out"]) for i in range(count)])


def controller(cluster, script: str, tmp_path: Path) -> subprocess.Popen:
    """Start another process that drives a run; ``script`` finds the names of this module."""
    head = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    sys.path.insert(0, {str(Path(__file__).parents[2] / "scripts/lib")!r})
    from pathlib import Path
    from campaign import *
    from cluster import Cluster
    from matterstack import *
    cluster = Cluster({str(cluster.home)!r})
    """
    text = textwrap.dedent(head) + textwrap.dedent(script)
    with (tmp_path / "controller.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", text], cwd=tmp_path, stdout=log, stderr=log)


def eventually(holds, what: str, within_s: float = 90.0):
    """Return what ``holds`` returns, once that is true."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def ended(backend, job_id: str, within_s: float = 120.0):
    """Return the job's status once it has ended."""
    return eventually(
        lambda: (s := backend.poll(job_id)).state in ("COMPLETED", "FAILED") and s, f"the end of {job_id}", within_s
    )
