"""Connections that break, hang, or cannot be made."""

import itertools
import socket
import threading
import time

import pytest
from sshd import DEADLINE_S, HOST, until

from matterstack.errors import TransportError
from matterstack.runtime.transports.backoff import Backoff
from matterstack.runtime.transports.openssh import OpenSSHTransport
from matterstack.runtime.transports.ssh import SSHTransport

KINDS = {"paramiko": SSHTransport, "openssh": OpenSSHTransport}
SOON_S = 5.0


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def fails(transport, started, *words, **options):
    with pytest.raises(TransportError) as caught:
        transport.run("echo unheard", **options)
    assert caught.value.started is started
    for word in words:
        assert word in str(caught.value)


def test_a_connection_cut_in_mid_command_may_have_done_its_work(kind, start_sshd, connect, tmp_path):
    server = start_sshd()
    transport = connect(server.config(transport=kind))
    begun = threading.Event()
    script = f"echo begun; until [ -e {tmp_path}/go ]; do sleep 0.1; done; : >{tmp_path}/done"

    def cut():
        assert begun.wait(DEADLINE_S)
        server.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(TransportError) as caught:
        transport.run(script, sink=lambda _: begun.set(), timeout_s=DEADLINE_S)
    thread.join()
    assert caught.value.started
    (tmp_path / "go").touch()
    until((tmp_path / "done").exists, "the command, which lives on without us, ended")

    assert transport.run("echo again").stdout == b"again\n"
    assert len(server.sessions) == 1


def test_a_connection_that_broke_between_two_commands_is_made_anew_at_once(kind, start_sshd, connect):
    server = start_sshd()
    transport = connect(server.config(transport=kind))
    assert transport.run("echo 1").stdout == b"1\n"
    server.cut()
    # Nobody has noticed yet, or just now: in either case the command did not begin, or is told as begun.
    answer = _runs(transport, "echo 2", DEADLINE_S)
    assert answer == b"2\n" or answer.started
    assert transport.run("echo 3").stdout == b"3\n"


def test_a_port_that_refuses_is_left_alone_for_a_while(kind, start_sshd, connect):
    server = start_sshd(listening=False)
    now = [100.0]
    backoff = Backoff(clock=lambda: now[0], jitter=lambda: 1.0)
    transport = connect(server.config(transport=kind), KINDS[kind], backoff=backoff)
    fails(transport, False, "onnection refused", str(server.port) if kind == "paramiko" else "")
    fails(transport, False, "onnection refused", "next try is in 1 s")
    now[0] += 1.5
    fails(transport, False, "onnection refused")
    fails(transport, False, "next try is in 2 s")
    server.listen()
    fails(transport, False, "next try is in 2 s")
    now[0] += 2.5
    assert transport.run("echo up").stdout == b"up\n"


def test_a_closed_transport_connects_at_once_again(kind, start_sshd, connect):
    server = start_sshd(listening=False)
    transport = connect(server.config(transport=kind))
    fails(transport, False)
    server.listen()
    transport.close()
    assert transport.run("echo up").stdout == b"up\n"


def test_a_name_that_nobody_knows(kind, sshd, connect):
    transport = connect(sshd.config(transport=kind, hostname="nowhere.invalid", port=None))
    fails(transport, False, "nowhere.invalid")


def test_a_port_that_does_not_speak_ssh(kind, sshd, connect):
    with socket.create_server((HOST, 0)) as silent:
        transport = connect(sshd.config(transport=kind, port=silent.getsockname()[1], connect_timeout_s=1))
        fails(transport, False)


def test_a_port_that_hangs_up(kind, sshd, connect):
    with socket.create_server((HOST, 0)) as curt:
        threading.Thread(target=_hang_up, args=(curt,), daemon=True).start()
        transport = connect(sshd.config(transport=kind, port=curt.getsockname()[1]))
        fails(transport, False)
        curt.shutdown(socket.SHUT_RDWR)


def _hang_up(listening):
    try:
        while True:
            listening.accept()[0].close()
    except OSError:
        pass


def test_a_host_without_ssh_installed(sshd, connect, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    fails(connect(sshd.config(transport="openssh")), False, "ssh")


def test_a_network_that_goes_silent(start_sshd, relay, connect):
    """The command times out; the next ones find the connection dead, and make a new one."""
    server = start_sshd()
    between = relay(server.port)
    server.known_hosts.write_text(server.known_as(f"[{HOST}]:{between.port}"))
    transport = connect(server.config(port=between.port, connect_timeout_s=SOON_S))
    assert transport.run("echo 1").stdout == b"1\n"
    with pytest.raises(TransportError, match="no answer for 1 s") as caught:
        transport.run("echo begun; exec sleep 120", sink=lambda _: between.stall(), timeout_s=1)
    assert caught.value.started
    assert len(server.sessions) == 1
    until(lambda: _works(transport), "a new connection")
    assert len(server.sessions) > 1
    before = len(server.sessions)
    between.stall()
    until(lambda: _works(transport), "a new connection")
    assert len(server.sessions) > before


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_network_that_goes_silent_under_load(kind, direction, start_sshd, relay, connect):
    server = start_sshd()
    between = relay(server.port)
    server.known_hosts.write_text(server.known_as(f"[{HOST}]:{between.port}"))
    config = server.config(transport=kind, port=between.port, connect_timeout_s=SOON_S, keepalive_s=1)
    transport = connect(config)
    moved = itertools.count()

    def stall(piece=b""):
        if next(moved) == 20:
            between.stall()
        return piece

    def endless():
        while True:
            yield stall(bytes(100_000))

    script, way = {
        "down": ("cat /dev/zero", {"sink": stall}),
        "up": ("cat >/dev/null", {"payload": endless()}),
    }[direction]
    with pytest.raises(TransportError) as caught:
        transport.run(script, timeout_s=3, **way)
    assert caught.value.started
    until(lambda: _works(transport), "a new connection")


def _works(transport):
    return _runs(transport, "echo 2", SOON_S) == b"2\n"


def _runs(transport, script, timeout_s):
    try:
        return transport.run(script, timeout_s=timeout_s).stdout
    except TransportError as error:
        return error


def test_signs_of_life_are_asked_for_while_a_command_says_nothing(kind, start_sshd, relay, connect):
    """Long before the command's own limit, and nothing that works is cut off."""
    server = start_sshd()
    between = relay(server.port)
    server.known_hosts.write_text(server.known_as(f"[{HOST}]:{between.port}"))
    transport = connect(server.config(transport=kind, port=between.port, keepalive_s=1))
    begun = time.monotonic()
    with pytest.raises(TransportError) as caught:
        transport.run("echo begun; exec sleep 120", sink=lambda _: between.stall(), timeout_s=600)
    assert caught.value.started
    assert time.monotonic() - begun < 300


def test_a_quiet_command_outlives_signs_of_life(kind, sshd, connect):
    transport = connect(sshd.config(transport=kind, keepalive_s=1))
    # A machine under heavy load may miss them now and then.
    until(lambda: _runs(transport, "sleep 4; echo done", DEADLINE_S) == b"done\n", "a command of some seconds")


def test_a_host_that_allows_one_session_gets_one_at_a_time(kind, start_sshd, connect, tmp_path):
    server = start_sshd("MaxSessions 1")
    transport = connect(server.config(transport=kind))
    begun, replies = threading.Event(), []
    script = f"echo first; until [ -e {tmp_path}/go ]; do sleep 0.1; done"
    first = threading.Thread(target=lambda: transport.run(script, sink=lambda _: begun.set(), timeout_s=DEADLINE_S))
    first.start()
    assert begun.wait(DEADLINE_S)
    second = threading.Thread(target=lambda: replies.append(transport.run("cat", payload=(b"a" for _ in range(3)))))
    second.start()
    until(lambda: "no more sessions" in server.log(), "sshd refused the second session")
    (tmp_path / "go").touch()
    first.join()
    second.join()
    assert [reply.stdout for reply in replies] == [b"aaa"]


def test_a_host_that_allows_no_more_sessions_is_told_as_such(kind, start_sshd, connect):
    server = start_sshd("MaxSessions 0")
    transport = connect(server.config(transport=kind, connect_timeout_s=SOON_S))
    found = []

    def told():
        found[:] = [_runs(transport, "echo never", DEADLINE_S)]
        return "MaxSessions" in str(found[0])

    until(told, "an error that names the setting")
    assert not found[0].started


def test_a_closed_transport_leaves_no_thread_and_no_connection(kind, start_sshd, connect):
    server = start_sshd()
    before = set(threading.enumerate())
    transport = connect(server.config(transport=kind))
    transport.run("true")
    transport.close()
    for session in server.sessions:
        session.wait(DEADLINE_S)
    until(lambda: set(threading.enumerate()) <= before, "all threads ended")
