"""A run with all that provenance has to tell."""

from __future__ import annotations

from journal import NewEvent
from matterstack.core import events as ev
from matterstack.core.usage import Usage
from matterstack.runtime.opening import open_journal

SHA = "ab" * 32
SECOND = 1_000_000
SLURM = {
    "name": "hpc",
    "backend": "slurm",
    "workspace_root": "/scratch/w",
    "ssh": {"hostname": "login", "key_filename": "/home/u/.ssh/secret"},
    "slurm": {"account": "m1", "partition": "regular", "modules": ["module load vasp/6.3"]},
}
LOCAL = {"name": "laptop", "backend": "local", "workspace_root": "/home/u/results"}
RELAX = {
    "command": "vasp_std > out",
    "files": {
        "INCAR": {"text": "ENCUT = 500\n"},
        "POSCAR": {"path": "/home/u/POSCAR", "sha256": SHA, "stat": [7, 1, 2]},
    },
    "env": {"OMP_NUM_THREADS": "1"},
    "image": "docker://vasp:6",
    "cores": 16,
    "outputs": ["*.xml"],
}
PLOT = {"command": "plot 'a b'", "files": {"in": {"task": "relax", "output": "run.xml"}}, "image": "docker://vasp:6"}


def make(path):
    """Write the run's journal."""
    with open_journal(path) as journal:

        def note(event, task="", at_s=0):
            subject = f"scan/{task}" if task else "scan"
            data = ev.encode(event)
            journal.append("scan", [NewEvent(type(event).__name__, subject, data)], at=(1_790_000_000 + at_s) * SECOND)

        note(ev.RunCreated("k", "scan of a", "0.1.0", SLURM))
        note(ev.RunStarted("front1", 11, "boot1", "0.1.0", SLURM, {"laptop": LOCAL}, "ada"))
        note(ev.TaskAdded(0, "h1", RELAX), "relax")
        note(ev.TaskAdded(1, "h2", PLOT), "plot")
        note(ev.SubmitRequested(1, "t1"), "relax", 1)
        note(ev.JobSubmitted("71"), "relax", 2)
        note(ev.JobStarted(1_790_000_003.0, "nid1"), "relax", 3)
        note(ev.TaskFailed("OUT_OF_MEMORY", 1_790_000_004.5, None, 9, "killed"), "relax", 5)
        note(ev.RunStopped("interrupted"), "", 6)
        note(ev.RunStarted("front2", 12, "boot2", "0.2.0", SLURM, {"laptop": LOCAL}, "grace"), "", 7)
        note(ev.TaskRetried("asked for"), "relax", 8)
        note(ev.SubmitRequested(2, "t2"), "relax", 9)
        note(ev.JobSubmitted("72"), "relax", 10)
        note(ev.JobStarted(1_790_000_011.0, "nid2"), "relax", 11)
        note(ev.TaskCompleted(1_790_000_020.0), "relax", 20)
        note(ev.UsageRecorded(2, Usage("sacct", cpus=16, max_rss=5_000_000, cpu_s=100.0), 16), "relax", 21)
        note(ev.FilesRecorded(2, {"run.xml": ev.FileSum("cd" * 32, 99)}), "relax", 22)
        note(ev.SubmitRequested(1, "t3", profile="laptop"), "plot", 23)
        note(ev.JobSubmitted("scan/plot/1"), "plot", 24)
        note(ev.TaskCompleted(1_790_000_025.0), "plot", 25)
        note(ev.RunStopped("finished"), "", 26)
