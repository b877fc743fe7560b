"""Runs the commands that tell somebody, in a thread of its own, one after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Final

from matterstack.core.events import NotificationDue
from matterstack.core.notices import variables
from matterstack.core.printable import printable

LIMIT_S: Final = 60.0
_LOOK_S: Final = 0.05  # between two looks whether to stop
_SAID: Final = 200  # characters of a command's last words


class Herald:
    """Tells what it is given, in order.

    Args:
        commands: By what they tell of; each run by ``/bin/sh``.
        run: The run.
        wake: Called when there is something to collect.
        limit_s: How long a command may take.
    """

    def __init__(
        self, commands: Mapping[str, str], run: str, wake: Callable[[], None], *, limit_s: float = LIMIT_S
    ) -> None:
        self._commands, self._run, self._wake, self._limit_s = dict(commands), run, wake, limit_s
        self._todo: deque[tuple[int, NotificationDue]] = deque()
        self._told: deque[tuple[int, str]] = deque()
        self._more = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, due: int, event: NotificationDue) -> None:
        """Run the command for this notice, after those given before."""
        self._todo.append((due, event))
        self._more.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="herald", daemon=True)
            self._thread.start()

    def collect(self) -> list[tuple[int, str]]:
        """Return what was told since the last call, each with what went wrong; empty where nothing did."""
        return [self._told.popleft() for _ in range(len(self._told))]

    def stop(self) -> None:
        """End the command at hand and tell nothing more."""
        self._stopped.set()
        self._more.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._more.wait()
            self._more.clear()
            while self._todo and not self._stopped.is_set():
                due, event = self._todo.popleft()
                try:
                    problem = self._tell(due, event)
                except Exception as error:  # noqa: BLE001  # whatever it is, the run is worth more than being told of
                    problem = f"{type(error).__name__}: {error}"
                if problem is not None:
                    self._told.append((due, problem))
                    self._wake()

    def _tell(self, due: int, event: NotificationDue) -> str | None:
        """Return what went wrong, empty where nothing did, None where it was stopped."""
        command = self._commands.get(event.on)
        if command is None:
            return f"the profile has no command for {event.on} any more"
        with tempfile.TemporaryFile() as output:
            child = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **dict(variables(self._run, due, event))},
                start_new_session=True,
            )
            code = self._end_of(child)
            if code == 0:
                return ""
            if self._stopped.is_set():
                return None
            why = f"took longer than {self._limit_s:g} s" if code is None else f"ended with {_exit(code)}"
            said = _last_line(output)
            return f"{why}: {said}" if said else why

    def _end_of(self, child: subprocess.Popen[bytes]) -> int | None:
        """Return the exit code; None where it was ended, with all that it started, since it took too long."""
        until = time.monotonic() + self._limit_s
        while time.monotonic() < until and not self._stopped.is_set():
            with suppress(subprocess.TimeoutExpired):
                return child.wait(_LOOK_S)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return None


def _exit(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _last_line(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4 * _SAID))
    lines = output.read().decode(errors="replace").strip().splitlines()
    return printable(lines[-1][-_SAID:]) if lines else ""
