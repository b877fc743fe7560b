"""What a check of a profile found."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

_LITTLE_SPACE: Final = 1 << 30
_FEW_FILES: Final = 10_000


class Verdict(StrEnum):
    """OK: as it should be. WARNING: it works, but somebody should know. FAILED: runs with this profile cannot work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"


class Finding(Struct, frozen=True):
    """One thing that was looked at, for instance ``tar``, and what was found."""

    what: str
    verdict: Verdict
    detail: str


def space(free_bytes: int, free_files: int | None, kind: str = "") -> Finding:
    """Return what is left on a file system.

    Args:
        free_bytes: Bytes that the user may still write.
        free_files: Files that may still be made; None where there is no such limit.
        kind: Type of the file system, for people.
    """
    left = f"{free_bytes / 1e9:,.1f} GB" + (f" and {free_files:,} files" if free_files is not None else "") + " free"
    detail = f"{kind}, {left}" if kind else left
    if free_bytes == 0 or free_files == 0:
        return Finding("free space", Verdict.FAILED, f"{detail}: nothing can be written")
    if free_bytes < _LITTLE_SPACE or (free_files is not None and free_files < _FEW_FILES):
        return Finding("free space", Verdict.WARNING, f"{detail}: that is little")
    return Finding("free space", Verdict.OK, detail)
