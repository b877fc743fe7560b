"""Where a host is and how to log in there, by our settings and the user's ``~/.ssh/config``."""

from __future__ import annotations

import getpass
import glob
import os
import shlex
from collections.abc import Iterator
from typing import Final

import paramiko
from msgspec import Struct
from msgspec.structs import replace

from matterstack.errors import AccessError
from matterstack.runtime.transports.ssh_config import Jump, SSHConfig, jumps_of

_DEFAULT_KEYS: Final = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_USERS_CONFIG: Final = "~/.ssh/config"
_USERS_KNOWN: Final = "~/.ssh/known_hosts"
_EVERYBODYS_KNOWN: Final = "/etc/ssh/ssh_known_hosts"
_INCLUDES_MAX: Final = 16  # as for ssh


class Destination(Struct, frozen=True):
    """One host, with everything looked up. ``known_as`` is its name in the files of known hosts."""

    name: str
    host: str
    port: int
    user: str
    known_as: str
    known_hosts: tuple[str, ...]
    keys: tuple[str, ...]
    only_keys: bool
    jumps: tuple[Jump, ...]
    proxy_command: str | None
    config: SSHConfig


def find(config: SSHConfig) -> Destination:
    """Return where the host is.

    Raises:
        AccessError: The user's configuration file, or a key file that was asked for, cannot be read.
    """
    found = _settings(config)
    host = str(found.get("hostname") or config.hostname)
    user = str(found.get("user") or getpass.getuser())
    port = int(found.get("port") or 22)
    return Destination(
        name=f"{user}@{host}" + (f":{port}" if port != 22 else ""),
        host=host,
        port=port,
        user=user,
        known_as=str(found.get("hostkeyalias") or host),
        known_hosts=_known_hosts(config, found),
        keys=_keys(config, found),
        only_keys=config.key_filename is not None or found.get("identitiesonly", "no").lower() == "yes",
        jumps=jumps_of(config.proxy_jump or found.get("proxyjump")),
        proxy_command=None if config.proxy_jump else found.get("proxycommand"),
        config=config,
    )


def last_jump(destination: Destination) -> SSHConfig:
    """Return how to reach the host through which the destination is reached; it has settings of its own."""
    *before, last = destination.jumps
    via = ",".join(f"{j.user}@" * bool(j.user) + f"[{j.host}]" + f":{j.port}" * bool(j.port) for j in before)
    return replace(destination.config, hostname=last.host, username=last.user, port=last.port, proxy_jump=via or None)


def _settings(config: SSHConfig) -> paramiko.SSHConfigDict:
    """Return what the configuration file says of the host, by key in lower case."""
    path = os.path.expanduser(config.ssh_config)
    # What is given comes first and so wins, also inside a ProxyCommand of the file.
    given = [f"User {config.username}"] if config.username else []
    given += [f"Port {config.port}"] if config.port else []
    try:
        lines = [] if config.ssh_config == _USERS_CONFIG and not os.path.exists(path) else _lines(path, 0)
        text = "\n".join(["Host *", *given, "Host *", *lines])
        return paramiko.SSHConfig.from_text(text).lookup(config.hostname)
    except (OSError, ValueError, paramiko.SSHException, ImportError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise AccessError(config.name, f"{path} cannot be used: {cause}", "mend that file, or name another.") from error


def _lines(path: str, depth: int) -> Iterator[str]:
    """Yield the lines of a configuration file, those of included files in their place."""
    block = "Host *"
    with open(path, encoding="utf-8", errors="surrogateescape") as opened:
        for line in opened.read().splitlines():
            word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
            if word.lower() != "include":
                block = line if word.lower() in {"host", "match"} else block
                yield line
                continue
            if depth == _INCLUDES_MAX:
                raise ValueError(f"more than {_INCLUDES_MAX} files include each other")
            for pattern in shlex.split(rest):
                for included in sorted(
                    glob.glob(os.path.join(os.path.expanduser("~/.ssh"), os.path.expanduser(pattern)))
                ):
                    yield from _lines(included, depth + 1)
                    yield block


def _known_hosts(config: SSHConfig, found: paramiko.SSHConfigDict) -> tuple[str, ...]:
    if config.known_hosts != _USERS_KNOWN:
        return (config.known_hosts,)
    users = shlex.split(found.get("userknownhostsfile", _USERS_KNOWN))
    return (*(file for file in users if file.lower() != "none"), _EVERYBODYS_KNOWN)


def _keys(config: SSHConfig, found: paramiko.SSHConfigDict) -> tuple[str, ...]:
    if config.key_filename is not None:
        path = os.path.expanduser(config.key_filename)
        if not os.path.exists(path):
            raise AccessError(config.name, f"the key file {path} does not exist", "correct key_filename.")
        return (path,)
    named = found.get("identityfile") or _DEFAULT_KEYS
    paths = (os.path.expanduser(path) for path in named)
    return tuple(path for path in paths if os.path.exists(path))
