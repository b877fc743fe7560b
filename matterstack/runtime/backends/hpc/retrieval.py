"""Results as one tar stream for any number of attempts, checked against what the cluster says of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from shlex import quote
from typing import IO, Final

from msgspec import Struct

from matterstack.errors import TransportError
from matterstack.runtime.backends.hpc.layout import META
from matterstack.runtime.backends.hpc.tar import Entry, TarReader
from matterstack.runtime.transports.base import Transport

LOGS: Final = ("stdout.txt", "stderr.txt")
_DEPTH: Final = 3  # an attempt's directory is run/task/attempt
_NO_ROOT: Final = 90

# Reads names, each ended by NUL. Hashes and tar read side by side, so the disk is read once; a file that is not
# there is in neither. What is hashed differently than sent was changed meanwhile.
_SEND: Final = """
cd -- {root} || exit {no_root}
names=.matterstack/names.$$; cat >"$names" || exit
trap 'rm -f "$names" "$names.sums"' EXIT
xargs -0 -r sha256sum -z -- <"$names" >"$names.sums" 2>/dev/null & sums=$!
tar -c -f - --format=gnu --no-recursion --null -T "$names" 2>/dev/null
wait $sums
cat "$names.sums"; printf 'end'
"""
_LIST: Final = """
cd -- {root} || exit {no_root}
xargs -0 -r sh -c 'for d do [ ! -d "$d" ] || find "$d" -path "$d/.matterstack" -prune -o -type f -print0; done' sh
printf 'end'
"""


class Wanted(Struct, frozen=True):
    """What to retrieve of an attempt.

    ``directory``: relative to the workspace. ``include``, ``exclude``: globs of names relative to it, where ``*``
    also stands for ``/``; None includes everything. ``target``: where it comes to lie. ``logs``: what it wrote, too.
    """

    directory: str
    include: tuple[str, ...] | None
    exclude: tuple[str, ...]
    target: Path
    logs: bool = True

    @property
    def plain(self) -> bool:
        """Whether the names are known without looking."""
        return self.include is not None and not any(char in name for name in self.include for char in "*?[")

    def takes(self, name: str) -> bool:
        """Return whether a file of this name is wanted."""
        if self.logs and name in LOGS:
            return True
        included = self.include is None or any(fnmatchcase(name, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


def retrieve(transport: Transport, root: str, wanted: Sequence[Wanted]) -> dict[str, str]:
    """Return, by attempt directory, why results could not be retrieved; those of the others are here, checked.

    Raises:
        TransportError, AccessError: The host could not be reached; nothing here was changed.
        OSError: They could not be written here.
    """
    names: dict[str, list[str]] = {}
    for one in wanted:
        if one.plain:
            own = dict.fromkeys([*(LOGS if one.logs else ()), *(one.include or ())])
            names[one.directory] = [name for name in own if one.takes(name)]
    unknown = [one for one in wanted if not one.plain]
    if unknown:
        listed = _listed(transport, root, [one.directory for one in unknown])
        names |= {one.directory: [n for n in listed.get(one.directory, ()) if one.takes(n)] for one in unknown}
    receiver = Receiver({one.directory: one.target for one in wanted})
    selected = [f"{directory}/{name}" for directory, own in names.items() for name in own]
    if not selected:
        return {}
    try:
        _receive(transport, root, selected, receiver)
        return receiver.finish()
    finally:
        receiver.clear()


def _receive(transport: Transport, root: str, names: Sequence[str], receiver: Receiver) -> None:
    script = _SEND.format(root=quote(root), no_root=_NO_ROOT)
    reply = transport.run(script, payload=[_nul(names)], sink=receiver.feed)
    if reply.code != 0 or not receiver.whole:
        words = reply.stderr.decode("utf-8", "replace").strip()[-300:]
        raise TransportError(
            transport.name, f"results did not come whole (exit code {reply.code}): {words}", started=True
        )


def _nul(names: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(name) + b"\0" for name in names)


def _listed(transport: Transport, root: str, directories: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of all files of attempts, by directory."""
    reply = transport.run(_LIST.format(root=quote(root), no_root=_NO_ROOT), payload=[_nul(directories)])
    *names, end = reply.stdout.split(b"\0")
    if reply.code != 0 or end != b"end":
        raise TransportError(transport.name, f"the list of results is not whole (exit code {reply.code})", started=True)
    found: dict[str, list[str]] = {}
    for name in names:
        directory, inside = split(os.fsdecode(name))
        found.setdefault(directory, []).append(inside)
    return found


def split(name: str) -> tuple[str, str]:
    """Return the attempt's directory and the name inside it; the latter is empty for what lies above."""
    parts = name.split("/", _DEPTH)
    return "/".join(parts[:_DEPTH]), parts[_DEPTH] if len(parts) > _DEPTH else ""


class _Received(Struct):
    part: Path
    target: Path
    size: int
    digest: str


class Receiver:
    """Writes what comes to ``.part`` files, and renames them when the cluster's hashes agree.

    Args:
        targets: Where each attempt's files come to lie; what belongs to none of them is not written.
    """

    def __init__(self, targets: Mapping[str, Path]) -> None:
        self._targets = targets
        self._tar = TarReader(self._begin, self._tail)
        self._sums = bytearray()
        self._received: dict[str, _Received] = {}
        self._refused: dict[str, str] = {}
        self._open: tuple[str, IO[bytes], hashlib._Hash] | None = None  # of the file at hand

    def feed(self, piece: bytes) -> None:
        """Take the next piece of what the cluster sends.

        Raises:
            OSError: It cannot be written.
        """
        self._tar.feed(piece)

    @property
    def whole(self) -> bool:
        """Whether everything has come."""
        return self._tar.ended and self._sums.endswith(b"end")

    def _tail(self, piece: bytes) -> None:
        self._close()
        # The archive is filled up with zeros; a hash begins with none.
        self._sums += piece if self._sums else piece.lstrip(b"\0")

    def _begin(self, entry: Entry) -> Callable[[memoryview], None] | None:
        self._close()
        directory, name = split(entry.name)
        target = self._targets.get(directory)
        if target is None or not entry.regular:
            return None
        place = contained(target, name)
        if place is None:
            self._refused[directory] = f"{name!r} would leave the task's directory"
            return None
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".matterstack.{place.name[:200]}.part")
        part.unlink(missing_ok=True)
        file = part.open("xb")
        digest = hashlib.sha256()
        self._open = entry.name, file, digest
        self._received[entry.name] = _Received(part, place, entry.size, "")

        def take(piece: memoryview) -> None:
            file.write(piece)
            digest.update(piece)

        return take

    def _close(self) -> None:
        if self._open is not None:
            name, file, digest = self._open
            self._open = None
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._received[name].digest = digest.hexdigest()

    def finish(self) -> dict[str, str]:
        """Return, by directory, what is wrong with its files, after renaming those of the others."""
        self._close()
        problems = dict(self._refused)
        sums = dict(_sums(bytes(self._sums[: -len(b"end")])))
        for name, received in self._received.items():
            directory = split(name)[0]
            if sums.get(name) != received.digest:
                problems.setdefault(directory, f"{split(name)[1]!r} changed while it was retrieved")
        for name, received in self._received.items():
            if split(name)[0] not in problems:
                os.replace(received.part, received.target)
        return problems

    def clear(self) -> None:
        """Remove what was not renamed."""
        if self._open is not None:
            self._open[1].close()
        for received in self._received.values():
            received.part.unlink(missing_ok=True)


def _sums(text: bytes) -> list[tuple[str, str]]:
    """Return names and hashes of the lines ``HASH  NAME``, each ended by NUL."""
    return [(os.fsdecode(line[66:]), line[:64].decode("ascii", "replace")) for line in text.split(b"\0") if line]


def contained(target: Path, name: str) -> Path | None:
    """Return where a file of this name lies below ``target``; None where it would leave it, or is one of ours.

    A link that somebody put into the target is not followed out of it.
    """
    parts = name.split("/")
    if not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
        return None
    if parts[0] == META or any(len(os.fsencode(part)) > 255 for part in parts):
        return None
    place = target
    for part in parts[:-1]:
        place = place / part
        if place.is_symlink():
            return None
    return place / parts[-1]


def fetch_file(transport: Transport, root: str, directory: str, name: str, target: Path) -> None:
    """Bring one file of an attempt to ``target``, the attempt's directory here.

    Raises:
        FileNotFoundError: The attempt has no such file.
        TransportError, AccessError, OSError: It could not be fetched.
    """
    if contained(target, name) is None:
        raise FileNotFoundError(name)
    problems = retrieve(transport, root, [Wanted(directory, (_literal(name),), (), target, logs=False)])
    if problems:
        raise TransportError(transport.name, problems[directory], started=True)
    if not (target / name).is_file():
        raise FileNotFoundError(name)


def _literal(name: str) -> str:
    """Return a glob that matches this name alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def read_range(transport: Transport, root: str, directory: str, name: str, offset: int) -> bytes:
    """Return a file of an attempt from byte ``offset`` on; empty where it is not there.

    Raises:
        TransportError, AccessError: The host could not be reached.
    """
    path = quote(f"{directory}/{name}")
    script = f"cd -- {quote(root)} || exit {_NO_ROOT}; [ ! -f {path} ] || tail -c +{offset + 1} -- {path}; printf end"
    reply = transport.run(script)
    if not reply.stdout.endswith(b"end"):
        raise TransportError(transport.name, f"the answer is not whole (exit code {reply.code})", started=True)
    return reply.stdout[: -len(b"end")]
