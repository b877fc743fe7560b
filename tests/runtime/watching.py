"""Waiting for what happens elsewhere: by looking, with a deadline, never by sleeping a guessed time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import matterstack
from matterstack import ComputeBackend, JobStatus
from matterstack.runtime.backends.local import processes

T = TypeVar("T")
DEADLINE_S = 30.0
SOURCE = str(Path(matterstack.__file__).parents[1])


def eventually(look: Callable[[], T], what: str = "it", within_s: float = DEADLINE_S) -> T:
    """Return the first truthy answer; fail when none came in time."""
    deadline = time.monotonic() + within_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}"
        time.sleep(0.01)
    return answer


def ended(backend: ComputeBackend, job_id: str, within_s: float = DEADLINE_S) -> JobStatus:
    """Return the job's status once it is final."""

    def look() -> JobStatus | None:
        status = backend.poll(job_id)
        return status if status.state in ("COMPLETED", "FAILED") else None

    return eventually(look, f"the end of {job_id}", within_s)


def running(backend: ComputeBackend, job_id: str) -> JobStatus:
    """Return the job's status once it runs."""

    def look() -> JobStatus | None:
        status = backend.poll(job_id)
        assert status.state in ("PENDING", "RUNNING"), status
        return status if status.state == "RUNNING" else None

    return eventually(look, f"the start of {job_id}")


def lives(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    return processes.start_ticks(pid) is not None


def number_in(path: Path) -> int:
    """Return the number that a task writes into a file, once it is whole."""
    return int(eventually(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text(), str(path)))


def python(
    code: str, *arguments: object, env: Mapping[str, str] | None = None, **options: object
) -> subprocess.Popen[str]:
    """Start another process of this Python with the code."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE, **(env or {})},
        **options,
    )


def finished(process: subprocess.Popen[str], within_s: float = DEADLINE_S) -> str:
    """Return what the process printed; fail when it failed."""
    out, err = process.communicate(timeout=within_s)
    assert process.returncode == 0, err
    return out


def line_from(process: subprocess.Popen[str]) -> str:
    """Return the next line the process prints."""
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return line.strip()


def end_all(pids: Iterable[int]) -> None:
    """Kill what a test may have left."""
    for pid in pids:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue
