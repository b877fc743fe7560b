"""Logins with a key and then a one-time password, on a real sshd with PAM, by both of our ways to log in."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest
from sshd import sshd_path

from matterstack.errors import AccessError, LoginRefused

PAM = Path("/etc/pam.d")
MODULE = "pam_exec.so"
FACTORS = (
    "UsePAM yes",
    "PermitRootLogin yes",
    "KbdInteractiveAuthentication yes",
    "AuthenticationMethods publickey,keyboard-interactive",
)
RIDE = """
import sys
from matterstack.runtime.transports import open_transport
from matterstack.runtime.transports.ssh_config import SSHConfig
transport = open_transport(SSHConfig(**eval(sys.argv[1])))
print("said", transport.run("echo in").stdout.decode().strip() + "side", flush=True)
print("said", transport.run("echo still").stdout.decode().strip() + " inside", flush=True)
transport.close()
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not PAM.is_dir() or not any(Path("/lib").glob(f"*/security/{MODULE}")),
    reason="only root can give an sshd a second factor through PAM",
)


@pytest.fixture
def second_factor(start_sshd, tmp_path):
    """A real sshd that wants a key, and then the code that a program of ours takes.

    Its name in PAM is that by which it was called: it has rules of its own, and those of the machine stay as they are.
    """
    name = f"ms-sshd-{os.getpid()}"
    judge, program = tmp_path / "judge", tmp_path / name
    judge.write_text(f'#!/bin/sh\ncode=$(tr -d "\\000")\necho "$code" >>{tmp_path}/codes\n[ "$code" = 123456 ]\n')
    judge.chmod(0o755)
    program.symlink_to(str(sshd_path()))
    rules = PAM / name
    steps = [f"auth required {MODULE} expose_authtok quiet {judge}"]
    steps += [f"{what} required pam_permit.so" for what in ("auth", "account", "session")]
    rules.write_text("\n".join(steps) + "\n")
    try:
        yield start_sshd(*FACTORS, program=program)
    finally:
        rules.unlink()


def answering(*answers):
    """Return a person who types these, and the questions that they were asked."""
    left, questions = list(answers), []

    def ask(question, _seen):
        questions.append(question)
        return left.pop(0)

    return ask, questions


def test_a_code_after_the_key(second_factor, connect, tmp_path):
    from matterstack.runtime.transports.ssh import SSHTransport

    ask, questions = answering("000000", "123456")
    transport = connect(second_factor.config(), SSHTransport, ask=ask)
    assert transport.run("echo in").stdout == b"in\n"
    assert transport.run("echo still").stdout == b"still\n"
    assert len(questions) == 2
    assert all("Password" in question for question in questions)
    assert (tmp_path / "codes").read_text() == "000000\n123456\n"


def test_wrong_codes_are_a_refusal(second_factor, connect):
    from matterstack.runtime.transports.ssh import SSHTransport

    ask, _ = answering("1", "2", "3", "4", "5", "6")
    with pytest.raises(LoginRefused):
        connect(second_factor.config(), SSHTransport, ask=ask).run("true")


@pytest.mark.parametrize("kind", ["paramiko", "openssh"])
def test_nobody_is_asked_where_nobody_is(second_factor, connect, tmp_path, kind):
    with pytest.raises(AccessError):
        connect(second_factor.config(transport=kind)).run("true")
    assert not (tmp_path / "codes").exists()


@pytest.mark.parametrize("kind", ["paramiko", "openssh"])
def test_a_person_at_the_terminal_types_the_code_once(second_factor, tmp_path, kind):
    """Both connections in one process; OpenSSH asks by itself, and later commands ride on what it opened."""
    config = second_factor.config(transport=kind)
    fields = repr({name: getattr(config, name) for name in type(config).__struct_fields__})
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["MATTERSTACK_HOME"] = str(tmp_path)
        os.execv(sys.executable, [sys.executable, "-c", RIDE, fields])
    said, typed = b"", False
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
        if b"assword" in said and not typed:
            typed = True
            os.write(terminal, b"123456\n")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, said
    assert b"said inside" in said
    assert b"said still inside" in said
    assert (tmp_path / "codes").read_text() == "123456\n"
