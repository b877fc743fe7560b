"""The record of a local attempt: one small file that only ever grows, and whose creation is the run claim.

Its lines: ``start PID TICKS WRAPPER_PID WRAPPER_TICKS BOOT_ID TOKEN``, ``timeout``, ``exit CODE end``; or the
one line ``withdrawn TOKEN``. The token says whose record it is. A line without its line feed is not there yet.
Before the start and before the end stand the two lines of bash's ``times``, which earlier versions did not write.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from matterstack.runtime.backends.local.processes import ProcessId

RECORD: Final = ".matterstack.record"
CANCEL_MARK: Final = ".matterstack.cancel"
COMMAND_FILE: Final = ".matterstack.command"
# The second line of `times` is of what the shell has waited for: user and system. The decimal point is the locale's.
_TIME: Final = rb"(\d+)m(\d+)[^\d\s]+(\d{3})s"
_TIMES: Final = rb"%s %s\n%s %s\n" % (*[_TIME.replace(b"(", b"(?:")] * 2, _TIME, _TIME)
_USED: Final = re.compile(_TIMES + rb"start [\s\S]*" + _TIMES + rb"\nexit ")


class Record(NamedTuple):
    """What a record says. ``written_at`` is the time of its last line, in seconds since 1970 UTC.

    ``cpu_s``: user and system time, in seconds, of the command and what it waited for; None where it is not known.
    """

    process: ProcessId | None = None
    wrapper: ProcessId | None = None
    timed_out: bool = False
    exit_code: int | None = None
    withdrawn: bool = False
    token: str = ""
    written_at: float = 0.0
    cpu_s: float | None = None

    @property
    def ended_at(self) -> float | None:
        """When the end was written, or None while there is none."""
        return self.written_at if self.exit_code is not None or self.withdrawn else None


def read(directory: Path | str) -> Record | None:
    """Return the attempt's record, or None while nobody has claimed it."""
    try:
        fd = os.open(f"{directory}/{RECORD}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return parse(os.read(fd, 4096), os.fstat(fd).st_mtime_ns)
    finally:
        os.close(fd)


def parse(data: bytes, mtime_ns: int) -> Record:
    """Return what the bytes of a record say; lines that are cut or foreign say nothing."""
    process = wrapper = exit_code = None
    timed_out = withdrawn = False
    token = ""
    for line in data.split(b"\n")[:-1]:
        match line.split():
            case [b"start", pid, ticks, wrapper_pid, wrapper_ticks, boot, name] if process is None:
                if pid.isdigit() and ticks.isdigit() and wrapper_pid.isdigit() and wrapper_ticks.isdigit():
                    boot_id = boot.decode("ascii", "replace")
                    process = ProcessId(int(pid), int(ticks), boot_id)
                    wrapper = ProcessId(int(wrapper_pid), int(wrapper_ticks), boot_id)
                    token = name.decode("ascii", "replace")
            case [b"timeout"]:
                timed_out = True
            case [b"exit", code, b"end"] if code.isdigit() and exit_code is None:
                exit_code = int(code)
            case [b"withdrawn", name]:
                withdrawn, token = True, name.decode("ascii", "replace")
    cpu_s = _cpu_s(data) if exit_code is not None else None
    return Record(process, wrapper, timed_out, exit_code, withdrawn, token, mtime_ns / 1e9, cpu_s)


def _cpu_s(data: bytes) -> float | None:
    found = _USED.match(data)
    if found is None:
        return None
    words = found.groups()
    used = _millis(words[6:]) - _millis(words[:6])
    return used / 1000 if used >= 0 else None


def _millis(words: tuple[bytes, ...]) -> int:
    """Return user and system time together, of which each is given as minutes, seconds and thousandths."""
    return (int(words[0]) + int(words[3])) * 60_000 + int(words[1] + words[2]) + int(words[4] + words[5])


def withdraw(directory: Path | str, token: str) -> bool:
    """Take the run claim so that the attempt can never start; return False where it was taken before.

    The record appears whole: a disk without room leaves no claim behind.

    Raises:
        OSError: It cannot be written.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    part = f"{directory}/{RECORD}.{os.getpid()}.{threading.get_ident()}"
    try:
        with open(part, "w", encoding="ascii") as written:
            written.write(f"withdrawn {token}\n")
        os.link(part, f"{directory}/{RECORD}")
    except FileExistsError:
        return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
    return True
