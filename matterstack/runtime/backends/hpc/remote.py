"""Asking a cluster: scripts in the workspace, with answers that cannot be mistaken for noise or cut unseen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from shlex import quote

from msgspec import Struct

from matterstack.errors import AccessError, TransportError
from matterstack.runtime.backends.hpc.slurm import ENVIRONMENT, Answer, answer_of
from matterstack.runtime.transports.base import Transport

_NO_ROOT = 90
_NO_SLURM = 91
# Some sites set PATH for Slurm in the profile only, which a remote command does not read.
_PRELUDE = (
    "command -v sbatch >/dev/null || [ ! -r /etc/profile ] || . /etc/profile >/dev/null 2>&1\n"
    "command -v sbatch >/dev/null || exit {no_slurm}\n"
    "umask 077; mkdir -p -- {root}/.matterstack && cd -- {root} || exit {no_root}\n"
    "say() {{ printf '%s %s\\n' {nonce} \"$*\"; }}\n"
)


class Part(Struct, frozen=True):
    """A piece of an answer: the words of its marker, and the text up to the next marker."""

    words: list[str]
    text: str


class Remote:
    """A workspace on a cluster.

    Args:
        transport: The way there.
        root: The workspace, an absolute path, made when it is missing.
        silence_s: Seconds of silence after which a command is given up.
    """

    def __init__(self, transport: Transport, root: str, silence_s: float) -> None:
        self.transport, self.root, self._silence_s = transport, root, silence_s

    def ask(self, script: str, lines: Iterable[str] = (), *, payload: Iterable[bytes] = ()) -> list[Part]:
        """Return what the script says.

        Args:
            script: Run by ``sh`` in the workspace; ``say WORDS`` begins a part, what is printed after it is its text.
            lines: What the script reads on its standard input.
            payload: What it reads there after the lines.

        Raises:
            TransportError: The host could not be reached, or the answer is not whole.
            AccessError: There is no Slurm in PATH, or the workspace cannot be made.
        """
        nonce = f"ms-{os.urandom(8).hex()}"
        prelude = _PRELUDE.format(root=quote(self.root), nonce=nonce, no_root=_NO_ROOT, no_slurm=_NO_SLURM)
        first = "".join(f"{line}\n" for line in lines).encode()
        whole = f"{prelude}{ENVIRONMENT}\n{script}\nsay end\n"
        reply = self.transport.run(whole, payload=chain([first] if first else [], payload), timeout_s=self._silence_s)
        parts = list(_parts(reply.stdout.decode("utf-8", "replace"), nonce))
        if parts and parts[-1].words == ["end"]:
            return parts[:-1]
        words = reply.stderr.decode("utf-8", "replace").strip()[-500:]
        host = self.transport.name
        if reply.code == _NO_ROOT:
            raise AccessError(
                host, f"workspace_root {self.root!r} cannot be used: {words}", "give the profile a directory you own."
            )
        if reply.code == _NO_SLURM:
            raise AccessError(
                host,
                "there is no sbatch in PATH",
                "make a plain `ssh HOST sbatch --version` work (for instance in ~/.bashrc), or name a login node of "
                "the cluster in the profile.",
            )
        raise TransportError(host, f"its answer is not whole (exit code {reply.code}): {words}", started=True)


def asking(what: str, command: str) -> str:
    """Return the script that asks a Slurm command; `answer` reads what it says."""
    # Its words of error follow in a part of their own: they tell whether it answered at all.
    errors = ".matterstack/asked.$$"
    return f'say {what}; {command} 2>"{errors}"; say code $?; cat "{errors}"; rm -f "{errors}"'


def answer(parts: Sequence[Part], what: str) -> tuple[Answer, str]:
    """Return whether the command asked as ``what`` answered, and its rows where it did."""
    for part, after in pairwise(parts):
        if part.words == [what] and after.words[:1] == ["code"]:
            found = answer_of(int(after.words[1]), after.text)
            return found, part.text if found is Answer.YES else ""
    return Answer.SILENT, ""


def _parts(text: str, nonce: str) -> Iterator[Part]:
    words: list[str] | None = None
    lines: list[str] = []
    for line in text.split("\n"):
        mark, _, rest = line.partition(f"{nonce} ")
        if rest and words is not None and mark:  # text before it had no newline at its end
            lines.append(mark)
        if rest:
            if words is not None:
                yield Part(words, "\n".join(lines))
            words, lines = rest.split(), []
        else:
            lines.append(line)
    if words is not None:
        yield Part(words, "\n".join(lines))
