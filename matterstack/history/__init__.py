"""What happened: read-only questions to a journal, also while a controller works on it.

import matterstack.history

with matterstack.history.open() as past:
    for row in past.tasks(run="scan", state="FAILED"):
        print(row.task, row.reason)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from matterstack.history.standing import History, LostContact, PastEvent, RunStatus, StalledTask, TaskStatus

if TYPE_CHECKING:
    from matterstack.history.past import Past

__all__ = ["History", "LostContact", "PastEvent", "RunStatus", "StalledTask", "TaskStatus", "open"]


def open(path: str | os.PathLike[str] | None = None) -> Past:  # noqa: A001  # read as history.open
    """Return the past that a journal holds, a context manager; it can only be read.

    Args:
        path: The journal's file, or a directory that has ``.matterstack/journal.db``; None for the nearest one
            at or above the current directory.

    Raises:
        UnknownName: There is no journal.
        JournalError: It cannot be read: damaged, of a newer version, not a journal. The message says what to do.
    """
    from matterstack.history.past import Past  # the command line needs only the above

    return Past(path)
