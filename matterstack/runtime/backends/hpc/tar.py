"""Tar as a stream: written piece by piece, and read as the pieces come, whatever they are."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

PRIVATE: Final = 0o600
_BLOCK: Final = 512
_PIECE: Final = 1 << 20
_NAME_MAX: Final = 1 << 16  # of a long name or an extended header; what is longer is no archive of ours


class TarStream:
    """Makes a tar stream; owners and times are not kept."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def directories(self, name: str) -> Iterator[bytes]:
        """Yield the directories above a file that are not in the stream yet, mode 0700."""
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory not in self._made:
                self._made.add(directory)
                info = tarfile.TarInfo(directory)
                info.type, info.mode = tarfile.DIRTYPE, 0o700
                yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    def file(self, name: str, source: bytes | Path, size: int, mode: int = PRIVATE) -> Iterator[bytes]:
        """Yield a file.

        Raises:
            OSError: The source cannot be read, or is not of this size any more.
        """
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, mode
        head = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        padding = bytes(-size % _BLOCK)
        if isinstance(source, bytes):
            yield head + source + padding
            return
        yield head
        left = size
        with source.open("rb") as opened:
            while left:
                piece = opened.read(min(left, _PIECE))
                if not piece:
                    raise OSError(0, "it became shorter while it was sent", str(source))
                left -= len(piece)
                yield piece
        yield padding

    def end(self) -> bytes:
        """Return the end of the stream."""
        return bytes(2 * _BLOCK)


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
        rest: Takes what follows the end of the archive.
    """

    def __init__(
        self, begin: Callable[[Entry], Callable[[memoryview], None] | None], rest: Callable[[bytes], None]
    ) -> None:
        self._begin, self._rest = begin, rest
        self._buffer = bytearray()
        self._left = self._padding = 0
        self._take: Callable[[memoryview], None] | None = None
        self._extended = ""
        self._header: dict[str, str] = {}
        self.ended = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            DamagedTarError: It is no tar stream.
        """
        view = memoryview(piece)
        while view:
            if self.ended:
                self._rest(bytes(view))
                return
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
        if not text.isascii() or not text.isdigit():
            raise DamagedTarError("a size that is no number")
        return int(text)


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the records of an extended header: ``LENGTH KEY=VALUE`` and a line break."""
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            raise DamagedTarError("a damaged extended header")
        record = data[len(length) + 1 : int(length) - 1]
        key, equals, value = record.partition(b"=")
        if not equals:
            raise DamagedTarError("a damaged extended header")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
