"""Logins: keys, passphrases, agents, certificates, one-time passwords; and being refused."""

import os
import shutil
import socket
import subprocess
import threading

import paramiko
import pytest
from sshd import DEADLINE_S, HOST, USER, make_key

from matterstack.errors import AccessError, LoginRefused
from matterstack.runtime.transports.ssh import SSHTransport

KINDS = ("paramiko", "openssh")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def let_in(server, key):
    with open(server.directory / "authorized_keys", "a") as allowed:
        allowed.write(key.with_name(f"{key.name}.pub").read_text())


class Person:
    """Answers in turn, and remembers the questions."""

    def __init__(self, *answers):
        self.answers, self.questions = list(answers), []

    def __call__(self, question, seen):
        self.questions.append((question, seen))
        return self.answers.pop(0)


@pytest.mark.parametrize("form", ["ed25519", "ecdsa", "rsa", "rsa-pem"])
def test_keys_of_every_kind(form, kind, start_sshd, connect, tmp_path):
    server = start_sshd()
    options = ("-m", "PEM") if form.endswith("-pem") else ()
    key = make_key(tmp_path / "key", form.removesuffix("-pem"), "", *options)
    let_in(server, key)
    assert connect(server.config(transport=kind, key_filename=str(key))).run("echo in").stdout == b"in\n"


def test_a_wrong_key_is_refused_once(kind, start_sshd, connect):
    server = start_sshd()
    transport = connect(server.config(transport=kind, key_filename=str(server.keys / "stranger")))
    for _ in range(3):
        with pytest.raises(LoginRefused) as caught:
            transport.run("true")
        assert USER in str(caught.value)
        if kind == "paramiko":
            assert str(server.keys / "stranger") in str(caught.value)
    assert len(server.sessions) == 1, "the host was asked again, which can lock an account"
    shutil.copy(server.keys / "stranger.pub", server.directory / "authorized_keys")
    transport.close()
    assert transport.run("echo in").stdout == b"in\n"


def test_a_key_file_that_is_not_there_is_told(sshd, connect):
    with pytest.raises(AccessError, match="/nowhere/key does not exist"):
        connect(sshd.config(key_filename="/nowhere/key")).run("true")


def test_a_file_that_holds_no_key_is_told(sshd, connect, tmp_path):
    (tmp_path / "key").write_text("no key\n")
    with pytest.raises(AccessError, match="key cannot be read"):
        connect(sshd.config(key_filename=str(tmp_path / "key"))).run("true")


def test_the_usual_keys_are_tried_where_none_is_named(start_sshd, connect, tmp_path):
    server = start_sshd()
    ssh = tmp_path / "home" / ".ssh"
    ssh.mkdir()
    shutil.copy(server.keys / "stranger", ssh / "id_ecdsa")
    shutil.copy(server.keys / "user", ssh / "id_ed25519")
    assert connect(server.config(key_filename=None)).run("echo in").stdout == b"in\n"


def test_no_key_at_all(sshd, connect):
    with pytest.raises(AccessError, match="no usable key"):
        connect(sshd.config(key_filename=None)).run("true")


@pytest.mark.parametrize("form", ["openssh", "PEM"])
def test_a_passphrase_is_asked_for_once(form, start_sshd, connect, tmp_path):
    server = start_sshd()
    kind = ("rsa", "secret words", "-m", "PEM") if form == "PEM" else ("ed25519", "secret words")
    key = make_key(tmp_path / "key", *kind)
    let_in(server, key)
    person = Person("wrong", "secret words")
    transport = connect(server.config(key_filename=str(key)), SSHTransport, ask=person)
    assert transport.run("echo in").stdout == b"in\n"
    assert person.questions == [(f"Passphrase for key {key}: ", False)] * 2
    transport.close()
    assert transport.run("echo in").stdout == b"in\n"
    assert len(person.questions) == 2


def test_a_passphrase_that_nobody_types(start_sshd, connect, tmp_path):
    server = start_sshd()
    key = make_key(tmp_path / "key", "ed25519", "secret words")
    let_in(server, key)
    with pytest.raises(AccessError, match=f"needs its passphrase .* `ssh-add {key}` first"):
        connect(server.config(key_filename=str(key))).run("true")
    with pytest.raises(AccessError, match="not opened by what was typed"):
        connect(server.config(key_filename=str(key)), SSHTransport, ask=Person("")).run("true")


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """A private ssh-agent; gives a way to add keys."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE)
    process.stdout.readline()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))

    def add(key):
        subprocess.run(["ssh-add", "-q", key], check=True, stdin=subprocess.DEVNULL, capture_output=True)

    yield add
    process.terminate()
    process.wait()
    process.stdout.close()


def test_the_agent_holds_the_key(kind, agent, start_sshd, connect, tmp_path):
    server = start_sshd()
    agent(server.keys / "user")
    options = {"transport": kind, "key_filename": None}
    assert connect(server.config(**options, agent=True)).run("echo in").stdout == b"in\n"
    with pytest.raises(AccessError):
        connect(server.config(**options, agent=False)).run("true")


def test_the_agent_spares_the_passphrase(kind, agent, start_sshd, connect, tmp_path):
    server = start_sshd()
    key = make_key(tmp_path / "key")
    let_in(server, key)
    agent(key)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret words", "-f", key], check=True, capture_output=True)
    config = server.config(transport=kind, key_filename=str(key), agent=True)
    assert connect(config).run("echo in").stdout == b"in\n"


def test_a_named_key_is_the_only_one_offered(kind, agent, start_sshd, connect, tmp_path):
    """So that an agent with many keys does not use up the tries that the host allows."""
    server = start_sshd("MaxAuthTries 2")
    for number in range(4):
        agent(make_key(tmp_path / f"other{number}"))
    assert connect(server.config(transport=kind, agent=True)).run("echo in").stdout == b"in\n"


def test_a_named_key_that_is_refused_is_not_replaced_by_one_of_the_agent(kind, agent, start_sshd, connect):
    server = start_sshd()
    agent(server.keys / "user")
    config = server.config(transport=kind, key_filename=str(server.keys / "stranger"), agent=True)
    with pytest.raises(LoginRefused):
        connect(config).run("true")


def test_too_many_keys_are_a_refusal(kind, agent, start_sshd, connect, tmp_path):
    server = start_sshd("MaxAuthTries 2")
    for number in range(4):
        agent(make_key(tmp_path / f"other{number}"))
    with pytest.raises(LoginRefused):
        connect(server.config(transport=kind, key_filename=None, agent=True)).run("true")


def test_an_agent_that_is_gone_is_no_trouble(sshd, connect, monkeypatch, tmp_path):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    assert connect(sshd.config(agent=True)).run("echo in").stdout == b"in\n"


def test_a_certificate_beside_the_key(kind, start_sshd, connect, tmp_path):
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "key")
    sign = ["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", USER, f"{key}.pub"]
    subprocess.run(sign, check=True, capture_output=True)
    server = start_sshd(f"TrustedUserCAKeys {authority}.pub")
    assert connect(server.config(transport=kind, key_filename=str(key))).run("echo in").stdout == b"in\n"


class TwoFactors(paramiko.ServerInterface):
    """A host that wants a key and then asks two questions at once; sshd with PAM asks them one by one."""

    def __init__(self, passwords):
        self._passwords, self._has_key = passwords, False

    def get_allowed_auths(self, username):
        return "keyboard-interactive" if self._has_key else "publickey"

    def check_auth_publickey(self, username, key):
        self._has_key = True
        return paramiko.AUTH_PARTIALLY_SUCCESSFUL

    def check_auth_interactive(self, username, submethods):
        return paramiko.InteractiveQuery("Site", "Two factors.", ("One-time password: ", False), ("Site? ", True))

    def check_auth_interactive_response(self, responses):
        right = responses == [*self._passwords, "here"]
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel, command):
        channel.sendall(b"in\n")
        channel.send_exit_status(0)
        channel.close()
        return True


@pytest.fixture
def two_factors(keys, tmp_path):
    """A host with two-factor logins and the configuration for it."""
    listening = socket.create_server((HOST, 0))
    port = listening.getsockname()[1]
    served = []

    def serve():
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            served.append(paramiko.Transport(line))
            served[-1].add_server_key(paramiko.Ed25519Key.from_private_key_file(str(keys / "host")))
            served[-1].start_server(server=TwoFactors(["123456"]), event=threading.Event())

    threading.Thread(target=serve, daemon=True).start()
    known = tmp_path / "known_hosts"
    known.write_text(f"[{HOST}]:{port} {' '.join((keys / 'host.pub').read_text().split()[:2])}\n")
    yield port, known
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for transport in served:
        transport.close()


@pytest.fixture
def two_factor_config(two_factors, keys):
    from matterstack.runtime.transports.ssh_config import SSHConfig

    port, known = two_factors
    return SSHConfig(
        HOST,
        USER,
        str(keys / "user"),
        port,
        str(known),
        agent=False,
        ssh_config="/dev/null",
        connect_timeout_s=DEADLINE_S,
    )


def test_several_questions_after_the_key(two_factor_config, connect):
    person = Person("wrong", "here", "123456", "here")
    assert connect(two_factor_config, SSHTransport, ask=person).run("true").stdout == b"in\n"
    assert person.questions[:2] == [
        ("Site\nTwo factors.\nOne-time password: ", False),
        ("Site\nTwo factors.\nSite? ", True),
    ]


def test_only_a_terminal_is_asked(monkeypatch):
    from matterstack.runtime.transports import asking

    assert asking.person() is None
    monkeypatch.setattr("sys.stdin", None)
    assert asking.person() is None
    ours, its = os.openpty()
    with open(its) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        ask = asking.person()
        os.write(ours, b"an answer\n")
        assert ask("Question? ", True) == "an answer"
    os.close(ours)
