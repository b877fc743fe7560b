"""A slot's shell: one bash that outlives the controller and runs one task after the other.

Starting a shell costs more than a short task, so a slot keeps one. It reads a line a task from its standard
input and writes an empty line when the task is over. When the controller dies, its input ends; it finishes
the task at hand and exits. ``set -m`` gives every task a process group of its own.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from matterstack.core.workflow import Task
from matterstack.errors import BackendUnavailable
from matterstack.runtime.backends.local.processes import ProcessId, boot_id, start_ticks
from matterstack.runtime.backends.local.record import COMMAND_FILE, RECORD

if TYPE_CHECKING:
    import subprocess

# One argument of exec may have 128 KiB on Linux; a longer command goes through a file.
COMMAND_MAX: Final = 100_000

# ms DIRECTORY LIMIT_S GRACE_S TOKEN PAYLOAD end. A line that was cut, because the controller died while writing
# it, lacks the last word and is not begun. ms_b tells whether the claim was taken. File descriptor 3 is the
# record: noclobber (-C) makes its creation exclusive, so of any number of starts of one attempt exactly one gets
# past it. `wait` also returns when the task is stopped (128 + SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU), which is no
# end. On a full disk the start line does not fit: the command is not begun and the claim is given up; an end that
# does not fit is tried again. `times` tells, on its second line, the CPU time of all that the shell has waited for:
# what it grew by is that of the command and of what the command waited for.
PRELUDE: Final = """set -Cm
read -r ms_s </proc/self/stat
set -- $ms_s
ms_t=${22}
ms_root=ROOT
ms() {
ms_b=
[ "$6" = end ] || return
cd "$ms_root/$1" || return
{
ms_b=1
times >&3
( read -r ms_s </proc/self/stat
ms_p=$5
ms_k=$4
set -- $ms_s
printf 'start %s %s %s %s BOOT %s\\n' "$1" "${22}" "$$" "$ms_t" "$ms_k" >&3 || exit
exec 3>&-
eval "$ms_p" ) </dev/null >|stdout.txt 2>|stderr.txt &
ms_p=$!
ms_w=
[ "$2" = 0 ] || {
( sleep "$2"
echo timeout >&3
kill -TERM -- "-$ms_p"
ms_n=0
while [ "$ms_n" -lt "${3}0" ] && kill -0 -- "-$ms_p"; do sleep 0.1; ms_n=$((ms_n + 1)); done
kill -KILL -- "-$ms_p" ) </dev/null >/dev/null 2>&1 &
ms_w=$!
}
wait "$ms_p"
ms_r=$?
while [ "$ms_r" -gt 146 ] && [ "$ms_r" -lt 151 ] && kill -0 "$ms_p" 2>/dev/null; do
sleep 1
wait "$ms_p"
ms_r=$?
done
[ -z "$ms_w" ] || {
ms_f=
while read -r ms_s; do [ "$ms_s" != timeout ] || ms_f=1; done <RECORD
[ -n "$ms_f" ] || kill -KILL -- "-$ms_w"
wait "$ms_w"
}
[ -s /dev/fd/3 ] || { rm -f RECORD; ms_b=; return; }
until { times; printf '\\nexit %s end\\n' "$ms_r"; } >&3; do sleep 1; done
} 3>RECORD
}
""".replace("RECORD", RECORD)

# After TERM, the group is looked at every 0.1 s and killed when it is still there after the grace.
_KILLER: Final = (
    'n=0; while [ "$n" -lt "$2" ]; do kill -0 -- "-$1" || exit 0; sleep 0.1; n=$((n + 1)); done; kill -KILL -- "-$1"'
)

_PLAIN_WORDS: Final = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./,:+@%-]*(?: +[A-Za-z0-9_./,:+@%=-]+)*\Z")
_OWN_WORK: Final = re.compile(r"(?:true|false|exit [0-9]{1,3})\Z")
# Names that are more than values to bash, which therefore must not be set in it.
_SHELL_NAMES: Final = re.compile(
    r"(?:BASH|COMP_|EPOCH|HIST|LC_|ms_).*|_|COPROC|DIRSTACK|E?UID|EXECIGNORE|FUNC(?:NAME|NEST)|GLOBIGNORE|GROUPS|IFS"
    r"|IGNOREEOF|LANG|LINENO|MAPFILE|OLDPWD|OPT(?:ARG|ERR|IND)|PIPESTATUS|POSIXLY_CORRECT|PPID|PS4|PWD|S?RANDOM"
    r"|REPLY|SECONDS|SHELLOPTS|SHLVL|TMOUT"
)
# First words that mean something to a shell, so that only a shell may run them.
_SHELL_WORDS: Final = frozenset(
    """
    . alias bg bind break builtin caller case cd chdir command compgen complete compopt continue coproc declare dirs
    disown do done echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help
    history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return select
    set shift shopt source suspend test then time times trap true type typeset ulimit umask unalias unset until
    wait while
    """.split()  # noqa: SIM905  # a list of words reads best as words
)


@cache
def bash() -> str:
    """Return the path of bash.

    Raises:
        BackendUnavailable: There is none.
    """
    from shutil import which  # a run with nothing to start needs neither this nor subprocess

    found = which("bash")
    if found is None:
        raise BackendUnavailable("local", "start tasks", "there is no bash on PATH; install it")
    return found


def quote(text: str) -> str:
    """Return ``text`` as one word of a POSIX shell, whatever is in it but NUL."""
    return "'" + text.replace("'", "'\\''") + "'"


def payload(task: Task, extra_env: Mapping[str, str]) -> str:
    """Return what the slot's shell evaluates, in a process of its own, to become the task.

    The command gets a fresh ``/bin/sh``. Plain words need none, for it would only have executed them, and
    ``true``, ``false`` and ``exit N`` are what any shell does itself: this is half of a short task's time.
    """
    command = task.command
    if _OWN_WORK.match(command):
        return command
    names = {**extra_env, **task.env}
    inside = [name for name in task.env if _SHELL_NAMES.fullmatch(name)]
    begin = "".join(f" {name}={quote(value)}" for name, value in names.items() if name not in inside)
    begin = f"export{begin};exec" if begin else "exec"
    if inside:
        begin += " env " + " ".join(f"{name}={quote(task.env[name])}" for name in inside)
    first = command.partition(" ")[0]
    # A path may be a script without interpreter line, which bash would run itself.
    if _PLAIN_WORDS.match(command) and "/" not in first and first not in _SHELL_WORDS:
        return f"{begin} {command}"
    if len(command) > COMMAND_MAX:
        return f"{begin} /bin/sh ./{COMMAND_FILE}"
    return f"{begin} /bin/sh -c {quote(command)}"


class SlotShell:
    """A running slot shell. ``fd`` becomes readable when its task is over or the shell is gone."""

    def __init__(self, root: str, env: Mapping[str, str], cores: int) -> None:
        import subprocess

        self.cores = cores
        self._process = subprocess.Popen(
            [bash(), "--norc", "--noprofile", "-p", "-s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input = self._process.stdin.fileno()
        self.fd = self._process.stdout.fileno()
        self.id = ProcessId(self._process.pid, start_ticks(self._process.pid) or 0, boot_id())
        self._write(PRELUDE.replace("BOOT", boot_id()).replace("ROOT", quote(root)))

    def start(self, directory: str, limit_s: float | None, grace_s: int, token: str, text: str) -> None:
        """Begin a task in a directory below the root; where the shell is gone, ``BrokenPipeError`` and no task."""
        limit = "0" if limit_s is None else f"{limit_s:.3f}"
        self._write(f"ms {quote(directory)} {limit} {grace_s} {token} {quote(text)} end;echo $ms_b\n")

    def has_news(self) -> bool:
        """Return whether ``fd`` is readable now."""
        return bool(select.select([self.fd], [], [], 0)[0])

    def answer(self) -> bool | None:
        """Return, once ``fd`` was readable, whether the task was claimed by this start; None: the shell is gone."""
        words = os.read(self.fd, 64)
        return words.startswith(b"1") if words else None

    def close(self) -> None:
        """Let the shell end by itself after the task at hand."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()

    def reap(self) -> bool:
        """Return whether the shell has ended."""
        return self._process.poll() is not None

    def _write(self, text: str) -> None:
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        while data:
            data = data[os.write(self._input, data) :]


def end_group(pgid: int, grace_s: float) -> subprocess.Popen[bytes]:
    """Start a detached watcher that kills what is left of the process group after ``grace_s`` seconds."""
    import subprocess

    command = [bash(), "--norc", "--noprofile", "-p", "-c", _KILLER, "matterstack", str(pgid), str(int(grace_s * 10))]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
