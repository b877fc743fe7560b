"""What comes from a cluster, put where it belongs on this machine: whole and checked, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from matterstack.runtime.backends.hpc.layout import META
from matterstack.runtime.backends.hpc.tar import Entry, TarReader

_DEPTH: Final = 3  # an attempt's directory is run/task/attempt
_PART_MAX: Final = 255  # bytes of a part of a name
_INCOMING: Final = "incoming"
_LEFT_S: Final = 86400.0  # what is older was left by a process that was killed
_SYNCS: Final = 8  # files written to disk side by side: as many as a disk takes for one
_TOLD: Final = 3  # files of an attempt that are named
# These are troubles of this machine; all others are of the one file.
_OURS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)


def split(name: str) -> tuple[str, str]:
    """Return the attempt's directory and the name inside it; the latter is empty for what lies above."""
    parts = name.split("/", _DEPTH)
    return "/".join(parts[:_DEPTH]), parts[_DEPTH] if len(parts) > _DEPTH else ""


def is_inside(name: str) -> bool:
    """Return whether this is the name of a file inside an attempt's directory, and not one of ours."""
    parts = name.split("/")
    if "\0" in name or any(part in ("", ".", "..") for part in parts):
        return False
    return parts[0] != META and all(len(os.fsencode(part)) <= _PART_MAX for part in parts)


def contained(target: Path, name: str) -> Path | None:
    """Return where a file of this name lies below ``target``; None where it would leave it, or is one of ours.

    A link that somebody put into the target is not followed out of it.
    """
    if not is_inside(name):
        return None
    *above, last = name.split("/")
    place = target
    for part in above:
        place = place / part
        if place.is_symlink():
            return None
    return place / last


def in_few_words(problems: Sequence[str]) -> str:
    """Return the first of many problems in one line, and how many more there are."""
    more = len(problems) - _TOLD
    return "; ".join([*problems[:_TOLD], *([f"and {more} more"] if more > 0 else [])])


class _Received(Struct):
    part: str
    target: Path
    digest: str = ""


class Receiver:
    """Takes a tar stream: files lie aside until the cluster's hashes agree, then they are renamed.

    Args:
        targets: Where each attempt's files come to lie.
        asked: The names that were asked for; whatever else comes is not written.
        limit_bytes: Most bytes that are taken in all; None for any number.
    """

    def __init__(self, targets: Mapping[str, Path], asked: Collection[str], limit_bytes: int | None = None) -> None:
        self._targets, self._asked = targets, asked
        self._left = limit_bytes
        self._tar = TarReader(self._begin)
        self._tag, self._number = os.urandom(8).hex(), count()
        self._incoming: dict[str, Path] = {}
        self._received: dict[str, _Received] = {}
        self._open: tuple[_Received, IO[bytes], hashlib._Hash] | None = None  # the file at hand
        self._faults: dict[str, str] = {}

    def feed(self, piece: bytes) -> None:
        """Take the next piece of what the cluster sends.

        Raises:
            DamagedTarError: It is no tar stream.
            OSError: It cannot be written.
        """
        self._tar.feed(piece)

    @property
    def whole(self) -> bool:
        """Whether the end of the stream has come."""
        return self._tar.ended

    @property
    def problems(self) -> dict[str, str]:
        """By attempt directory, which of its files are not here, and why."""
        found: dict[str, list[str]] = {}
        for name, problem in self._faults.items():
            directory, inside = split(name)
            found.setdefault(directory, []).append(f"{inside!r} {problem}")
        return {directory: in_few_words(problems) for directory, problems in found.items()}

    def _begin(self, entry: Entry) -> Callable[[memoryview], object] | None:
        self._close()
        directory, name = split(entry.name)
        if not entry.regular or entry.name not in self._asked or directory not in self._targets:
            return None
        if self._left is not None:
            if entry.size > self._left:
                self.fault(entry.name, f"is larger than what is left of the limit, {self._left} bytes")
                return None
            self._left -= entry.size
        try:
            return self._file(entry.name, directory, name)
        except OSError as error:
            if error.errno in _OURS:
                raise
            self.fault(entry.name, f"cannot be written here: {error.strerror}")
            return None

    def _file(self, full: str, directory: str, name: str) -> Callable[[memoryview], object] | None:
        place = contained(self._targets[directory], name)
        if place is None:
            self.fault(full, "would leave its directory on this machine")
            return None
        place.parent.mkdir(parents=True, exist_ok=True)
        part = self._aside(directory)
        file = open(part, "xb", buffering=0)  # noqa: SIM115  # `_close` closes it
        digest = hashlib.sha256()
        if (double := self._received.get(full)) is not None:  # any number of them may come
            os.unlink(double.part)
        received = self._received[full] = _Received(part, place)
        self._open = received, file, digest

        def take(piece: memoryview) -> None:
            digest.update(piece)
            while piece:
                piece = piece[file.write(piece) :]

        return take

    def _aside(self, directory: str) -> str:
        """Return a new name for a file that is not complete yet."""
        incoming = self._incoming.get(directory)
        if incoming is None:
            ours = self._targets[directory] / META
            incoming = self._incoming[directory] = ours / f"{_INCOMING}.{self._tag}"
            for left in ours.glob(f"{_INCOMING}.*"):
                with suppress(OSError):
                    if time.time() - left.stat().st_mtime > _LEFT_S:
                        shutil.rmtree(left)
            incoming.mkdir(parents=True)
        return f"{incoming}/{next(self._number)}.part"

    def _close(self) -> None:
        if self._open is not None:
            received, file, digest = self._open
            self._open = None
            file.close()
            received.digest = digest.hexdigest()

    def fault(self, name: str, problem: str) -> None:
        """Take down why a file is not here; what was said first counts."""
        self._faults.setdefault(name, problem)

    def finish(self, sums: Mapping[str, str]) -> set[str]:
        """Return the names of the files that are here now; `problems` has the others.

        Args:
            sums: SHA-256 in hex of each file by its name, as the cluster says.

        Raises:
            OSError: They cannot be written.
        """
        from concurrent.futures import ThreadPoolExecutor  # for many files at once only

        self._close()
        for name in self._received.keys() | sums.keys():
            received = self._received.get(name)
            if received is None or sums.get(name) != received.digest:
                self.fault(name, "changed while it was retrieved")
        good = {name: one for name, one in self._received.items() if sums.get(name) == one.digest}
        with ThreadPoolExecutor(_SYNCS) as pool:
            errors = list(pool.map(_settle, good.values()))
        here = set(good)
        for name, error in zip(good, errors, strict=True):
            if error is not None:
                here.discard(name)
                self.fault(name, f"cannot be written here: {error.strerror}")
        return here

    def clear(self) -> None:
        """Remove what was not renamed."""
        if self._open is not None:
            self._open[1].close()
        for incoming in self._incoming.values():
            shutil.rmtree(incoming, ignore_errors=True)
            with suppress(OSError):  # other things of ours may lie beside it
                incoming.parent.rmdir()


def _settle(received: _Received) -> OSError | None:
    """Rename a file when it is on disk; return why it cannot be renamed.

    Raises:
        OSError: It could not be written.
    """
    file = os.open(received.part, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    try:
        os.replace(received.part, received.target)
    except OSError as error:
        if error.errno in _OURS:
            raise
        return error
    return None
