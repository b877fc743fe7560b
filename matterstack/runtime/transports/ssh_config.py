"""How to reach a host by SSH: the settings, and the transport they ask for."""

from __future__ import annotations

import os
import re
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from matterstack.runtime.transports.base import Transport

_NAME: Final = re.compile(r"[^-\s@/\x00-\x1f\x7f][^\s@/\x00-\x1f\x7f]*")
_USER: Final = re.compile(r"[^-\s:\x00-\x1f\x7f][^\s:\x00-\x1f\x7f]*")
_JUMP: Final = re.compile(
    r"(?:(?P<user>[^-\s:,][^\s:,]*)@)?(?P<host>\[[^\s\]@,/-][^\s\]@,/]*\]|[^-\s:@,/[][^\s:@,/]*)(?::(?P<port>\d{1,5}))?"
)


class SSHConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach a login node. What is not given here is looked up in ``~/.ssh/config``, as ``ssh`` does.

    Making one reads no file and opens no connection.

    Attributes:
        hostname: The host's name or address, or an alias from the configuration file.
        username: User there; by default the one of the configuration file, else that of this machine.
        key_filename: Private key; then no other key of the agent is offered.
        port: Port there; by default that of the configuration file, else 22.
        known_hosts: File with the keys of known hosts. A host that is not in it is refused.
        proxy_jump: Hosts to go through, ``[user@]host[:port]``, separated by commas; ``none`` for none.
        connect_timeout_s: Longest wait in seconds for a connection, above 0.
        keepalive_s: After so many seconds, above 0, a sign of life is asked for; a host that gives none is left.
        agent: Whether keys of the running ``ssh-agent`` are offered.
        transport: ``paramiko``, or ``openssh`` for the installed ``ssh`` and all that it can do.
        ssh_config: The user's configuration file.

    Raises:
        TypeError: A field has the wrong type.
        ValueError: A field cannot mean anything.
    """

    hostname: str
    username: str | None = None
    key_filename: str | None = None
    port: int | None = None
    known_hosts: str = "~/.ssh/known_hosts"
    proxy_jump: str | None = None
    connect_timeout_s: float = 20
    keepalive_s: float = 30
    agent: bool = True
    transport: Literal["paramiko", "openssh"] = "paramiko"
    ssh_config: str = "~/.ssh/config"

    def __post_init__(self) -> None:
        for field in ("key_filename", "known_hosts", "ssh_config"):
            if isinstance(value := getattr(self, field), os.PathLike):
                force_setattr(self, field, os.fspath(value))
        _check_texts(self)
        _check_port("port", self.port)
        for field in ("connect_timeout_s", "keepalive_s"):
            _check_seconds(field, getattr(self, field))
        if not isinstance(self.agent, bool):
            raise TypeError(f"agent: must be true or false, not {self.agent!r}")
        if self.transport not in {"paramiko", "openssh"}:
            raise ValueError(f"transport: must be 'paramiko' or 'openssh', not {self.transport!r}")

    @property
    def name(self) -> str:
        """What messages call the host: ``user@host``, as far as it is given here."""
        return f"{self.username}@{self.hostname}" if self.username else self.hostname


class Jump(Struct, frozen=True):
    """One host to go through."""

    host: str
    user: str | None = None
    port: int | None = None


def jumps_of(text: str | None) -> tuple[Jump, ...]:
    """Return the hosts of a ``ProxyJump`` setting, the nearest first.

    Raises:
        ValueError: It is not ``[user@]host[:port]``, separated by commas.
    """
    if text is None or text.lower() == "none":
        return ()
    jumps = []
    for part in text.split(","):
        match = _JUMP.fullmatch(part.strip().removeprefix("ssh://"))
        if not match:
            raise ValueError(f"proxy_jump: must be [user@]host[:port], separated by commas, not {text!r}")
        port = int(match["port"]) if match["port"] else None
        _check_port("proxy_jump", port)
        jumps.append(Jump(match["host"].strip("[]"), match["user"], port))
    return tuple(jumps)


def open_transport(ssh: SSHConfig | None) -> Transport:
    """Return the way to a host, which connects when it is first used; None means this machine itself."""
    # Each is imported only where it is asked for: paramiko alone takes a tenth of a second.
    if ssh is None:
        from matterstack.runtime.transports.local import LocalTransport

        return LocalTransport()
    if ssh.transport == "openssh":
        from matterstack.runtime.transports.openssh import OpenSSHTransport

        return OpenSSHTransport(ssh)
    from matterstack.runtime.transports.ssh import SSHTransport

    return SSHTransport(ssh)


def _check_texts(config: SSHConfig) -> None:
    for field in ("hostname", "username", "key_filename", "known_hosts", "proxy_jump", "ssh_config"):
        value = getattr(config, field)
        if value is None and field in {"username", "key_filename", "proxy_jump"}:
            continue
        if not isinstance(value, str):
            raise TypeError(f"{field}: must be a text, not {value!r}")
        if not value or not value.isprintable():
            raise ValueError(f"{field}: must be a non-empty text without control characters, not {value!r}")
    if "@" in config.hostname:
        raise ValueError(f"hostname: must be a host only, not {config.hostname!r}; the user goes into username")
    if not _NAME.fullmatch(config.hostname):
        raise ValueError(f"hostname: must be the name or address of a host, not {config.hostname!r}")
    if config.username is not None and not _USER.fullmatch(config.username):
        raise ValueError(f"username: must be the name of a user, not {config.username!r}")
    jumps_of(config.proxy_jump)


def _check_port(field: str, port: object) -> None:
    if port is None:
        return
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"{field}: must be a whole number, not {port!r}")
    if not 0 < port < 1 << 16:
        raise ValueError(f"{field}: must be from 1 to 65535, not {port}")


def _check_seconds(field: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{field}: must be a number of seconds, not {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{field}: must be above 0, in seconds, not {value}")
