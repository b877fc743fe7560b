"""Which process is which: a pid alone is reused, so identity is pid, start time and boot.

Source: proc(5), /proc/pid/stat field 22 (clock ticks since boot) and /proc/sys/kernel/random/boot_id.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import NamedTuple


class ProcessId(NamedTuple):
    """One process and no other, also after its pid was reused."""

    pid: int
    start_ticks: int
    boot_id: str


@cache
def boot_id() -> str:
    """Return the id of this boot of the machine, a UUID."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
        return source.read().strip()


def start_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None where there is none or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as source:
            stat = source.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may hold any character, so count from the last one.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@cache
def host() -> str:
    """Return the name of this machine."""
    return os.uname().nodename


def own() -> ProcessId:
    """Return the identity of this process."""
    pid = os.getpid()
    ticks = start_ticks(pid)
    assert ticks is not None
    return ProcessId(pid, ticks, boot_id())


def alive(process: ProcessId) -> bool:
    """Return whether this very process still runs."""
    return process.boot_id == boot_id() and start_ticks(process.pid) == process.start_ticks


@cache
def _boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def started_at(ticks: int) -> float:
    """Return the start time, in seconds since 1970 UTC, of a process of this boot; exact to 0.01 s."""
    return _boot_time() + ticks / os.sysconf("SC_CLK_TCK")
