"""What every way to a host must do, tried on each of them: this machine, paramiko, ssh."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from sshd import until

from matterstack.errors import TransportError
from matterstack.runtime.transports import local
from matterstack.runtime.transports.ssh import exchange

WAYS = ("local", "paramiko", "openssh")
LONG_S = 90.0


@pytest.fixture(params=WAYS)
def way(request, connect):
    if request.param == "local":
        return connect(None)
    return connect(request.getfixturevalue("sshd").config(transport=request.param))


@pytest.fixture(params=WAYS[1:])
def remote(request, connect, sshd):
    return connect(sshd.config(transport=request.param))


def pieces(size, piece=10_000):
    source = random.Random(size)
    left = size
    while left > 0:
        yield source.randbytes(min(piece, left))
        left -= piece


def test_a_script_gets_its_payload_and_answers_on_both_outputs(way):
    reply = way.run("echo out; echo err >&2; cat; exit 7", payload=b"pay\0load\xff")
    assert (reply.code, reply.stdout, reply.stderr) == (7, b"out\npay\0load\xff", b"err\n")


def test_scripts_of_every_shape(way):
    for script in (
        "",
        ":",
        "exit 0\n",
        "printf '%s' \"a'b\"\n",
        "printf 'ä\\n'",
        "if true\nthen echo 1\nfi",
        "#" * 70_000,
    ):
        assert way.run(script, payload=b"unread").code == 0
    assert way.run("printf %s 'a\"b`c$d\\e!'").stdout == b'a"b`c$d\\e!'
    assert way.run('x=$(cat); printf %s "$x"', payload=[b"a", b"", b"b\n", b"c"]).stdout == b"ab\nc"


@pytest.mark.parametrize("code", [0, 1, 75, 127, 254])
def test_exit_codes_come_back(way, code):
    assert way.run(f"exit {code}").code == code


def test_nothing_is_read_where_nothing_is_sent(way):
    assert way.run("wc -c").stdout.split() == [b"0"]


def test_five_megabytes_go_both_ways_at_once(way):
    size = 5_000_000
    reply = way.run("cat", payload=pieces(size), timeout_s=LONG_S)
    assert reply.stdout == b"".join(pieces(size))


def test_one_large_piece_and_a_large_standard_error(way):
    data = b"".join(pieces(5_000_000))
    reply = way.run("tee /dev/stderr", payload=data, timeout_s=LONG_S)
    assert reply.stdout == data
    assert reply.stderr == data


def test_five_megabytes_of_standard_error_alone(way):
    reply = way.run("head -c 5000000 /dev/zero >&2; echo done", timeout_s=LONG_S)
    assert (reply.stdout, len(reply.stderr)) == (b"done\n", 5_000_000)


def test_a_sink_takes_standard_output(way):
    taken = []
    reply = way.run("cat; echo err >&2", payload=pieces(300_000), sink=taken.append, timeout_s=LONG_S)
    assert b"".join(taken) == b"".join(pieces(300_000))
    assert (reply.code, reply.stdout, reply.stderr) == (0, b"", b"err\n")


@pytest.mark.parametrize("error", [ValueError, TimeoutError, BrokenPipeError])
def test_an_error_of_the_sink_ends_the_command(way, error):
    def sink(piece):
        raise error("the disk is full")

    with pytest.raises(error, match="the disk is full"):
        way.run("while echo more; do :; done", sink=sink, timeout_s=LONG_S)
    assert way.run("echo still here").stdout == b"still here\n"


@pytest.mark.parametrize("error", [ValueError, TimeoutError, BrokenPipeError])
def test_an_error_of_the_payload_ends_the_command(way, error):
    def payload():
        yield b"begun\n"
        raise error("the file is gone")

    with pytest.raises(error, match="the file is gone"):
        way.run("cat >/dev/null; echo all", payload=payload(), timeout_s=LONG_S)
    assert way.run("echo still here").stdout == b"still here\n"


def test_a_script_may_end_before_it_has_read_everything(way):
    ended = threading.Event()

    def endless():
        try:
            while True:
                yield bytes(100_000)
        finally:
            ended.set()

    reply = way.run("head -c 10; echo enough >&2; exit 3", payload=endless(), timeout_s=LONG_S)
    assert (reply.code, reply.stdout, reply.stderr) == (3, bytes(10), b"enough\n")
    assert ended.wait(LONG_S)


def test_a_script_may_stop_reading_and_go_on(way):
    reply = way.run("exec </dev/null; sleep 0.3; echo on", payload=pieces(4_000_000), timeout_s=LONG_S)
    assert reply.stdout == b"on\n"


def test_a_script_may_close_its_outputs_and_go_on(way, tmp_path):
    reply = way.run(f"exec >/dev/null 2>&1; cat >{tmp_path}/kept; exit 4", payload=pieces(3_000_000), timeout_s=LONG_S)
    assert reply.code == 4
    assert (tmp_path / "kept").read_bytes() == b"".join(pieces(3_000_000))


def test_silence_ends_the_wait_and_says_that_the_script_had_begun(way):
    with pytest.raises(TransportError, match=r"no answer for 0\.5 s") as caught:
        way.run("sleep 120", timeout_s=0.5)
    assert caught.value.started


def test_what_moves_is_not_silent(way, monkeypatch, tmp_path):
    """By a clock that goes on by most of the longest silence with each piece, far beyond it in all."""
    now = [0.0]
    for module in (exchange, local):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    answers = []

    def sink(piece):
        answers.append(piece)
        now[0] += 0.9 * LONG_S
        (tmp_path / piece.decode().strip()).touch()

    script = "for i in 1 2 3 4 5; do echo $i; until [ -e $i ]; do sleep 0.05; done; done"
    way.run(f"cd {tmp_path}; {script}", sink=sink, timeout_s=LONG_S)
    assert answers == [b"1\n", b"2\n", b"3\n", b"4\n", b"5\n"]


def test_commands_run_side_by_side(way):
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda i: way.run("cat; exit $((1 + 1))", payload=b"%d" % i), range(24)))
    assert [(reply.code, reply.stdout) for reply in replies] == [(2, b"%d" % i) for i in range(24)]


def test_it_can_be_used_again_after_it_was_closed(way):
    assert way.run("echo 1").stdout == b"1\n"
    way.close()
    way.close()
    assert way.run("echo 2").stdout == b"2\n"


def test_all_threads_share_one_connection(remote, start_sshd, connect):
    server = start_sshd()
    transport = connect(server.config(transport=remote._config.transport))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: transport.run("true"), range(12)))
    assert len(server.sessions) == 1


def test_the_host_shell_sees_the_script_neither_in_arguments_nor_in_files(remote, tmp_path):
    reply = remote.run("tr '\\0' ' ' </proc/$$/cmdline; : canary")
    assert b"canary" not in reply.stdout
    assert b"head -c" in reply.stdout


def test_what_is_ended_here_is_ended_with_all_its_processes(connect):
    pids = []

    def sink(piece):
        pids.append(int(piece))
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        connect(None).run("sleep 120 & echo $!; wait", sink=sink)
    until(lambda: not _lives(pids[0]), "the background process ended")


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
