"""An append-only event store in one SQLite file.

Events stand in streams, each with a version, a subject and a hash that binds all before it; tables of
current state are kept in the append's own transaction. See ``docs/journal.md``.
"""

from .errors import (
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    LeaseHeld,
    LeaseLost,
    NewerSchema,
    NotAJournal,
    VersionConflict,
)
from .event import Head, NewEvent, RecordedEvent
from .lease import Lease, LeaseInfo
from .projection import Projection
from .store import Journal

__all__ = [
    "Head",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalUnavailable",
    "Lease",
    "LeaseHeld",
    "LeaseInfo",
    "LeaseLost",
    "NewEvent",
    "NewerSchema",
    "NotAJournal",
    "Projection",
    "RecordedEvent",
    "VersionConflict",
]
