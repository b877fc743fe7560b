"""What only the transport over the installed ``ssh`` has: a shared connection of its own or of the user."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from sshd import until

from matterstack.errors import AccessError, LoginRefused, TransportError
from matterstack.runtime.transports.openssh import _Again
from matterstack.runtime.transports.openssh_words import NOT_SHARED, failure
from matterstack.runtime.transports.ssh_config import SSHConfig


def master_of(transport):
    """Return the process that holds the shared connection."""
    told = subprocess.run(transport._shared._ssh("-O", "check"), capture_output=True, text=True, check=True)
    return int(told.stderr.partition("pid=")[2].partition(")")[0])


def test_the_own_connection_is_in_a_private_directory_and_ends_with_it(start_sshd, connect):
    server = start_sshd()
    transport = connect(server.config(transport="openssh"))
    transport.run("true")
    path = Path(transport._shared._path)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.is_socket()
    pid = master_of(transport)
    transport.close()
    assert not path.parent.exists()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not _cmdline(pid), "the shared connection ended")


def _cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_forgotten_transport_leaves_nothing(start_sshd):
    from matterstack.runtime.transports.openssh import OpenSSHTransport

    server = start_sshd()
    transport = OpenSSHTransport(server.config(transport="openssh"))
    transport.run("true")
    directory = Path(transport._shared._path).parent
    del transport
    assert not directory.exists()


def test_a_long_temporary_directory_is_too_long_for_a_socket(start_sshd, connect, tmp_path, monkeypatch):
    long = tmp_path / ("d" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    transport = connect(start_sshd().config(transport="openssh"))
    assert transport.run("echo in").stdout == b"in\n"


def test_a_killed_shared_connection_is_made_anew(start_sshd, connect):
    server = start_sshd()
    transport = connect(server.config(transport="openssh"))
    transport.run("true")
    os.kill(master_of(transport), signal.SIGKILL)
    reply = transport.run("cat", payload=iter([b"a" * 70_000, b"b" * 70_000]))
    assert reply.stdout == b"a" * 70_000 + b"b" * 70_000
    assert Path(transport._shared._path).is_socket()


def test_the_users_connection_is_used_and_left_open(start_sshd, connect, tmp_path):
    server = start_sshd()
    path = f"/tmp/ms-test-{os.getpid()}-{server.port}"
    (server.directory / "ssh_config").write_text(f"ControlPath {path}\nControlPersist 600\n")
    first = connect(server.config(transport="openssh"))
    second = connect(server.config(transport="openssh"))
    try:
        assert first.run("echo 1").stdout == b"1\n"
        pid = master_of(first)
        first.close()
        assert second.run("echo 2").stdout == b"2\n"
        assert master_of(second) == pid
        assert len(server.sessions) == 1
    finally:
        subprocess.run(second._shared._ssh("-O", "exit", f"-oControlPath={path}"), capture_output=True, check=False)


def test_settings_for_a_terminal_do_not_disturb_commands(start_sshd, connect):
    server = start_sshd()
    (server.directory / "ssh_config").write_text(
        "RemoteCommand tmux\nRequestTTY force\nForwardX11 yes\nLocalForward 1 localhost:1\nPermitLocalCommand yes\n"
        "LocalCommand echo noise\nControlMaster auto\nLogLevel DEBUG\n"
    )
    reply = connect(server.config(transport="openssh")).run("cat", payload=b"quiet")
    assert (reply.code, reply.stdout, reply.stderr) == (0, b"quiet", b"")


def test_exit_code_255_is_taken_for_a_failure_of_ssh(sshd, connect):
    with pytest.raises(TransportError) as caught:
        connect(sshd.config(transport="openssh")).run("echo why >&2; exit 255")
    assert caught.value.started
    assert "why" in str(caught.value)


CHANGED = """@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Offending ED25519 key in /k/my hosts:12
Host key verification failed."""
CONFIG = SSHConfig("host.example.org", known_hosts="/k/hosts")


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ("ssh: Could not resolve hostname host: Name or service not known", TransportError, "resolve hostname"),
        ("ssh: connect to host host port 22: Connection refused", TransportError, "Connection refused"),
        ("ssh: connect to host host port 22: Connection timed out", TransportError, "timed out"),
        ("Connection closed by 10.0.0.1 port 22", TransportError, "Connection closed by 10.0.0.1"),
        ("me@host: Permission denied (publickey,password).", LoginRefused, "Permission denied"),
        ("Received disconnect from 1.2.3.4 port 22:2: Too many authentication failures", LoginRefused, "Too many"),
        ("No ED25519 host key is known for host and you have requested strict checking.", AccessError, "/k/hosts"),
        ("Host key verification failed.", AccessError, "ssh-keyscan -p 22 host.example.org"),
        (CHANGED, AccessError, "/k/my hosts, line 12"),
        ("/k/config: line 1: Bad configuration option: foo", AccessError, "cannot use its settings"),
        ("", TransportError, "did not say why"),
    ],
)
def test_words_of_ssh(words, kind, told):
    error = failure(CONFIG, words + "\n" * bool(words), started=False)
    assert type(error) is kind
    assert told in str(error)
    assert not getattr(error, "started", False)
    assert failure(CONFIG, words, started=True).started


def test_a_source_can_begin_again_until_a_pipe_was_full():
    def pieces(count):
        return (bytes([number]) * 100_000 for number in range(count))

    again = _Again(pieces(3))
    first = iter(again)
    taken = [next(first), next(first)]
    assert [piece[:1] for piece in taken] == [b"\0", b"\1"]
    assert b"".join(again) == b"".join(pieces(3))
    assert not again.lost
    assert b"".join(_Again(pieces(30))) == b"".join(pieces(30))
    much = _Again(pieces(30))
    list(much)
    assert much.lost
    assert not much._kept


def test_the_mark_cannot_come_from_a_script(sshd, connect):
    """A script that prints the mark and fails is taken for one that did not begin; so the mark is no common word."""
    assert len(NOT_SHARED) > 20
    assert connect(sshd.config(transport="openssh")).run(f"echo {NOT_SHARED} >&2; exit 1").code == 1
