"""The connection that all commands by ``ssh`` share (its ControlMaster)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import weakref
from typing import IO, Final

from matterstack.errors import TransportError
from matterstack.runtime.transports.asking import person
from matterstack.runtime.transports.openssh_words import NOT_SHARED, failure
from matterstack.runtime.transports.ssh_config import SSHConfig

_PERSIST_S: Final = 600
_SIGNS_MISSED: Final = 2
_PATH_MAX: Final = 80  # of about 104 bytes; ssh appends 17 while it makes the socket
_DEFAULT: Final = SSHConfig("default")
_QUICK_S: Final = 20.0  # for what asks the connection on this machine only
_PERSON_S: Final = 300.0

# What a user's configuration may set for a terminal, and would disturb a command.
_PLAIN: Final = ("-T", "-x", "-oClearAllForwardings=yes", "-oRemoteCommand=none", "-oPermitLocalCommand=no")
# A command either rides on the shared connection or fails at once: it never dials by itself, nor asks anybody.
_RIDE: Final = (
    *("-oLogLevel=ERROR", "-oBatchMode=yes", "-oControlMaster=no"),
    f"-oProxyCommand=sh -c 'echo {NOT_SHARED} >&2'",
)


class SharedConnection:
    """One ``ssh`` in the background with a socket on which others ride. Not for several threads at once."""

    def __init__(self, config: SSHConfig) -> None:
        self._config = config
        self._settled = False
        self._path: str | None = None  # of our own socket
        self._persists: tuple[str, ...] = ()
        self._end: weakref.finalize[[list[str], str], SharedConnection] | None = None

    def command(self, words: str) -> list[str]:
        """Return the command that runs ``words`` by the host's login shell."""
        return [*self._ssh(*_PLAIN, *_RIDE), words]

    def is_open(self, *, check: bool) -> bool:
        """Return whether it can be ridden on; without ``check`` our own socket is taken at its word."""
        if not self._settled:
            return False
        if self._path and not check:
            return os.path.exists(self._path)
        return _ask(self._ssh("-O", "check")).returncode == 0

    def open(self) -> None:
        """Connect; where the host wants to know something, ``ssh`` asks the person at the terminal.

        Raises:
            TransportError: The host was not reached; nothing was started.
            AccessError: Its key is unknown or changed, or it refused the login.
        """
        if not self._settled:
            self._settle()
            if not self._path and self.is_open(check=True):
                return
        if self._path and os.path.exists(self._path):
            os.unlink(self._path)  # nobody listens there any more
        someone = person() is not None
        config = self._config
        options = (
            *("-N", "-f", "-oControlMaster=auto", "-oStrictHostKeyChecking=yes", *self._persists, *_PLAIN),
            f"-oConnectTimeout={max(1, round(config.connect_timeout_s))}",
            f"-oServerAliveInterval={max(1, round(config.keepalive_s))}",
            f"-oServerAliveCountMax={_SIGNS_MISSED}",
            f"-oBatchMode={'no' if someone else 'yes'}",
        )
        # In a session of its own it could ask nobody. Its words go to a file, for it may keep that open while it lives.
        with tempfile.TemporaryFile() as words:
            wait_s = _PERSON_S if someone else 3 * config.connect_timeout_s
            code = _start(config.name, self._ssh(*options), words, wait_s, alone=not someone)
            words.seek(0)
            if code != 0:
                raise failure(config, words.read().decode(errors="replace"), started=False)

    def close(self) -> None:
        """Close our own connection; leave the user's own."""
        if self._end:
            self._end()
        self._settled, self._path, self._end = False, None, None

    def _settle(self) -> None:
        """Find out whether the user's configuration names a socket, else choose one in a private directory."""
        found = _ask(self._ssh("-G"))
        if found.returncode != 0:
            raise failure(self._config, f"{found.stderr}", started=False)
        settings = dict(line.split(" ", 1) for line in found.stdout.splitlines() if " " in line)
        if settings.get("controlpath", "none") == "none":
            directory = _private_directory()
            self._path = os.path.join(directory, "s")
            self._end = weakref.finalize(self, _leave, self._ssh("-O", "exit"), directory)
        own = self._path or settings.get("controlpersist", "no") in {"no", "false"}
        self._persists = (f"-oControlPersist={_PERSIST_S}",) if own else ()
        self._settled = True

    def _ssh(self, *options: str) -> list[str]:
        config = self._config
        given = [] if config.ssh_config == _DEFAULT.ssh_config else [f"-F{os.path.expanduser(config.ssh_config)}"]
        given += [f"-oControlPath={_quoted(self._path)}"] if self._path else []
        given += [f"-l{config.username}"] * bool(config.username) + [f"-p{config.port}"] * bool(config.port)
        if config.proxy_jump and "-oControlMaster=no" not in options:
            given.append(f"-oProxyJump={config.proxy_jump}")
        if config.key_filename:
            given += [f"-oIdentityFile={_quoted(config.key_filename)}", "-oIdentitiesOnly=yes"]
        if not config.agent:
            given.append("-oIdentityAgent=none")
        if config.known_hosts != _DEFAULT.known_hosts:
            given += [f"-oUserKnownHostsFile={_quoted(config.known_hosts)}", "-oGlobalKnownHostsFile=none"]
        return ["ssh", *given, *options, "--", config.hostname]


def _start(name: str, command: list[str], words: IO[bytes], wait_s: float, *, alone: bool) -> int:
    """Return the exit code of an ``ssh`` that goes to the background once it is logged in."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            timeout=wait_s,
            check=False,
            start_new_session=alone,
        ).returncode
    except subprocess.TimeoutExpired:
        raise TransportError(name, f"no login within {wait_s:g} s", started=False) from None
    except OSError as error:
        raise TransportError(name, f"ssh cannot be run: {error.strerror}", started=False) from error


def _ask(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Return what ``ssh`` answered of itself, without going anywhere."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_QUICK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 255, "", f"no answer within {_QUICK_S:g} s")
    except OSError as error:
        return subprocess.CompletedProcess(command, 255, "", f"ssh cannot be run: {error.strerror}")


def _private_directory() -> str:
    """Return a new directory that only we can enter, with a name short enough for a socket in it."""
    near = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ms-", dir=near if len(os.fsencode(near)) < _PATH_MAX - 16 else "/tmp")  # noqa: S108


def _leave(command: list[str], directory: str) -> None:
    if os.path.exists(os.path.join(directory, "s")):
        _ask(command)
    shutil.rmtree(directory, ignore_errors=True)


def _quoted(path: str) -> str:
    """Return a path as an option takes it."""
    return f'"{os.path.expanduser(path).replace("%", "%%")}"'
