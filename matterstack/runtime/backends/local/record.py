"""The record of a local attempt: one small file that only ever grows, and whose creation is the run claim.

Its lines: ``start PID TICKS WRAPPER_PID WRAPPER_TICKS BOOT_ID TOKEN``, ``timeout``, ``exit CODE end``; or the
one line ``withdrawn TOKEN``. The token says whose record it is. A line without its line feed is not there yet.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from matterstack.runtime.backends.local.processes import ProcessId

RECORD: Final = ".matterstack.record"
CANCEL_MARK: Final = ".matterstack.cancel"
COMMAND_FILE: Final = ".matterstack.command"


class Record(NamedTuple):
    """What a record says. ``written_at`` is the time of its last line, in seconds since 1970 UTC."""

    process: ProcessId | None = None
    wrapper: ProcessId | None = None
    timed_out: bool = False
    exit_code: int | None = None
    withdrawn: bool = False
    token: str = ""
    written_at: float = 0.0

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
    return Record(process, wrapper, timed_out, exit_code, withdrawn, token, mtime_ns / 1e9)


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
