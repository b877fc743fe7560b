"""A task does what ``/bin/sh -c`` would do with its command, whatever is in it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watching import ended, eventually, lives, number_in

from matterstack import Task
from matterstack.runtime.backends.local import LocalBackend

NUMBER = itertools.count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    backend = LocalBackend(tmp_path_factory.mktemp("results"), max_concurrent_tasks=2)
    yield backend
    backend.close()


def outcome(backend, command, **fields):
    """Return exit code, stdout and stderr of the command as a task; bytes are compared, not text."""
    job_id = backend.submit(Task(command, f"t{next(NUMBER)}", **fields))
    status = ended(backend, job_id, within_s=20)
    where = backend.workdir(job_id)
    return status.exit_code, (where / "stdout.txt").read_bytes(), (where / "stderr.txt").read_bytes()


def reference(command, tmp_path, env=None):
    """Return the same of a plain ``sh -c`` in a session of its own."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=tmp_path,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    return done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr


COMMANDS = [
    "echo 'single' \"double\" back\\slash `echo ticks` $(echo dollar)",
    "printf '%s\\n' \"it's\" 'a\"b' 'x\\ny'",
    "echo one\necho two\n\n# a comment\necho three",
    "cat <<'END'\nhere $HOME `x` 'y'\nEND",
    "echo déjà vu — 你好 🙂",
    "printf '\\001\\177\\377' | od -c",
    "echo \x01a\x7fb\x02 | od -c",
    "echo tab\there",
    "echo 'cr\rlf'",
    " echo leading blank",
    "echo trailing blank ",
    "\techo tab first",
    "-x",
    "--version",
    "-c echo",
    "!",
    "{ echo a; }; (echo b); [ 1 = 1 ] && echo c",
    "exit 300",
    "exit 256",
    "exit 08",
    "exit",
    "true && false",
    "false",
    "true",
    ":",
    "kill -9 $$",
    "kill -TERM $$; sleep 5",
    "kill -INT $$; sleep 5",
    "kill -HUP $$; sleep 5",
    "trap 'kill 0' EXIT; echo x",
    "trap 'echo bye' EXIT; exit 3",
    "trap 'echo got; exit 9' TERM; kill -TERM $$; sleep 5",
    "cat",
    'read line; echo "rc=$? line=$line"',
    "exec echo replaced",
    "exec false",
    "exec >out.txt; echo hidden",
    "exec 3>&-; echo still",
    "exec /no/such/program",
    "set -e; false; echo no",
    "set -u; echo $not_set_anywhere; echo no",
    "sleep 0.05 & echo $?; wait; echo waited",
    "(sleep 0.05; echo late) & wait",
    "yes | head -n 1",
    "echo to stderr >&2; echo to stdout",
    "echo a | tr a b",
    "if true; then echo yes; fi",
    "for i in 1 2 3; do echo $i; done",
    "f() { echo function; }; f",
    "alias x=y; alias",
    "echo $0",
    'echo $# "$@"',
    "echo $-",
    "umask",
    "ulimit -n",
    "syntax error here (",
    "echo 'unterminated",
    "cd /; pwd",
    "exec 2>&1; echo both; echo err >&2",
    "echo $((6*7)) ${x:-default} ${HOME:+set}",
    'printf %s "${BASH_VERSION:-no bash}"',
    "exit 5;echo",
    ";",
    "&",
    "ms x 0 5 true",
    "echo $T$R$p$s$n$w$r$f",
    "eval 'exit 7'",
    "history",
    # plain words, which need no shell of their own, and words that do
    "echo plain words",
    "echo a  b   c",
    "echo a=b --c=d e,f g:h i@j k%l m+n",
    "/bin/echo absolute",
    "env printf x",
    "chdir /tmp",
    "cd /tmp",
    "test 1 = 2",
    "then",
    "fi",
    "done",
    "do true",
    "esac",
    "in",
    "function x",
    "select x",
    "coproc true",
    "let 1",
    "source x",
    ". x",
    "local x",
    "declare x",
    "typeset x",
    "return 3",
    "break",
    "continue 2",
    "shift 5",
    "exit 5",
    "exec true",
    "wait",
    "jobs",
    "bg",
    "fg",
    "unset PATH",
    "export",
    "readonly x",
    "getopts a b",
    "hash",
    "type echo",
    "command echo x",
    "command -v cd",
    "builtin echo x",
    "ulimit -c",
    "kill -0 1",
    "umask 077",
    "printf x-y",
    "logout",
    "caller",
    "enable",
    "suspend",
    "disown",
    "shopt -s",
    "mapfile x",
    "compgen -b",
    "pushd /",
    "dirs",
    "trap",
    "read x",
    "set -e",
    "eval exit 4",
    "sleep 0",
    "sh -c true",
    "grep -q root /etc/passwd",
    "cat /no/such/file",
    "ls -d /",
    "print x",
    "whence ls",
]


def without_shell_name(stderr):
    """Error messages begin with the name of the program that noticed; what it noticed is compared."""
    return stderr.rpartition(b": ")[2] if b"not found" in stderr or b"o such file" in stderr else stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_sh_does(shared, tmp_path, command):
    code, out, err = outcome(shared, command)
    expected_code, expected_out, expected_err = reference(command, tmp_path)
    if command == "export":
        out = expected_out = b""
    assert (code, out) == (expected_code, expected_out)
    assert without_shell_name(err) == without_shell_name(expected_err)


PIECES = st.sampled_from(
    [
        *("echo", "printf %s", "exit 3", "true", "false", "a b", "set --", "eval", "exec", "then", "fi", "if", ":"),
        *("'", '"', "\\", "$", "$$", "`", "(", ")", "{", "}", ";", "&", "|", "<", ">", "#", "!", "*", "?", "~", "-"),
        *("\n", "\t", " ", "é", "🙂", "\x01", "\x7f", "\r", "--", "=", "${x", "$(", "<<E\n", "E\n", "2>&1", "[", "]"),
        *("%", "0"),
    ]
)
# A reference that waits for its input or a clock would only be slow; one that writes into files differs by place.
PARTS = st.lists(PIECES, min_size=1, max_size=7)
TEXTS = PARTS.map(" ".join) | PARTS.map("".join)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(TEXTS)
def test_any_text_does_what_sh_does(shared, tmp_path_factory, command):
    if not command.strip() or any(word in command for word in ("$$", "*", "?", "&", ">")):
        return  # differs from process to process, or by what lies in the directory, or runs on in the background
    code, out, _ = outcome(shared, command)
    assert (code, out) == reference(command, tmp_path_factory.mktemp("reference"))[:2]


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["$(id)", "`id`", "a'b", 'a"b', "\\", "\n", "-n", "--", "", " ", "${x}", "*", "~", "!", "\x01", "\x7f"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(WORDS, max_size=4))
def test_env_values_arrive_byte_for_byte(shared, values):
    env = {f"V_{i}": value for i, value in enumerate(values)}
    names = " ".join(f'"$V_{i}"' for i in range(len(values)))
    code, out, err = outcome(shared, f"printf '<%s>' {names}", env=env)
    assert (code, err) == (0, b"")
    assert out == ("".join(f"<{value}>" for value in values) or "<>").encode()


SPECIAL = ["PATH", "IFS", "PS4", "UID", "EUID", "PPID", "GROUPS", "SHELLOPTS", "BASHOPTS", "POSIXLY_CORRECT", "RANDOM"]
SPECIAL += ["SECONDS", "LINENO", "FUNCNAME", "BASH_VERSINFO", "DIRSTACK", "HISTCMD", "BASH_ENV", "ENV", "LC_ALL"]
SPECIAL += ["LANG", "HOME", "CDPATH", "TMOUT", "OPTIND", "EXECIGNORE", "FUNCNEST", "BASH_COMPAT", "GLOBIGNORE"]
SPECIAL += ["BASHPID", "BASH_XTRACEFD", "EPOCHSECONDS", "BASH_ARGV", "T", "R", "p", "s", "n", "w", "r", "f", "_"]


@pytest.mark.parametrize("name", SPECIAL)
def test_an_env_value_that_means_something_to_a_shell_is_only_a_value(shared, tmp_path, name):
    value = os.environ["PATH"] + ":/extra" if name == "PATH" else "7"
    for command in (f'printf "%s" "${name}"', f"printenv {name}"):
        if name == "PPID" or (name in ("IFS", "OPTIND") and "printenv" in command):
            continue  # dash has a value of its own for these
        assert outcome(shared, command, env={name: value}) == reference(command, tmp_path, {name: value}), command


def test_a_locale_that_is_not_there_adds_nothing_to_stderr(shared):
    for env in ({"LC_ALL": "xx_YY.UTF-8"}, {"LANG": "xx_YY.UTF-8", "LC_CTYPE": "zz_ZZ"}):
        assert outcome(shared, "echo fine", env=env) == (0, b"fine\n", b"")


@pytest.mark.parametrize("name", ["T", "R", "p", "s", "n", "w", "r", "f", "REPLY", "OLDPWD_"])
def test_the_hosts_variables_reach_the_task_unchanged(monkeypatch, local, name):
    monkeypatch.setenv(name, "from the host")
    backend = local(slots=1)
    for command in (f"printenv {name}", f"printenv {name}; :"):  # the second in a shell that has run one before
        assert outcome(backend, command, time_limit_minutes=1) == (0, b"from the host\n", b"")


def test_startup_files_of_shells_and_exported_functions_do_not_change_a_task(monkeypatch, local, tmp_path):
    trap = tmp_path / "trap.sh"
    trap.write_text("echo CAUGHT; exit 66\n")
    monkeypatch.setenv("BASH_ENV", str(trap))
    monkeypatch.setenv("BASH_FUNC_echo%%", "() { printf CAUGHT; }")
    monkeypatch.setenv("BASH_FUNC_read%%", "() { printf CAUGHT; }")
    monkeypatch.setenv("SHELLOPTS", "errexit:xtrace:noexec")
    backend = local(slots=1)
    assert outcome(backend, "echo fine; echo more") == (0, b"fine\nmore\n", b"")
    assert outcome(backend, "sleep 0") == (0, b"", b"")


def test_a_task_has_the_signals_and_group_of_a_fresh_process(shared, tmp_path):
    for command in ("grep -E Sig.(Ign|Blk|Cgt) /proc/self/status", "exec grep SigIgn: /proc/self/status; :"):
        assert outcome(shared, command) == reference(command, tmp_path)
    _, out, _ = outcome(shared, "cut -d' ' -f1,5 /proc/$$/stat")
    pid, group = out.split()
    assert pid == group


def test_a_task_has_no_file_open_but_its_three(shared, tmp_path):
    for command in ("ls /proc/self/fd", "ls /proc/self/fd | cat"):
        assert outcome(shared, command) == reference(command, tmp_path), command


@pytest.mark.parametrize("size", [99_990, 100_001, 131_072, 200_000])
def test_a_very_long_command_runs(shared, size):
    text = "x" * (size - 30)
    code, out, _ = outcome(shared, f"printf %s '{text}' | wc -c")
    assert (code, int(out)) == (0, len(text))


def test_a_background_child_does_not_keep_the_task_from_ending(shared, tmp_path):
    code, out, _ = outcome(shared, f"sleep 60 & echo $! >{tmp_path}/child; echo done")
    child = number_in(tmp_path / "child")
    assert (code, out) == (0, b"done\n")
    assert lives(child)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: not lives(child))


def test_a_script_without_an_interpreter_line_is_run_by_sh(shared, tmp_path):
    script = tmp_path / "script"
    script.write_text('echo "a\\tb"; printf %s "${BASH_VERSION:-}"\n')
    script.chmod(0o755)
    (tmp_path / "reference").mkdir()
    for command in (f"{script}", f"{script} x", f"{script}; :"):
        assert outcome(shared, command) == reference(command, tmp_path / "reference"), command


def test_the_task_knows_who_it_is(shared):
    job_id = shared.submit(Task("echo $MATTERSTACK_TASK $MATTERSTACK_ATTEMPT $MATTERSTACK_CORES", "named", cores=2))
    ended(shared, job_id)
    assert shared.get_logs(job_id)["stdout"] == "named 1 2\n"


def test_a_task_starts_in_its_own_empty_directory(shared):
    job_id = shared.submit(Task("pwd; ls", "where"))
    ended(shared, job_id)
    where = Path(shared.get_logs(job_id)["stdout"].splitlines()[0])
    assert where == shared.workdir(job_id)
    assert where.stat().st_mode & 0o777 == 0o700
    assert set(shared.get_logs(job_id)["stdout"].split()[1:]) == {"stderr.txt", "stdout.txt"}
