"""Daemons that we started, told from other processes with the same number by the time of their start."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError
from cluster.processes import identity, is_stopped, lives


class Daemon:
    """One program of a cluster, with its pid file and log in the cluster's directory."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._pid_file, self.log = directory / f"{name}.run", directory / f"{name}.out"

    @property
    def pid(self) -> int | None:
        """Its process, None where it does not run."""
        try:
            who = self._pid_file.read_text().split()
        except OSError:
            return None
        return int(who[0]) if lives(who) else None

    @property
    def state(self) -> str:
        """What `status` says of it."""
        pid = self.pid
        return "does not run" if pid is None else f"pid {pid}{', stopped' if is_stopped(pid) else ''}"

    def start(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it, unless it runs."""
        if self.pid is not None:
            return
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
                cwd="/",
            )
        # By rename, since others may ask for it at this moment.
        new = self._pid_file.with_suffix(".new")
        new.write_text(" ".join(identity(process.pid)))
        new.replace(self._pid_file)

    def send(self, number: int) -> None:
        """Send it a signal; nothing where it does not run."""
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, number: int = signal.SIGTERM, within_s: float = 10.0) -> None:
        """End it; what does not end in time is killed."""
        self.send(number)
        self.send(signal.SIGCONT)
        with suppress(ClusterError):
            until(lambda: self.pid is None, f"the end of {self.name}", within_s)
        self.send(signal.SIGKILL)
        until(lambda: self.pid is None, f"the end of {self.name}")

    def last_words(self) -> str:
        """Return the end of its log, and of the one that Slurm's daemons write themselves."""
        ends = []
        for path in (self.log, self.log.with_suffix(".log")):
            with suppress(OSError):
                ends.append(path.read_text(errors="replace")[-2000:])
        return "".join(ends)


def until(holds: Callable[[], object], what: str, within_s: float = 90.0) -> None:
    """Return when it holds.

    Raises:
        ClusterError: It does not in time.
    """
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {within_s:.0f} s in vain for {what}")
        time.sleep(0.05)
