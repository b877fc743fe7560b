"""One command over a channel of a connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Final

import paramiko

from matterstack.errors import TransportError
from matterstack.runtime.transports.base import BOOTSTRAP, Reply
from matterstack.runtime.transports.ssh.connecting import WINDOW

_CHUNK: Final = 1 << 15  # sshd takes no larger packets
_GONE: Final = (OSError, EOFError, paramiko.SSHException)


def exchange(
    name: str,
    channel: paramiko.Channel,
    source: Generator[bytes],
    sink: Callable[[bytes], None] | None,
    timeout_s: float,
) -> Reply:
    """Return the reply of the script in ``source``, over a channel that was opened for it.

    Raises:
        TransportError: The connection broke, or no byte moved for ``timeout_s``.
    """
    talk = _Exchange(channel, source, timeout_s)
    feeder, listener = (threading.Thread(target=part, daemon=True) for part in (talk.feed, talk.listen))
    feeder.start()
    listener.start()
    out: list[bytes] = []
    try:
        talk.drain(sink or out.append)
        code = talk.code()
    except _Silence:
        raise TransportError(name, f"no answer for {timeout_s:g} s", started=True) from None
    finally:
        if not channel.closed:
            # By a thread of its own: where the connection hangs, so does this, until the connection is given up.
            threading.Thread(target=_close, args=(channel,), daemon=True).start()
    feeder.join(timeout_s)
    if talk.error is not None:
        raise talk.error
    if code < 0:
        raise TransportError(name, "the connection broke, or the command was killed, before it ended", started=True)
    return Reply(code, b"".join(out), b"".join(talk.err))


def _close(channel: paramiko.Channel) -> None:
    with suppress(*_GONE):
        channel.close()


class _Silence(Exception):
    """No byte moved for too long."""


class _SourceFailed(Exception):
    """The payload could not be made; its cause belongs to the caller."""


class _Exchange:
    """Feeds the command and drains both of its outputs at once, so that no full window stops either side."""

    def __init__(self, channel: paramiko.Channel, source: Generator[bytes], timeout_s: float) -> None:
        self._channel, self._source, self._timeout_s = channel, source, timeout_s
        self._moved = time.monotonic()
        self._heard = threading.Event()
        self.err: list[bytes] = []
        self.error: BaseException | None = None
        channel.settimeout(timeout_s)

    def feed(self) -> None:
        """Start the command and send what it reads. It is no error when it reads no more: its exit code tells why."""
        try:
            self._channel.exec_command(BOOTSTRAP)
            while self._send(self._next()):
                pass
            self._channel.shutdown_write()
        except _GONE:
            pass
        except _SourceFailed as error:
            self.error = error.__cause__
            _close(self._channel)
        finally:
            self._source.close()

    def _next(self) -> bytes | None:
        try:
            return next(self._source, None)
        except BaseException as error:
            raise _SourceFailed from error

    def _send(self, piece: bytes | None) -> bool:
        """Send a piece; return whether there is more to do."""
        if piece is None:
            return False
        view = memoryview(piece)
        for start in range(0, len(view), _CHUNK):
            rest = bytes(view[start : start + _CHUNK])
            while rest:
                try:
                    sent = self._channel.send(rest)
                except TimeoutError:  # the window is full; `drain` knows when that is too long
                    continue
                if not sent:
                    raise EOFError
                self._moved = time.monotonic()
                rest = rest[sent:]
        return True

    def listen(self) -> None:
        """Take the standard error."""
        while True:
            try:
                piece = self._channel.recv_stderr(WINDOW)
            except TimeoutError:
                continue
            if not piece:
                break
            self._moved = time.monotonic()
            self.err.append(piece)
        self._heard.set()

    def drain(self, out: Callable[[bytes], None]) -> None:
        """Take the standard output, to its end.

        Raises:
            _Silence: No byte moved for too long.
        """
        while True:
            # Whatever is there at once: paramiko moves all the rest when a part is taken.
            try:
                piece = self._channel.recv(WINDOW)
            except TimeoutError:
                self._channel.settimeout(self._left_s())
                continue
            if not piece:
                return
            self._moved = time.monotonic()
            out(piece)

    def code(self) -> int:
        """Return the exit code, or -1 where there was none."""
        for event in (self._heard, self._channel.status_event):
            while not event.wait(self._left_s()):
                pass
        return self._channel.exit_status

    def _left_s(self) -> float:
        left_s = self._moved + self._timeout_s - time.monotonic()
        if left_s <= 0:
            raise _Silence
        return left_s
