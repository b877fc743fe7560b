"""SSH by the user's own ``ssh``, over one shared connection: for sites with two-factor logins or Kerberos."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from matterstack.errors import AccessError, TransportError
from matterstack.runtime.transports.backoff import Backoff
from matterstack.runtime.transports.base import BOOTSTRAP, COMMAND_S, Reply, Transport, framed
from matterstack.runtime.transports.local import run_process
from matterstack.runtime.transports.openssh_master import SharedConnection
from matterstack.runtime.transports.openssh_words import NOT_SHARED, SESSION_REFUSED, failure
from matterstack.runtime.transports.ssh_config import SSHConfig

_FAILED: Final = 255
_PIPE_MAX: Final = 1 << 20
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class OpenSSHTransport(Transport):
    """Runs scripts on a host by ``ssh``. The connection is made at first use, shared by all threads, and kept.

    Where the user's configuration sets ``ControlPath``, that connection is used, and left open at the end.
    ``ssh`` says by exit code 255 that it failed itself, so no script should end with it.
    """

    def __init__(self, config: SSHConfig, *, backoff: Backoff | None = None) -> None:
        self.name = config.name
        self._config = config
        self._backoff = backoff or Backoff()
        self._lock = threading.Lock()
        self._shared = SharedConnection(config)

    def run(
        self,
        script: str,
        *,
        payload: bytes | Iterable[bytes] = b"",
        sink: Callable[[bytes], None] | None = None,
        timeout_s: float = COMMAND_S,
    ) -> Reply:
        """Return what the script answered; see `Transport.run`."""
        until, tries, broken = time.monotonic() + self._config.connect_timeout_s, 0, False
        source = _Again(framed(script, payload))
        while True:
            self._connect(anew=broken)
            reply = run_process(self.name, self._shared.command(BOOTSTRAP), source, sink, timeout_s)
            if reply.code != _FAILED:
                return reply
            words = reply.stderr.decode(errors="replace")
            if NOT_SHARED not in words:
                raise failure(self._config, words, started=True)
            # The command never began. A connection that broke unnoticed is made anew, once.
            refused = SESSION_REFUSED in words
            if (broken and not refused) or time.monotonic() > until or source.lost:
                cause = "the host allows no further session (MaxSessions?)" if refused else "the connection broke"
                raise TransportError(self.name, cause, started=False)
            broken = broken or not refused
            time.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1

    def close(self) -> None:
        """Close the connection, unless it is the user's own; the next `run` opens another, at once."""
        with self._lock:
            self._backoff.succeeded()
            self._shared.close()

    def _connect(self, *, anew: bool) -> None:
        with self._lock:
            if self._shared.is_open(check=anew):
                return
            self._backoff.check()
            try:
                self._shared.open()
            except (TransportError, AccessError) as error:
                self._backoff.failed(error)
                raise
            self._backoff.succeeded()


class _Again:
    """A source that can begin again, until more of it was taken than a pipe holds."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = iter(source)
        self._kept: list[bytes] = []
        self._written = 0

    @property
    def lost(self) -> bool:
        return self._written > _PIPE_MAX

    def __iter__(self) -> Iterator[bytes]:
        yield from tuple(self._kept)
        for piece in self._source:
            if not self.lost:
                self._kept.append(piece)
            yield piece
            self._written += len(piece)  # the next one is asked for when this one is in the pipe
            if self.lost:
                self._kept.clear()
