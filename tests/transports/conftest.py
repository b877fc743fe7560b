from __future__ import annotations

import shutil

import pytest
from sshd import Relay, Sshd, make_key, sshd_path

from matterstack.runtime.transports.ssh_config import open_transport


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """A directory with the keys of a host and of users; ``user`` may log in, ``stranger`` may not."""
    if sshd_path() is None or shutil.which("ssh-keygen") is None:
        pytest.skip("there is no sshd on this machine: scripts/cluster install")
    directory = tmp_path_factory.mktemp("keys")
    for name in ("host", "other_host", "user", "stranger"):
        make_key(directory / name)
    return directory


@pytest.fixture
def start_sshd(tmp_path, keys):
    """Starts servers with more settings than usual, which come first and so win."""
    started = []

    def start(*settings, **options):
        started.append(Sshd(tmp_path / f"sshd{len(started)}", keys, *settings, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory, keys):
    """One server for the tests of a module that leave it as it is."""
    server = Sshd(tmp_path_factory.mktemp("server") / "sshd", keys)
    yield server
    server.stop()


@pytest.fixture
def relay():
    """Makes relays to a port, which can go silent."""
    started = []

    def start(port):
        started.append(Relay(port))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def connect():
    """Makes transports, and closes them at the end."""
    made = []

    def make(config, kind=None, **options):
        made.append(kind(config, **options) if kind else open_transport(config))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    """No test reads the files of the person who runs it, nor asks that person."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
