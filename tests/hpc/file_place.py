"""A workspace for the tests of staging and retrieval: real shells and tools, and transports that break."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from shlex import quote

import pytest
from hypothesis import strategies as st

from matterstack.core.workflow import file_name_problem
from matterstack.errors import TransportError
from matterstack.runtime.backends.hpc.remote import Remote
from matterstack.runtime.transports.base import Reply
from matterstack.runtime.transports.local import LocalTransport

SHELLS = [name for name in ("dash", "bash") if shutil.which(name)]
NAMES = [
    *("plain", "-rf", "--help", "-", "a b", " ", "a\nb", "\n", "tab\there", "cr\rhere", "'", '"', "a'b\"c", "`id`"),
    *("$(touch owned)", "$HOME", "a;b", "a&b", "a|b", ">a", "!a", "#a", "~", "a*", "?", "[ab]", "{a,b}", "\\", "a\\nb"),
    *("\\\\", "%s", "%", "a%d\\045", "=a", "a:b", "a,b", "é", "日本語", "\u202egnp", "\x01\x7f", "é" * 127, "x" * 255),
    *("new/x", ".hidden", "...", "d/e/f", "d/-x", "matterstack", "sub/.matterstack/x", "y" * 200 + "/" + "z" * 200),
]


def _valid(name: str) -> bool:
    return file_name_problem(name) is None


names = st.one_of(
    st.sampled_from(NAMES),
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20), max_size=3
    ).map("/".join),
).filter(_valid)


def apart(found: list[str]) -> list[str]:
    """Return the names that can lie side by side: none is the directory of another."""
    return [n for n in dict.fromkeys(found) if not any(o.startswith(n + "/") for o in found)]


class Place:
    """A workspace root and a PATH with commands of our own before the real ones."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str = "") -> None:
        self.root = tmp_path / "work space's"
        self.bin = tmp_path / "bin"
        self.bin.mkdir(exist_ok=True)
        self._path = os.environ["PATH"]
        monkeypatch.setenv("PATH", f"{self.bin}:{self._path}")
        self.command("sbatch", "exit 1")  # a workspace is asked on hosts with Slurm only
        if shell:
            (self.bin / "sh").symlink_to(shutil.which(shell) or shell)

    def command(self, name: str, script: str) -> None:
        """Put a command before the real one; ``$real`` is the latter."""
        real = shutil.which(name, path=self._path) or ""
        (self.bin / name).write_text(f"#!/bin/sh\nreal={quote(real)}\n{script}\n")
        (self.bin / name).chmod(0o755)

    def hurry(self, slept: Path) -> None:
        """Let `sleep` take a moment only, and leave a file for each time in a directory."""
        slept.mkdir()
        self.command(
            "sleep", f'n=1; until mkdir {quote(str(slept))}/$n 2>/dev/null; do n=$((n + 1)); done; "$real" 0.05'
        )

    def wait(self, file: Path) -> str:
        """Return the shell that waits until there is a file."""
        real = shutil.which("sleep", path=self._path)
        return f"i=0; until [ -e {quote(str(file))} ] || [ $i = 6000 ]; do {real} 0.01; i=$((i + 1)); done"

    def remote(self, transport: LocalTransport | None = None) -> Remote:
        return Remote(transport or LocalTransport(), str(self.root), 60)

    def attempt(self, directory: str, files: dict[str, str | bytes]) -> Path:
        """Write the files of an attempt, as a job would."""
        where = self.root / directory
        where.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return where


def tree(where: Path) -> dict[str, bytes]:
    """Return the content of each file by its name; what is neither file nor directory, by what it is."""
    found: dict[str, bytes] = {}
    for above, directories, files in os.walk(where):
        for name in [*files, *(d for d in directories if os.path.islink(os.path.join(above, d)))]:
            path = Path(above, name)
            plain = path.is_file() and not path.is_symlink()
            found[os.path.relpath(path, where)] = path.read_bytes() if plain else b"<no file>"
    return found


class Cut(LocalTransport):
    """Sends, or takes, so many bytes and no more. The script itself always arrives."""

    def __init__(self, *, sent: int | None = None, taken: int | None = None) -> None:
        super().__init__()
        self._sent, self._taken = sent, taken

    def run(self, script, *, payload=b"", sink=None, **more):
        if self._sent is not None:
            payload = _first(payload, self._sent)
        if self._taken is None or sink is None:
            return super().run(script, payload=payload, sink=sink, **more)
        out: list[bytes] = []
        super().run(script, payload=payload, sink=out.append, **more)
        sink(b"".join(out)[: self._taken])
        raise TransportError("host", "the connection broke", started=True)


class Meddling(LocalTransport):
    """Lets something happen just before the command that matters."""

    def __init__(self, word: str, meddle: Callable[[], object]) -> None:
        super().__init__()
        self._word, self._meddle = word, meddle
        self.met = 0

    def run(self, script, **more):
        if self._word in script:
            self.met += 1
            if self.met == 1:
                self._meddle()
        return super().run(script, **more)


class Heard(LocalTransport):
    """Keeps what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.out = b""

    def run(self, script, *, sink=None, **more):
        def hear(piece):
            self.out += piece
            if sink is not None:
                sink(piece)

        reply = super().run(script, sink=hear, **more)
        return reply if sink is not None else Reply(reply.code, self.out, reply.stderr)


class Counting(LocalTransport):
    """Counts what is sent, and how many commands there are."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.commands = 0
        self.scripts: list[str] = []

    def run(self, script, *, payload=b"", **more):
        self.commands += 1
        self.scripts.append(script)

        def counted():
            for piece in [payload] if isinstance(payload, bytes) else payload:
                self.bytes += len(piece)
                yield piece

        return super().run(script, payload=counted(), **more)


def _first(payload: bytes | Iterable[bytes], size: int) -> Iterable[bytes]:
    for piece in [payload] if isinstance(payload, bytes) else payload:
        yield piece[:size]
        size -= len(piece[:size])
        if not size:
            return


def mounted(where: Path, size: str) -> Path:
    """Return a small file system; `unmount` it at the end. Only root may make one."""
    where.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs to mount a small tmpfs")
    return where


def resize(where: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(where)], check=True)


def unmount(where: Path) -> None:
    subprocess.run(["umount", "-l", str(where)], check=True)


def fill(where: Path) -> None:
    """Use up all space."""
    with open(where / "ballast", "wb", buffering=0) as ballast:
        try:
            while ballast.write(b"x" * 4096):
                pass
        except OSError:
            return
