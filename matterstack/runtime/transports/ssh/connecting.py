"""Opening a connection: dialling, directly or through other hosts, the host's key, the login."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from matterstack.errors import TransportError
from matterstack.runtime.transports.asking import Ask
from matterstack.runtime.transports.known_hosts import look_up
from matterstack.runtime.transports.ssh.destination import Destination, find, last_jump
from matterstack.runtime.transports.ssh.host_key import check_host_key
from matterstack.runtime.transports.ssh.login import Keyring, login
from matterstack.runtime.transports.ssh_config import SSHConfig

# As much as the host may send before it waits for us: enough for 40 MB/s at 100 ms. A slow reader costs four times as
# much memory. Larger packets than the usual 32 KiB cost less per byte.
WINDOW: Final = 1 << 22
_PACKET: Final = 1 << 17
_CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr", "aes192-ctr")
_HOPS_MAX: Final = 8
_SIGNS_MISSED: Final = 2

# Without a handler, Python would print paramiko's tracebacks beside our own one sentence.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Connection:
    """A connection to one host, logged in, and all that it goes through."""

    def __init__(self, name: str, transport: paramiko.Transport, opened: ExitStack) -> None:
        self.name, self.transport = name, transport
        self._opened = opened

    @property
    def alive(self) -> bool:
        """Whether it is not known to be broken."""
        return self.transport.is_active()

    def close(self) -> None:
        """Close it, and what it goes through."""
        self._opened.close()


def connect(config: SSHConfig, keyring: Keyring, ask: Ask | None, hops: int = 0) -> Connection:
    """Return a new connection.

    Raises:
        TransportError: The host was not reached; nothing was started.
        AccessError: Its key is unknown or changed, or it refused the login.
    """
    destination = find(config)
    if hops > _HOPS_MAX:
        raise TransportError(destination.name, f"more than {_HOPS_MAX} hosts to go through", started=False)
    with ExitStack() as opened, plainly(destination):
        sock = _dial(destination, keyring, ask, hops, opened)
        transport = paramiko.Transport(sock, default_window_size=WINDOW, default_max_packet_size=_PACKET)
        opened.callback(transport.close)
        _greet(transport, destination)
        check_host_key(destination, transport.get_remote_server_key())
        login(transport, destination, keyring, ask)
        stop = threading.Event()
        opened.callback(stop.set)
        watch = threading.Thread(target=_watch, args=(transport, config.keepalive_s, stop), daemon=True)
        watch.start()
        return Connection(destination.name, transport, opened.pop_all())
    raise AssertionError  # neither of the two swallows an error


@contextmanager
def plainly(destination: Destination) -> Iterator[None]:
    """Say in plain words why a connection could not be made."""
    try:
        yield
    except socket.gaierror as error:
        cause = f"the name {destination.host} is not known here ({error.strerror})"
    except ConnectionRefusedError:
        cause = f"nothing listens on port {destination.port} of {destination.host} (connection refused)"
    except TimeoutError:
        cause = f"no answer from {destination.host} within {destination.config.connect_timeout_s:g} s"
    except EOFError:
        cause = f"{destination.host} closed the connection before the login"
    except IncompatiblePeer as error:
        cause = f"{destination.host} offers no method that paramiko knows ({error}); transport 'openssh' may do"
    except (OSError, paramiko.SSHException) as error:
        cause = f"no SSH connection to {destination.host}, port {destination.port}: {error}"
    else:
        return
    raise TransportError(destination.name, cause, started=False)


def _dial(
    destination: Destination, keyring: Keyring, ask: Ask | None, hops: int, opened: ExitStack
) -> socket.socket | paramiko.Channel:
    """Return a line to the host's port."""
    timeout_s = destination.config.connect_timeout_s
    target = (destination.host, destination.port)
    if destination.jumps:
        hop = connect(last_jump(destination), keyring, ask, hops + 1)
        opened.callback(hop.close)
        try:
            channel = hop.transport.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=timeout_s)
        except paramiko.ChannelException as error:
            cause = f"{hop.name} could not pass us on to {target[0]}, port {target[1]}: {error.text}"
            raise TransportError(destination.name, cause, started=False) from error
        opened.callback(channel.close)
        return channel
    if destination.proxy_command:
        return _run_proxy(destination.proxy_command, opened)
    sock = socket.create_connection(target, timeout=timeout_s)
    opened.callback(sock.close)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _run_proxy(command: str, opened: ExitStack) -> socket.socket:
    ours, its = socket.socketpair()
    opened.callback(ours.close)
    with its:
        line = its.fileno()
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], stdin=line, stdout=line, stderr=subprocess.DEVNULL, start_new_session=True
        )
    opened.callback(process.wait)
    opened.callback(process.kill)
    return ours


def _greet(transport: paramiko.Transport, destination: Destination) -> None:
    """Agree with the host on keys and ciphers; it proves that it has its host key."""
    timeout_s = destination.config.connect_timeout_s
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = timeout_s
    options = transport.get_security_options()
    options.ciphers = _first(_CIPHERS, options.ciphers)
    # The host shows one of its keys: let it be one that we can compare.
    known = look_up(destination.known_hosts, destination.known_as, destination.port)
    kinds = [kind for entry in known for kind in _algorithms(entry.kind)]
    options.key_types = _first(list(dict.fromkeys(kinds)), options.key_types)
    transport.start_client(timeout=timeout_s)
    if not transport.initial_kex_done:
        raise TimeoutError


def _first(preferred: Sequence[str], offered: Sequence[str]) -> tuple[str, ...]:
    return (*(one for one in preferred if one in offered), *(one for one in offered if one not in preferred))


def _algorithms(kind: str) -> tuple[str, ...]:
    """Return the signatures with which a host proves a key of this kind."""
    return ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa") if kind == "ssh-rsa" else (kind,)


def _watch(transport: paramiko.Transport, every_s: float, stop: threading.Event) -> None:
    """Ask for a sign of life now and then, and close a connection that gives none, so that nothing waits for it."""
    while not stop.wait(every_s) and transport.is_active():
        fuse = threading.Timer(_SIGNS_MISSED * every_s, transport.close)
        fuse.daemon = True
        fuse.start()
        try:
            transport.global_request("keepalive@openssh.com")
        except (OSError, EOFError, paramiko.SSHException):
            return
        finally:
            fuse.cancel()
