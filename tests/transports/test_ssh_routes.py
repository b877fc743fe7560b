"""``~/.ssh/config``: names, users, keys, and the ways through other hosts."""

import pytest
from msgspec.structs import replace
from sshd import HOST, USER

from matterstack.errors import AccessError, TransportError
from matterstack.runtime.transports.ssh.destination import find

KINDS = ("paramiko", "openssh")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def known(server, *names):
    server.known_hosts.write_text("".join(server.known_as(name) for name in names))


def test_what_is_not_given_comes_from_the_configuration(kind, start_sshd, connect):
    server = start_sshd()
    (server.directory / "ssh_config").write_text(
        f"""
        Host other
          Port 1
        Host cluster
          HostName {HOST}
          User {USER}
          Port {server.port}
          IdentityFile {server.keys}/user
          UserKnownHostsFile "{server.known_hosts}"
        Host *
          Port 1
        """
    )
    config = server.config(transport=kind, hostname="cluster", username=None, port=None, key_filename=None)
    assert connect(config).run("echo in").stdout == b"in\n"


def test_what_is_given_wins(kind, start_sshd, connect):
    server = start_sshd()
    (server.directory / "ssh_config").write_text("User nobody-at-all\nPort 1\nProxyCommand false %r\nUser x\n")
    with pytest.raises(TransportError):
        connect(server.config(transport=kind)).run("true")
    (server.directory / "ssh_config").write_text("User nobody-at-all\nPort 1\n")
    assert connect(server.config(transport=kind)).run("echo in").stdout == b"in\n"


def test_included_files_count(start_sshd, tmp_path):
    server = start_sshd()
    ssh = tmp_path / "home" / ".ssh"
    (ssh / "config.d").mkdir(parents=True)
    (ssh / "config.d" / "a").write_text("Host far\n  Port 7\nHost a b\n  User u-a\n")
    (ssh / "config.d" / "b").write_text("Include config.d/none*\nHost c\n  User u-c\n")
    (server.directory / "ssh_config").write_text(
        "Include config.d/* nowhere\nHostName real.example.org\nHost c\n  Include config.d/b\n  Port 9\n"
    )
    config = server.config(username=None, port=None)

    def found(name):
        there = find(_named(config, name))
        return there.host, there.user, there.port

    assert found("a")[:2] == ("real.example.org", "u-a")
    assert found("far")[2] == 7
    assert found("c") == ("real.example.org", "u-c", 9)


def _named(config, name):
    return replace(config, hostname=name)


def test_files_that_include_each_other_are_told(start_sshd):
    server = start_sshd()
    path = server.directory / "ssh_config"
    path.write_text(f"Include {path}\n")
    with pytest.raises(AccessError, match="include each other"):
        find(server.config())


@pytest.mark.parametrize("text", ["Host\n", "Match sunshine\n", "Match exec\n"])
def test_a_configuration_that_cannot_be_read_is_told_with_its_path(text, start_sshd, connect, kind):
    server = start_sshd()
    (server.directory / "ssh_config").write_text(text)
    with pytest.raises(AccessError) as caught:
        connect(server.config(transport=kind)).run("true")
    assert "ssh_config" in str(caught.value)


def test_a_configuration_that_is_not_there_is_told_unless_it_is_the_usual_one(kind, sshd, connect):
    with pytest.raises(AccessError, match="/nowhere/config"):
        connect(sshd.config(transport=kind, ssh_config="/nowhere/config")).run("true")
    if kind == "paramiko":
        assert find(sshd.config(ssh_config="~/.ssh/config")).port == sshd.port


def test_a_proxy_command(kind, start_sshd, connect):
    server = start_sshd()
    bridge = server.directory / "bridge.py"
    bridge.write_text(BRIDGE)
    (server.directory / "ssh_config").write_text(f"ProxyCommand python3 {bridge} %h %p\n")
    transport = connect(server.config(transport=kind, hostname="localhost"))
    known(server, f"[localhost]:{server.port}")
    assert transport.run("cat", payload=bytes(1_000_000)).stdout == bytes(1_000_000)
    (server.directory / "ssh_config").write_text("ProxyCommand exit 1\n")
    with pytest.raises(TransportError) as caught:
        connect(server.config(transport=kind)).run("true")
    assert not caught.value.started


BRIDGE = """
import os, socket, sys, threading
line = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def down():
    while piece := line.recv(65536):
        view = memoryview(piece)
        while view:
            view = view[os.write(1, view):]
    os._exit(0)
threading.Thread(target=down, daemon=True).start()
while piece := os.read(0, 65536):
    line.sendall(piece)
"""


def test_through_another_host(start_sshd, connect, kind):
    server, gate = start_sshd(), start_sshd()
    known(server, f"[{HOST}]:{server.port}", f"[{HOST}]:{gate.port}")
    # Options of the command line are not meant for the hosts in between: those have the configuration.
    (server.directory / "ssh_config").write_text(
        f"Host {HOST}\n  IdentityFile {server.keys}/user\n  UserKnownHostsFile {server.known_hosts}\n"
    )
    jump = f"{USER}@{HOST}:{gate.port}"
    transport = connect(server.config(transport=kind, proxy_jump=jump))
    assert transport.run("cat", payload=bytes(3_000_000)).stdout == bytes(3_000_000)
    assert len(gate.sessions) == len(server.sessions) == 1


def test_through_several_hosts_named_in_the_configuration(start_sshd, connect, kind):
    server, gate, yard = start_sshd(), start_sshd(), start_sshd()
    known(server, "gate", "yard", "cluster")
    (server.directory / "ssh_config").write_text(
        "".join(
            f"Host {name}\n  HostName {HOST}\n  Port {where.port}\n  HostKeyAlias {name}\n"
            for name, where in (("gate", gate), ("yard", yard), ("cluster", server))
        )
        + f"Host cluster\n  ProxyJump gate,yard\nHost *\n  User {USER}\n  IdentityFile {server.keys}/user\n"
        + f"  UserKnownHostsFile {server.known_hosts}\n"
    )
    transport = connect(server.config(transport=kind, hostname="cluster", port=None))
    assert transport.run("cat; exit 3", payload=b"far").stdout == b"far"
    assert [len(one.sessions) for one in (gate, yard, server)] == [1, 1, 1]

    direct = connect(server.config(transport=kind, hostname="cluster", port=None, proxy_jump="none"))
    assert direct.run("echo direct").stdout == b"direct\n"
    assert len(gate.sessions) == 1


def test_a_host_in_between_that_does_not_know_the_way(start_sshd, connect):
    server, gate = start_sshd(listening=False), start_sshd()
    known(server, f"[{HOST}]:{server.port}", f"[{HOST}]:{gate.port}")
    transport = connect(server.config(proxy_jump=f"{USER}@{HOST}:{gate.port}"))
    with pytest.raises(TransportError, match="could not pass us on") as caught:
        transport.run("true")
    assert not caught.value.started


def test_hosts_that_lead_to_each_other_end(start_sshd, connect):
    server = start_sshd()
    (server.directory / "ssh_config").write_text("ProxyJump 127.0.0.1\n")
    with pytest.raises(TransportError, match="hosts to go through"):
        connect(server.config()).run("true")


def test_a_host_in_between_has_a_key_to_be_known_as_well(start_sshd, connect):
    server, gate = start_sshd(), start_sshd()
    with pytest.raises(AccessError, match=f"{HOST}:{gate.port}.*not in"):
        connect(server.config(proxy_jump=f"{USER}@{HOST}:{gate.port}")).run("true")
