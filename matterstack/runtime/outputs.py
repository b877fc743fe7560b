"""What attempts left of the outputs their tasks declare: recorded with SHA-256 when a run ends, compared when asked."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from journal import Journal, Lease, NewEvent
from matterstack.core import events as ev
from matterstack.core.events import FileSum
from matterstack.errors import FilesUnsupported
from matterstack.runtime.opening import open_journal, take_lease
from matterstack.runtime.specs import JournalSpecs

Workdir = Callable[[str, str], Path | None]
"""Gives the directory on this machine of an attempt by its profile (``""``: the run's own) and job id."""

_BLOCK: Final = 256  # so many attempts, or so many bytes of theirs, become durable together
_BLOCK_BYTES: Final = 1 << 32
_COMPLETED: Final = (
    "FROM tasks t JOIN events e ON e.position = t.spec_position"
    " WHERE t.run = ? AND t.state = 'COMPLETED' AND NOT t.dropped AND t.job_id IS NOT NULL"
    # Only a quick sieve, for 100,000 specs without outputs; what it lets through is looked at properly.
    " AND instr(e.data, '\"outputs\"') AND NOT EXISTS"
    " (SELECT 1 FROM recorded_files f WHERE f.subject = t.subject AND f.attempt = t.attempt)"
)
_RECORDED: Final = (
    "SELECT a.task, a.attempt, a.profile, a.job_id, f.files FROM recorded_files f"
    " JOIN attempts a ON a.subject = f.subject AND a.attempt = f.attempt WHERE f.run = ? ORDER BY a.task, a.attempt"
)
_decode: Final = msgspec.json.Decoder(dict[str, FileSum]).decode


class Finding(NamedTuple):
    """A recorded output that is not there as it was: ``what`` is changed, missing or unreadable."""

    task: str
    attempt: int
    name: str
    what: str


class Checked(NamedTuple):
    """How many recorded outputs of how many attempts were looked at, what is wrong, and of whom nothing is recorded."""

    attempts: int
    files: int
    bytes: int
    findings: list[Finding]
    unrecorded: list[str]

    @property
    def ok(self) -> bool:
        """Return whether all that is recorded is there as it was."""
        return not self.findings


def record(journal: Journal, run: str, lease: Lease, workdir: Workdir) -> int:
    """Record the outputs of completed tasks that declare some; return of how many tasks.

    Each attempt is recorded once. One whose directory is not on this machine, or cannot be read, is left out.

    Raises:
        LeaseLost: Another controller took the run.
        JournalUnavailable: The journal cannot be written.
    """
    specs, done, size = JournalSpecs(journal, run), 0, 0
    events: list[NewEvent] = []
    for task, attempt, profile, job_id in journal.query(
        f"SELECT t.task, t.attempt, t.profile, t.job_id {_COMPLETED}", (run,)
    ):
        lease.renew()
        patterns = specs[task].outputs
        directory = _directory(workdir, profile, job_id) if patterns else None
        if directory is None:
            continue
        try:
            files = {name: summed(path) for name, path in declared(directory, patterns)}
        except OSError:
            continue
        events.append(NewEvent("FilesRecorded", f"{run}/{task}", ev.encode(ev.FilesRecorded(attempt, files))))
        size += sum(file.size for file in files.values())
        if len(events) == _BLOCK or size > _BLOCK_BYTES:
            journal.append(run, events, lease=lease)
            done, size, events = done + len(events), 0, []
    if events:
        journal.append(run, events, lease=lease)
    return done + len(events)


def record_now(path: Path, run: str, workdir: Workdir) -> int:
    """Record what `record` does, of a run that nobody drives.

    Raises:
        RunBusy: A living controller has the run; it records by itself when the run ends.
        JournalUnavailable: As for `record`.
    """
    with open_journal(path, create=False) as journal:
        lease = take_lease(journal, run)
        try:
            return record(journal, run, lease, workdir)
        finally:
            lease.release()


def check(path: Path, run: str, workdir: Workdir) -> Checked:
    """Return how the recorded outputs of a run compare with the files on this machine.

    Raises:
        JournalError: The journal cannot be read.
    """
    with open_journal(path, create=False, read_only=True) as journal:
        return _check(journal, run, workdir)


def _check(journal: Journal, run: str, workdir: Workdir) -> Checked:
    attempts = files = size = 0
    findings: list[Finding] = []
    for task, attempt, profile, job_id, text in journal.query(_RECORDED, (run,)):
        recorded = _decode(text)
        directory = _directory(workdir, profile, job_id)
        there = dict(declared(directory, ["*"])) if directory else {}
        attempts, files = attempts + 1, files + len(recorded)
        for name, was in recorded.items():
            what = _difference(there.get(name), was)
            size += was.size
            if what:
                findings.append(Finding(task, attempt, name, what))
    specs = JournalSpecs(journal, run)
    open_ones = [task for (task,) in journal.query(f"SELECT t.task {_COMPLETED}", (run,)) if specs[task].outputs]
    return Checked(attempts, files, size, findings, open_ones)


def recorded(journal: Journal, run: str) -> dict[tuple[str, int], dict[str, FileSum]]:
    """Return the recorded outputs of a run, by task and attempt."""
    rows = journal.query(_RECORDED, (run,))
    return {(task, attempt): _decode(text) for task, attempt, _, _, text in rows}


def declared(directory: Path, patterns: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield name and path of the regular files in a directory that a pattern fits; links are not followed.

    A name that is not UTF-8 is written with escapes, for JSON has no other.
    """
    for where, _, names in os.walk(directory):
        for name in names:
            path = Path(where, name)
            relative = os.path.relpath(path, directory)
            if any(fnmatchcase(relative, pattern) for pattern in patterns) and stat.S_ISREG(path.lstat().st_mode):
                yield os.fsencode(relative).decode("utf-8", "backslashreplace"), path


def summed(path: Path) -> FileSum:
    """Return the digest of a file.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileSum(digest, file.tell())


def _directory(workdir: Workdir, profile: str, job_id: str) -> Path | None:
    try:
        found = workdir(profile, job_id)
    except (FilesUnsupported, ValueError, KeyError):  # it hands out no files, or cannot read another's job id
        return None
    return found if found is not None and found.is_dir() else None


def _difference(path: Path | None, was: FileSum) -> str:
    if path is None:
        return "missing"
    try:
        return "" if path.stat().st_size == was.size and summed(path) == was else "changed"
    except OSError as error:
        return f"unreadable ({error.strerror})"
