"""What several tests of the journal share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from journal import NewEvent, RecordedEvent

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Colours:
    """Current state: the last colour of each subject, and how often each type occurred."""

    name = "colours"
    version = 1
    schema = """
        CREATE TABLE colours_now (subject TEXT PRIMARY KEY, colour TEXT, position INTEGER);
        CREATE TABLE colours_seen (type TEXT PRIMARY KEY, n INTEGER NOT NULL);
        CREATE INDEX colours_by_colour ON colours_now (colour); -- a comment; with a semicolon
    """

    def __init__(self) -> None:
        self.applied: list[list[int]] = []

    def apply(self, connection, events: Sequence[RecordedEvent]) -> None:
        self.applied.append([event.position for event in events])
        connection.executemany(
            "INSERT INTO colours_now VALUES (?, ?, ?) ON CONFLICT (subject) DO UPDATE "
            "SET colour = excluded.colour, position = excluded.position",
            [(e.subject, e.json().get("colour"), e.position) for e in events],
        )
        connection.executemany(
            "INSERT INTO colours_seen VALUES (?, 1) ON CONFLICT (type) DO UPDATE SET n = n + 1",
            [(e.type,) for e in events],
        )


def painted(subject: str, colour: str = "red") -> NewEvent:
    return NewEvent("Painted", subject, f'{{"colour":"{colour}"}}'.encode())


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another process that can import the journal and this module."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def output(process: subprocess.Popen[str]) -> str:
    """Wait for a process that must end well, and return what it printed."""
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    return text.strip()
