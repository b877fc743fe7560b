"""Tar streams that come from a cluster."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from fuzz.files import place
from matterstack.runtime.backends.hpc.receiving import Receiver
from matterstack.runtime.backends.hpc.tar import DamagedTarError

_A: Final = "run/a/1"
_BLOCK: Final = 512
_BUFFER_MAX: Final = (1 << 16) + _BLOCK
_GOOD: Final = {"x": b"of a", "y": b"y of a", "d/e": b"", "l" * 200: b"long" * 300, "door/x": b"through a link"}
# Names that nobody may ask for; a bug elsewhere might.
_BAD: Final = ("../x", "../../../outside", ".matterstack/exit", ".", "d/../../y", "\0", "n" * 256)
_SUMS: Final = {f"{_A}/{name}": sha256(data).hexdigest() for name, data in _GOOD.items()}


def tar(data: bytes) -> None:
    """Only what was asked for, with the right hash, is written, into its directory; nothing is left beside.

    The first byte says how the rest comes: bits 0-2 the size of the pieces, bit 3 whether checksums are mended (a
    fuzzer would not find them), bit 4 whether there is a limit.
    """
    how, stream = (data[0], data[1:]) if data else (0, b"")
    if how & 8:
        stream = _with_checksums(stream)
    base = place() / "tar"
    target = base / "here" / _A
    (base / "outside").mkdir(parents=True)
    try:
        (base / "outside" / "x").write_bytes(b"evidence")
        target.mkdir(parents=True)
        (target / "door").symlink_to(base / "outside")
        with suppress(DamagedTarError):
            _take(stream, target, (1, 7, 100, 512, 513, 4096, 1 << 15, 1 << 20)[how & 7], 4000 if how & 16 else None)
        _look(base, target)
    finally:
        shutil.rmtree(base)


def _take(stream: bytes, target: Path, size: int, limit: int | None) -> None:
    asked = [f"{_A}/{name}" for name in (*_GOOD, *_BAD)]
    receiver = Receiver({_A: target}, asked, limit)
    try:
        for at in range(0, len(stream), size):
            receiver.feed(stream[at : at + size])
            assert len(receiver._tar._buffer) <= _BUFFER_MAX  # noqa: SLF001  # there is no other way to see it
        parts = list((target / ".matterstack").glob("*/*"))
        assert len(parts) <= len(asked)
        assert limit is None or sum(part.stat().st_size for part in parts) <= limit
        here = receiver.finish(_SUMS)
        assert here <= set(_SUMS)
        for name in sorted(here):
            assert (target / name.removeprefix(f"{_A}/")).read_bytes() == _GOOD[name.removeprefix(f"{_A}/")]
        assert set(receiver.problems) <= {_A}
        assert here | {name for name in _SUMS if repr(name.removeprefix(f"{_A}/")) in receiver.problems.get(_A, "")}
    finally:
        receiver.clear()


def _look(base: Path, target: Path) -> None:
    found = {path.relative_to(base).as_posix() for path in base.rglob("*")}
    inside = {f"here/{_A}/{name}" for name in _GOOD if name != "door/x"}
    made = {"outside", "outside/x", "here", "here/run", "here/run/a", f"here/{_A}", f"here/{_A}/door", f"here/{_A}/d"}
    assert found <= inside | made, found - inside - made
    assert (base / "outside" / "x").read_bytes() == b"evidence"
    for path in (target / name for name in _GOOD if name != "door/x"):
        if path.exists():
            assert path.read_bytes() == _GOOD[path.relative_to(target).as_posix()]
    assert os.readlink(target / "door") == str(base / "outside")


def _with_checksums(stream: bytes) -> bytes:
    blocks = [bytearray(stream[at : at + _BLOCK]) for at in range(0, len(stream), _BLOCK)]
    for block in blocks:
        if block[257:262] == b"ustar" and len(block) == _BLOCK:
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)
