"""SSH by paramiko: one connection for all threads. The only place that knows paramiko, loaded at first use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from matterstack.errors import AccessError, TransportError
from matterstack.runtime.transports.asking import Ask, person
from matterstack.runtime.transports.backoff import Backoff
from matterstack.runtime.transports.base import COMMAND_S, Reply, Transport, framed
from matterstack.runtime.transports.ssh_config import SSHConfig

if TYPE_CHECKING:  # paramiko takes a tenth of a second to load
    import paramiko

    from matterstack.runtime.transports.ssh.connecting import Connection


class SSHTransport(Transport):
    """Runs scripts on a host over one connection, which is made at first use and made anew after it broke."""

    def __init__(self, config: SSHConfig, *, ask: Ask | None = None, backoff: Backoff | None = None) -> None:
        """Open nothing yet.

        Args:
            config: Where the host is.
            ask: Asks a person for a passphrase or one-time password; by default at the terminal, if there is one.
            backoff: When to connect again after failures.
        """
        self.name = config.name
        self._config, self._ask = config, ask
        self._backoff = backoff or Backoff()
        self._keyring: dict[str, paramiko.PKey] = {}
        self._connection: Connection | None = None
        self._lock = threading.Lock()

    def run(
        self,
        script: str,
        *,
        payload: bytes | Iterable[bytes] = b"",
        sink: Callable[[bytes], None] | None = None,
        timeout_s: float = COMMAND_S,
    ) -> Reply:
        """Return what the script answered; see `Transport.run`."""
        from matterstack.runtime.transports.ssh.exchange import exchange

        return exchange(self.name, self._open_channel(), framed(script, payload), sink, timeout_s)

    def close(self) -> None:
        """Close the connection; the next `run` opens another, at once."""
        with self._lock:
            self._backoff.succeeded()
            if self._connection:
                self._connection.close()
                self._connection = None

    def _open_channel(self) -> paramiko.Channel:
        from matterstack.runtime.transports.ssh.sessions import ConnectionLost, open_session

        while True:
            connection, kept = self._connected()
            try:
                return open_session(connection, self._config.connect_timeout_s)
            except ConnectionLost as error:
                self._leave(connection)
                if not kept:
                    raise TransportError(self.name, f"the connection broke: {error}", started=False) from error

    def _connected(self) -> tuple[Connection, bool]:
        """Return the connection, and whether it was there before and may have broken unnoticed."""
        from matterstack.runtime.transports.ssh.connecting import connect

        with self._lock:
            if self._connection and self._connection.alive:
                return self._connection, True
            if self._connection:
                self._connection.close()
                self._connection = None
            self._backoff.check()
            try:
                self._connection = connect(self._config, self._keyring, self._ask or person())
            except (TransportError, AccessError) as error:
                self._backoff.failed(error)
                raise
            self._backoff.succeeded()
            return self._connection, False

    def _leave(self, connection: Connection) -> None:
        with self._lock:
            connection.close()
            if self._connection is connection:
                self._connection = None
