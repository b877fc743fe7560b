"""Sessions of a connection: hosts allow only some at a time."""

from __future__ import annotations

import time
from typing import Final

import paramiko

from matterstack.errors import TransportError
from matterstack.runtime.transports.ssh.connecting import Connection

_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class ConnectionLost(Exception):
    """The connection does not answer; another one may."""


def open_session(connection: Connection, timeout_s: float) -> paramiko.Channel:
    """Return a channel for one command, waiting up to ``timeout_s`` seconds while the host refuses another session.

    Raises:
        TransportError: The host refuses another session.
        ConnectionLost: It does not answer.
    """
    until, tries = time.monotonic() + timeout_s, 0
    while True:
        try:
            return connection.transport.open_session(timeout=timeout_s)
        except paramiko.ChannelException as error:
            if time.monotonic() > until:
                cause = f"the host allows no further session (MaxSessions?): {error.text}"
                raise TransportError(connection.name, cause, started=False) from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise ConnectionLost(str(error) or type(error).__name__) from error
        time.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
        tries += 1
