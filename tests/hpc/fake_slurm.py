"""A Slurm in a directory: commands on PATH, jobs as real processes, faults to order. It outlives who uses it.

Calibrated on the real one (tests/hpc/recordings): the same words, exit codes and formats. It is for faults that the
real one cannot be made to show at a given moment, and for crash points by the hundred.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from contextlib import suppress
from pathlib import Path

PROGRAM = Path(__file__).with_name("fake_slurm_commands.py")
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol")


class FakeSlurm:
    """Makes the commands in ``<directory>/bin``; put that first on PATH."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.bin = directory, directory / "bin"
        self.bin.mkdir(parents=True)
        for name in ("jobs", "faults"):
            (directory / name).mkdir()
        for name in COMMANDS:
            command = self.bin / name
            command.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {PROGRAM} {directory} {name} "$@"\n')
            command.chmod(command.stat().st_mode | stat.S_IXUSR)

    def use(self, monkeypatch) -> None:
        """Put its commands first on PATH."""
        monkeypatch.setenv("PATH", f"{self.bin}:{os.environ['PATH']}")

    def order(self, fault: str, text: str = "") -> None:
        """Order a fault: see `fake_slurm_commands`."""
        (self.directory / "faults" / fault).write_text(text)

    def mend(self, fault: str) -> None:
        """Take a fault back."""
        (self.directory / "faults" / fault).unlink(missing_ok=True)

    def calls(self, name: str) -> int:
        """Return how often a command was called."""
        log = self.directory / f"{name}.calls"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def jobs(self) -> list[Path]:
        """Return the jobs and array elements that were accepted, one file each."""
        return sorted((self.directory / "jobs").iterdir())

    def forget(self, job: Path) -> None:
        """Lose a job as a controller does that is killed too soon; its processes, if any, are ended."""
        with suppress(ValueError, ProcessLookupError, FileNotFoundError, PermissionError):
            os.killpg(int((job / "pid").read_text()), signal.SIGKILL)
        for file in job.iterdir():
            file.unlink(missing_ok=True)
        job.rmdir()

    def end(self) -> None:
        """End all that still runs."""
        for job in self.jobs():
            with suppress(ValueError, ProcessLookupError, FileNotFoundError, PermissionError):
                os.killpg(int((job / "pid").read_text()), signal.SIGKILL)
