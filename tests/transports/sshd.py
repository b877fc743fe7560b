"""A private sshd for tests: on loopback, with its own keys and port, one process for each connection."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from pwd import getpwuid

from matterstack.runtime.transports.ssh_config import SSHConfig

USER = getpwuid(os.getuid()).pw_name
HOST = "127.0.0.1"
DEADLINE_S = 90.0

# SHLVL keeps bash from reading ~/.bashrc of whoever runs the tests.
SETTINGS = """
    SetEnv SHLVL=1
    HostKey {keys}/host
    AuthorizedKeysFile {directory}/authorized_keys
    StrictModes no
    UsePAM no
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    PermitRootLogin prohibit-password
    LogLevel DEBUG1
    UseDNS no
"""


def sshd_path() -> str | None:
    return shutil.which("sshd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "", *options: str) -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path, *options]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def until(condition, what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)


class Sshd:
    """Accepts connections itself and gives each to an sshd of its own, so that no port is ever raced for."""

    def __init__(
        self, directory: Path, keys: Path, *settings: str, listening: bool = True, program: Path | None = None
    ) -> None:
        directory.mkdir()
        self.directory, self.keys, self.program = directory, keys, program or sshd_path()
        self.sessions: list[subprocess.Popen] = []
        shutil.copy(keys / "user.pub", directory / "authorized_keys")
        lines = [SETTINGS.format(keys=keys, directory=directory), *settings]
        (directory / "config").write_text("\n".join(reversed(lines)) + "\n")
        _check(directory / "config")
        self._socket = socket.socket()
        self._socket.bind((HOST, 0))
        self.port = self._socket.getsockname()[1]
        self._thread: threading.Thread | None = None
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.write_text(self.known_as(f"[{HOST}]:{self.port}"))
        (directory / "ssh_config").write_text("")
        if listening:
            self.listen()

    def known_as(self, name: str, key: str = "host") -> str:
        """Return a line of known hosts."""
        return f"{name} {' '.join((self.keys / f'{key}.pub').read_text().split()[:2])}\n"

    def config(self, **options) -> SSHConfig:
        given = {
            "hostname": HOST,
            "username": USER,
            "port": self.port,
            "key_filename": str(self.keys / "user"),
            "known_hosts": str(self.known_hosts),
            "ssh_config": str(self.directory / "ssh_config"),
            "agent": False,
            "connect_timeout_s": DEADLINE_S,
        }
        return SSHConfig(**{**given, **options})

    def listen(self) -> None:
        """Take connections; before, the port refuses them."""
        self._socket.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def log(self) -> str:
        return (self.directory / "log").read_text() if (self.directory / "log").exists() else ""

    def cut(self) -> None:
        """Kill what serves the connections, as a rebooting login node does; commands live on."""
        for session in self.sessions:
            with suppress(ProcessLookupError):
                os.killpg(session.pid, signal.SIGKILL)
            session.wait()
        self.sessions.clear()

    def stop(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread:
            self._thread.join()
        self._socket.close()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            command = [self.program, "-i", "-f", self.directory / "config", "-E", self.directory / "log"]
            with line:
                session = subprocess.Popen(command, stdin=line, stdout=line, start_new_session=True)
            self.sessions.append(session)


def _check(config: Path) -> None:
    """See that sshd takes the configuration; make the empty directory that it wants, where it is missing."""
    command = [sshd_path(), "-t", "-f", config]
    words = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    if missing := re.search(r"Missing privilege separation directory: (\S+)", words):
        os.makedirs(missing[1], 0o755, exist_ok=True)
    subprocess.run(command, check=True)


class Relay:
    """Passes connections on to a port, until told to stop passing what is under way: a network that went silent."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._socket = socket.create_server((HOST, 0))
        self.port = self._socket.getsockname()[1]
        self._passing = threading.Event()
        self._lines: list[socket.socket] = []
        self._passing.set()
        threading.Thread(target=self._serve, daemon=True).start()

    def stall(self) -> None:
        """Pass on nothing more of the connections that there are; new ones work."""
        self._passing.clear()
        self._passing = threading.Event()
        self._passing.set()

    def stop(self) -> None:
        for line in (self._socket, *self._lines):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
                far = socket.create_connection((HOST, self._target))
            except OSError:
                return
            self._lines += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(*pair, self._passing), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, passing: threading.Event) -> None:
        with suppress(OSError):
            while (piece := source.recv(1 << 16)) and passing.is_set():
                target.sendall(piece)
            if passing.is_set():
                target.shutdown(socket.SHUT_WR)
