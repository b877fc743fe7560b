"""The user's login shell, and what it prints by itself, changes nothing."""

import shutil

import pytest

KINDS = ("paramiko", "openssh")
START_UP = {
    "bash": ".bashrc",
    "tcsh": ".tcshrc",
    "fish": ".config/fish/config.fish",
    "zsh": ".zshenv",
    "dash": ".none",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shell", START_UP)
def test_any_login_shell_will_do(shell, kind, start_sshd, connect, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    home = tmp_path / "home"
    start_up = home / START_UP[shell]
    start_up.parent.mkdir(parents=True, exist_ok=True)
    start_up.write_text("echo noise\n")
    # The same words to the same shell as for a user who has it in /etc/passwd.
    server = start_sshd(f'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"', f"SetEnv HOME={home}")
    transport = connect(server.config(transport=kind))
    script = "printf '%s|' 'a\"b' '$HOME' '!x' 'it'\\''s' '`c`' \"$(cat)\"; for i in 1 2; do echo $i; done; exit 5"
    reply = transport.run(script, payload=b"pay\nload")
    said = reply.stdout.removeprefix(b"noise\n").removeprefix(b"noise\n")
    assert (reply.code, said) == (5, b"a\"b|$HOME|!x|it's|`c`|pay\nload|1\n2\n")
    if shell in {"tcsh", "fish", "zsh"}:
        assert reply.stdout.startswith(b"noise\n")
