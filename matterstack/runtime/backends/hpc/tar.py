"""Tar as a stream: written piece by piece, and read as the pieces come, whatever they are."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec import Struct

PRIVATE: Final = 0o600
DIRECTORY: Final = 0o700
_BLOCK: Final = 512
_PIECE: Final = 1 << 16
_PLAIN_MAX: Final = 100  # bytes of a name that need no extension
_SIZE_MAX: Final = 8**11
_NAME_MAX: Final = 1 << 16  # of a long name or an extended header; what is longer is no archive of ours

_NUMBER: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_LENGTH: Final = re.compile(rb"[0-9]{1,5}")


class TarStream:
    """Makes a tar stream; owners and times are not kept."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def directories(self, name: str) -> bytes:
        """Return the directories above a file that are not in the stream yet, mode 0700."""
        above, slash, _ = name.rpartition("/")
        if not slash or above in self._made:
            return b""
        self._made.add(above)
        return self.directories(above) + _header(f"{above}/", 0, DIRECTORY, tarfile.DIRTYPE)

    def file(self, name: str, data: bytes, mode: int = PRIVATE) -> bytes:
        """Return a file."""
        return b"".join((self.head(name, len(data), mode), data, self.padding(len(data))))

    def head(self, name: str, size: int, mode: int = PRIVATE) -> bytes:
        """Return what goes before the content of a file; `padding` goes behind it."""
        return _header(name, size, mode, tarfile.REGTYPE)

    def padding(self, size: int) -> bytes:
        """Return what fills up the last block of a content."""
        return bytes(-size % _BLOCK)

    def end(self) -> bytes:
        """Return the end of the stream."""
        return bytes(2 * _BLOCK)


def _header(name: str, size: int, mode: int, kind: bytes) -> bytes:
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) > _PLAIN_MAX or size >= _SIZE_MAX:
        info = tarfile.TarInfo(name.rstrip("/"))
        info.size, info.mode, info.type = size, mode, kind
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    # A tenth of what tarfile takes, and there are thousands of them: name, mode, owner, group, size, time.
    front = encoded.ljust(_PLAIN_MAX, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, 0)
    rest = (kind + bytes(100) + tarfile.GNU_MAGIC).ljust(356, b"\0")
    return b"%b%06o\0 %b" % (front, sum(front) + sum(rest) + 8 * ord(" "), rest)


def gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in fewer pieces: sending one costs the same, be it small or large."""
    kept: list[bytes] = []
    size = 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(kept)
            kept.clear()
            size = 0
    yield b"".join(kept)


class Entry(Struct, frozen=True):
    """A regular file, or something else (``kind`` is tar's type flag) that has no content for us."""

    name: str
    size: int
    kind: str

    @property
    def regular(self) -> bool:
        """Whether it is a file with content."""
        return self.kind in ("0", "\0", "7")


class DamagedTarError(ValueError):
    """These bytes are no tar stream."""


class TarReader:
    """Takes a tar stream in pieces of any size.

    Args:
        begin: Called with each entry; returns what takes its content, or None to pass over it.
    """

    def __init__(self, begin: Callable[[Entry], Callable[[memoryview], object] | None]) -> None:
        self._begin = begin
        self._buffer = bytearray()
        self._left = self._padding = 0
        self._take: Callable[[memoryview], object] | None = None
        self._extended = ""
        self._header: dict[str, str] = {}
        self.ended = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            DamagedTarError: It is no tar stream.
        """
        view = memoryview(piece)
        while view and not self.ended:  # behind the end there are zeros only
            if self._left and not self._extended:
                part = view[: self._left]
                if self._take is not None:
                    self._take(part)
                self._left -= len(part)
                view = view[len(part) :]
            elif self._padding and not self._left:
                skipped = min(self._padding, len(view))
                self._padding -= skipped
                view = view[skipped:]
            else:
                wanted = self._left if self._extended else _BLOCK
                missing = wanted - len(self._buffer)
                self._buffer += view[:missing]
                view = view[missing:]
                if len(self._buffer) == wanted:
                    block = bytes(self._buffer)
                    self._buffer.clear()
                    self._block(block)

    def _block(self, block: bytes) -> None:
        if self._extended:
            self._left = 0
            kind, self._extended = self._extended, ""
            self._extend(kind, block)
        elif not any(block):
            self.ended = True
        else:
            self._head(block)

    def _head(self, block: bytes) -> None:
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise DamagedTarError(str(error)) from error
        kind = info.type.decode("latin-1")
        size = info.size
        if kind not in ("x", "g", "L", "K"):
            size = self._number(self._header.get("size"), size)
        if size < 0:
            raise DamagedTarError("a size below 0")
        self._left, self._padding = size, -size % _BLOCK
        if kind in ("x", "g", "L", "K"):
            if not 0 < size <= _NAME_MAX:
                raise DamagedTarError("an extended header of an absurd size")
            self._extended = kind
            return
        name = self._header.get("path", info.name)
        self._header = {}
        self._take = self._begin(Entry(name, size, kind))

    def _extend(self, kind: str, data: bytes) -> None:
        if kind == "L":
            self._header["path"] = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind == "x":
            self._header.update(_records(data))

    @staticmethod
    def _number(text: str | None, default: int) -> int:
        if text is None:
            return default
        if not _NUMBER.fullmatch(text):
            raise DamagedTarError("a size that is no number")
        return int(text)


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the records of an extended header: ``LENGTH KEY=VALUE`` and a line break."""
    while data:
        length, _, _ = data.partition(b" ")
        if not _LENGTH.fullmatch(length) or not 0 < int(length) <= len(data):
            raise DamagedTarError("a damaged extended header")
        record = data[len(length) + 1 : int(length) - 1]
        key, equals, value = record.partition(b"=")
        if not equals:
            raise DamagedTarError("a damaged extended header")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
