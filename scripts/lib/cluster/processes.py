"""Processes as /proc tells of them, and which belong to a cluster."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

MARK = "MATTERSTACK_TEST_CLUSTER"  # in the environment of its daemons and of what is started over its ssh


def _fields(pid: int) -> list[str]:
    """Return what /proc says of a process from its state on; empty where there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in "ZX" else fields


def identity(pid: int) -> tuple[str, str]:
    """Return a process and when it was started, in ticks since boot; the latter empty where there is none."""
    fields = _fields(pid)
    return str(pid), fields[19] if fields else ""


def lives(who: Sequence[str] | None) -> bool:
    """Return whether there still is the process of that identity."""
    return bool(who) and len(who) == 2 and bool(who[1]) and identity(int(who[0])) == tuple(who)


def is_stopped(pid: int) -> bool:
    """Return whether a process stands still after SIGSTOP."""
    return _fields(pid)[:1] == ["T"]


def name_of(pid: int) -> str:
    """Return the name of its program; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def children(pid: int) -> Iterator[int]:
    """Yield all descendants of a process."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from children(int(child))


def kill(pid: int) -> None:
    """Kill a process, unless it has ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_all_of(home: Path) -> None:
    """Kill the cluster's jobs, what watches them, and what was started over its ssh: they outlive its daemons."""
    deadline = time.monotonic() + 30
    while (found := set(_belonging(home))) and time.monotonic() < deadline:
        for pid in found.union(*map(children, found)):
            kill(pid)
        time.sleep(0.02)  # until they are gone; one of them may just have started another


def _belonging(home: Path) -> Iterator[int]:
    mark, conf = f"{MARK}={home}".encode(), f"SLURM_CONF={home / 'slurm.conf'}".encode()
    spared = set(_ancestry())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared or not _fields(int(entry.name)):
            continue
        with suppress(OSError):
            words = (entry / "environ").read_bytes().split(b"\0")
            # SLURM_CONF alone is no sign: people export it to ask the cluster.
            of_slurm = conf in words and (
                name_of(int(entry.name)) == "slurmstepd" or any(word.startswith(b"SLURM_JOB_ID=") for word in words)
            )
            if of_slurm or mark in words:
                yield int(entry.name)


def _ancestry() -> Iterator[int]:
    pid = os.getpid()
    while pid:
        yield pid
        fields = _fields(pid)
        pid = int(fields[1]) if fields else 0
