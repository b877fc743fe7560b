"""Whether a cluster can run a profile's tasks: one command to log in, and one that looks at everything."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from shlex import quote
from typing import Final

from matterstack.errors import AccessError, TransportError
from matterstack.runtime.backends.finding import Finding, Verdict
from matterstack.runtime.backends.hpc.job_shell import MODULES
from matterstack.runtime.backends.hpc.judging import Said, judge, last_line
from matterstack.runtime.backends.hpc.options import SlurmOptions
from matterstack.runtime.backends.hpc.site import LIMITS_COMMAND, PARTITIONS_COMMAND, QOS_COMMAND, SETTINGS_COMMAND
from matterstack.runtime.backends.hpc.slurm import ENVIRONMENT
from matterstack.runtime.transports.base import Transport
from matterstack.runtime.transports.local import LocalTransport

_TOTAL_S: Final = 80  # for all that is asked in the one command; with the way there it stays below two minutes
_EACH_S: Final = 20
_SILENCE_S: Final = 30.0

_SAY: Final = "say() {{ printf '%s %s\\n' {nonce} \"$*\"; }}\n"
_HELLO: Final = 'say hello "$(id -un)" "$(uname -n)"\nsay end\n'
# `within` runs a command for as long as it may take, so that no answer is waited for beyond all of them together.
_PRELUDE: Final = """
say clock "$(date +%s)"
end=$(($(date +%s) + {total_s}))
within() {{
  left=$((end - $(date +%s)))
  [ "$left" -lt {each_s} ] || left={each_s}
  [ "$left" -gt 0 ] || return 124
  timeout -k 2 "$left" "$@" </dev/null 2>&1
}}
command -v sbatch >/dev/null || [ ! -r /etc/profile ] || . /etc/profile >/dev/null 2>&1
umask 077
say path
for tool in sbatch squeue scancel scontrol sacct sacctmgr tar sha256sum timeout stat mktemp; do
  command -v "$tool" >/dev/null && echo "$tool"
done
"""
_ASKED: Final = {
    "version": "sbatch --version",
    "queue": "squeue --me -h -o %i",
    "settings": SETTINGS_COMMAND,
    "partitions": PARTITIONS_COMMAND,
    "limits": LIMITS_COMMAND,
    "qos": QOS_COMMAND,
    "accounting": "sacct -n -X -S now",
    "tar": "tar --version",
}
# What a job's claim and records need of a file system is tried where the workspace is, or is to be made.
_WORKSPACE: Final = """
say workspace
d={root}
while [ ! -e "$d" ] && [ ! -L "$d" ]; do d=$(dirname "$d"); done
printf '%s\\n' "$d"
t=
{{ t=$(mktemp -d "$d/.matterstack-check.XXXXXX") && touch "$t/a" && ln "$t/a" "$t/b" && mv "$t/b" "$t/c" &&
  [ "$(stat -c %h "$t/a")" = 2 ]; }} 2>&1
say code $?
[ -z "$t" ] || {{ rm -f "$t/a" "$t/b" "$t/c"; rmdir "$t"; }}
say filesystem; within stat -f -c %T "$d"; say code $?
say space; within df -Pk "$d"; say code $?
say files; within df -Pi "$d"; say code $?
"""
# As a job does it: in a clean environment, by the site's profile, each line having to work.
_MODULES: Final = f"[ ! -r /etc/profile ] || . /etc/profile >/dev/null 2>&1\n{MODULES.format()}ms_modules"


def check_cluster(transport: Transport, root: str, options: SlurmOptions, max_array: int = 1) -> Iterator[Finding]:
    """Yield what was found, first of the way to the cluster, then of the cluster. Nothing is left behind there.

    Args:
        transport: The way there.
        root: The workspace, which need not exist yet.
        options: The profile's.
        max_array: Most elements of a job array.
    """
    try:
        reply = transport.run(_SAY.format(nonce=(nonce := _nonce())) + _HELLO, timeout_s=_SILENCE_S)
    except (AccessError, TransportError) as error:
        yield from _no_way(error)
        return
    noise, said = _parts(reply.stdout, nonce)
    noise += reply.stderr.decode("utf-8", "replace")
    if "end" not in said:
        detail = f"the shell there did not run what it was told (exit code {reply.code}): {last_line(noise)}"
        yield Finding("login", Verdict.FAILED, detail)
        return
    who = " on ".join(said["hello"].words)
    if isinstance(transport, LocalTransport):
        yield Finding("login", Verdict.OK, f"this machine itself, {who}")
    else:
        yield Finding("host key", Verdict.OK, "known")
        yield Finding("login", Verdict.OK, who)
    yield _noise(noise)
    yield from _look(transport, root, options, max_array)


def _look(transport: Transport, root: str, options: SlurmOptions, max_array: int) -> Iterator[Finding]:
    nonce, pieces = _nonce(), []
    heard: list[float] = []

    def take(piece: bytes) -> None:
        heard.append(time.time())
        pieces.append(piece)

    asked_at = time.time()
    try:
        transport.run(_script(nonce, root, options), sink=take, timeout_s=_SILENCE_S)
    except (AccessError, TransportError) as error:
        yield from _no_way(error)
        return
    _, said = _parts(b"".join(pieces), nonce)
    if "end" not in said:
        yield Finding("answers", Verdict.FAILED, "the command that looks at the cluster was cut off")
        return
    yield _clock(float(said["clock"].words[0]), asked_at, heard[0])
    yield from judge(said, root, options, max_array)


def _script(nonce: str, root: str, options: SlurmOptions) -> str:
    asked = [f"say {name}; within {command}; say code $?" for name, command in _ASKED.items()]
    lines = [f"{line} || {{ say failed {number}; exit 1; }}" for number, line in enumerate(options.modules)]
    say = _SAY.format(nonce=nonce)
    loading = "\n".join([say, _MODULES, *lines, f"say container; command -v {options.container}"])
    clean = 'env -i HOME="$HOME" USER="$(id -un)" PATH="$PATH" TERM=dumb'
    modules = f"say modules; within {clean} sh -c {quote(loading)}; say code $?"
    prelude = _PRELUDE.format(total_s=_TOTAL_S, each_s=_EACH_S)
    return "\n".join([say, prelude, ENVIRONMENT, *asked, _WORKSPACE.format(root=quote(root)), modules, "say end"])


def _nonce() -> str:
    return f"ms-{os.urandom(8).hex()}"


def _parts(stdout: bytes, nonce: str) -> tuple[str, dict[str, Said]]:
    """Return what stands before the first mark, and by name what stands behind the others, with its exit code."""
    noise, *marked = stdout.decode("utf-8", "replace").split(f"{nonce} ")
    said: dict[str, Said] = {}
    name = ""
    for piece in marked:
        head, _, text = piece.partition("\n")
        first, *words = head.split()
        if first == "code":
            said[name].code = int(words[0])
        else:
            name = first
            said[name] = Said(words, text)
    return noise, said


def _no_way(error: AccessError | TransportError) -> Iterator[Finding]:
    """Yield how far the way went."""
    if isinstance(error, TransportError):
        yield Finding("connection", Verdict.FAILED, error.cause)
        return
    key = "host key" in error.problem or "its key" in error.problem
    if "login" in error.problem:
        yield Finding("host key", Verdict.OK, "known")
    what = "host key" if key else "login"
    yield Finding(what, Verdict.FAILED, f"{error.problem}; {error.remedy}")


def _noise(text: str) -> Finding:
    line = last_line(text)
    if not line:
        return Finding("shell noise", Verdict.OK, "none")
    detail = f"the shell's start-up files print {line!r}; that does no harm here, but breaks scp and rsync"
    return Finding("shell noise", Verdict.WARNING, detail)


def _clock(there: float, asked_at: float, heard_at: float) -> Finding:
    """Return how far the cluster's clock is from ours; it answered between the two times."""
    off_s = there - heard_at if there > heard_at else min(0.0, there + 1 - asked_at)
    if abs(off_s) < 5:
        return Finding("clock", Verdict.OK, "as ours")
    which = "ahead of" if off_s > 0 else "behind"
    detail = f"{abs(off_s):.0f} s {which} ours; no decision depends on it, but times in histories are from both"
    return Finding("clock", Verdict.WARNING, detail)
