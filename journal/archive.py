"""What leaves the journal: lines of JSON and copies of the file."""

# pathlib costs start-up time

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator

from . import filesystem
from .connection import open_read_only, raw
from .errors import JournalUnavailable, translated
from .event import RecordedEvent


def lines(events: Iterable[RecordedEvent]) -> Iterator[str]:
    """Yield one line of JSON per event, without the line end; the data stands in it as an object."""
    from json import dumps

    for event in events:
        fields = {
            "position": event.position,
            "stream": event.stream,
            "version": event.version,
            "subject": event.subject,
            "type": event.type,
            "time": event.time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        # Within JSON a raw line break can only be white space.
        data = event.data.decode().replace("\n", " ").replace("\r", " ")
        yield f'{dumps(fields, ensure_ascii=False)[:-1]}, "data": {data}, "hash": "{event.hash.hex()}"}}'


def backup(path: str, destination: str) -> None:
    """Copy the journal as of now into one new file, while others write; see ``Journal.backup``."""
    if os.path.lexists(destination):
        raise JournalUnavailable(
            f"{destination}: exists already. Nothing was copied; give the path of a new file.", path=path
        )
    directory = os.path.dirname(destination)
    part = f"{destination}.part"
    try:
        filesystem.make_directory(directory)
        if os.path.lexists(part):
            os.unlink(part)  # of a copy that was interrupted
        _copy(path, part)
        descriptor = os.open(part, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(part, destination)
        filesystem.sync_directory(directory)
    except (sqlite3.Error, OSError) as error:
        raise translated(error, path, f"copy it to {destination}") from error


def _copy(path: str, part: str) -> None:
    source = open_read_only(path)
    try:
        target = raw(part, "rwc")
        try:
            source.backup(target)  # in one step: one snapshot, and a busy writer cannot make it start anew
            target.execute("PRAGMA journal_mode = DELETE").fetchone()  # no -wal beside the copy
        finally:
            target.close()
    finally:
        source.close()
