"""On the login node itself: commands of this machine, without SSH."""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO

from matterstack.errors import TransportError
from matterstack.runtime.transports.base import COMMAND_S, Reply, Transport, framed

_PIECE = 1 << 18
_PIPE = 1 << 20


class LocalTransport(Transport):
    """Runs scripts by ``sh`` on this machine, each in a session of its own."""

    def __init__(self) -> None:
        self.name = "this machine"

    def run(
        self,
        script: str,
        *,
        payload: bytes | Iterable[bytes] = b"",
        sink: Callable[[bytes], None] | None = None,
        timeout_s: float = COMMAND_S,
    ) -> Reply:
        """Return what the script answered; see `Transport.run`."""
        command = ["sh", "-c", 'read -r n && eval "$(head -c "$n")"']
        return run_process(self.name, command, framed(script, payload), sink, timeout_s)

    def close(self) -> None:
        """Do nothing: there is no connection."""


def run_process(
    name: str,
    command: list[str],
    source: Iterable[bytes],
    sink: Callable[[bytes], None] | None,
    timeout_s: float,
) -> Reply:
    """Return the reply of a process of this machine that is fed from ``source``.

    Raises:
        TransportError: It could not be started, or no byte moved for ``timeout_s``; then it was ended.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise TransportError(name, f"{command[0]}: {error.strerror}", started=False) from error
    out: list[bytes] = []
    err: list[bytes] = []
    _widen(process.stdout)
    with process:
        try:
            _pump(process, iter(source), sink or out.append, err.append, timeout_s)
            return Reply(process.wait(timeout_s), b"".join(out), b"".join(err))
        except (_Silence, subprocess.TimeoutExpired):
            raise TransportError(name, f"no answer for {timeout_s:g} s", started=True) from None
        finally:
            # Until it was waited for, the number of its process group belongs to nobody else.
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _widen(pipe: IO[bytes] | None) -> None:
    """Let the pipe hold more, where that can be said: both sides then wait less for each other."""
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):  # more than the user's share
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)


class _Silence(Exception):
    """No byte moved for too long."""


def _pump(
    process: subprocess.Popen[bytes],
    source: Iterator[bytes],
    out: Callable[[bytes], None],
    err: Callable[[bytes], None],
    timeout_s: float,
) -> None:
    """Feed the process and drain both of its outputs at once, so that no full pipe stops either side."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        feed = _Feed(process.stdin, source)
        moved = time.monotonic()
        while selector.get_map():
            ready = selector.select(max(0.0, moved + timeout_s - time.monotonic()))
            if not ready:
                raise _Silence
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    more = feed.write()
                else:
                    piece = os.read(key.fd, _PIECE)
                    more = bool(piece)
                    if piece:
                        key.data(piece)
                if not more:
                    selector.unregister(key.fileobj)
                    if key.fileobj is process.stdin:
                        process.stdin.close()
            moved = time.monotonic()


class _Feed:
    """Writes to a pipe what it takes."""

    def __init__(self, pipe: IO[bytes], source: Iterator[bytes]) -> None:
        self._pipe, self._source = pipe, source
        self._rest = memoryview(b"")

    def write(self) -> bool:
        """Write once; return whether there may be more."""
        while not self._rest:
            piece = next(self._source, None)
            if piece is None:
                return False
            self._rest = memoryview(piece)
        try:
            self._rest = self._rest[os.write(self._pipe.fileno(), self._rest[:_PIECE]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # it reads no more; its exit code tells why
            return False
        return True
