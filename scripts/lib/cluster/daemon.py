"""Processes that we started, told from others with the same number by the time of their start."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.errors import ClusterError


def start_ticks(pid: int) -> str | None:
    """Return when a process was started, in ticks since boot; None where there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class Daemon:
    """One program of a cluster, with its pid file and log in the cluster's directory."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._pid_file, self.log = directory / f"{name}.run", directory / f"{name}.out"

    @property
    def pid(self) -> int | None:
        """Its process, None where it does not run."""
        try:
            pid, ticks = self._pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if start_ticks(int(pid)) == ticks else None

    def start(self, argv: Sequence[str], environment: Mapping[str, str], user: str | None = None) -> None:
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
                user=user,
                group=user,
                extra_groups=[] if user else None,
                cwd="/",
            )
        self._pid_file.write_text(f"{process.pid} {start_ticks(process.pid)}")

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
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


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


def with_environment(name: str, value: str) -> Iterator[int]:
    """Yield the processes that have this in their environment."""
    wanted = f"{name}={value}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def children(pid: int) -> Iterator[int]:
    """Yield all descendants of a process."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from children(int(child))
