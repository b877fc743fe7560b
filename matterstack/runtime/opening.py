"""Which journal, and opening it with the tables that belong to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from journal import Journal, Lease, LeaseHeld
from journal.verify import Report, verify
from matterstack.errors import RunBusy, UnknownName
from matterstack.runtime.backends.local import processes
from matterstack.runtime.projections import TaskTables

JOURNAL: Final = Path(".matterstack", "journal.db")
LEASE_TTL_S: Final = 60.0


def find_journal(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the journal's path.

    The one given, else the nearest ``.matterstack/journal.db`` at or above the current directory, else the
    one to be made in the current directory.
    """
    if given is not None:
        return Path(given).absolute()
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / JOURNAL).exists():
            return directory / JOURNAL
    return here / JOURNAL


def open_journal(path: Path, *, create: bool = True, read_only: bool = False) -> Journal:
    """Return the journal at ``path``, with the tables of runs and tasks.

    Raises:
        JournalError: It cannot be opened; the message says why and what to do.
    """
    return Journal.open(path, projections=[TaskTables()], create=create, read_only=read_only)


def verify_journal(path: Path) -> Report:
    """Return what is wrong with the journal: first with its events, and where those are right with its tables."""
    tables = TaskTables()
    with Journal.open(path, create=False, read_only=True) as journal:
        current = journal.query(
            "SELECT 1 FROM projections WHERE name = ? AND version = ? AND position = ?",
            (tables.name, tables.version, journal.position()),
        )
        report = verify(journal.path, [tables] if current else [])
    if current or not report.ok:
        return report
    with open_journal(path, create=False, read_only=True) as journal:  # says what to do about the tables
        return journal.verify()


def runs(journal: Journal) -> list[str]:
    """Return the runs of the journal, oldest first."""
    return [run for (run,) in journal.query("SELECT run FROM runs ORDER BY created_at")]


def chosen_run(journal: Journal, run: str | None) -> str:
    """Return ``run``, or the newest run where None is given.

    Raises:
        UnknownName: There is none of that name, or none at all.
    """
    known = runs(journal)
    if run is None and known:
        newest = journal.query("SELECT run FROM runs ORDER BY coalesce(started_at, created_at) DESC LIMIT 1")
        return str(newest[0][0])
    if run not in known:
        hint = "" if known else "The journal has no run yet; start one with `matterstack run WORKFLOW`"
        raise UnknownName("run", run or "", known, hint)
    return run


def take_lease(journal: Journal, run: str) -> Lease:
    """Return the lease of the run: from now on this process alone appends to it.

    Raises:
        RunBusy: A living controller has it.
    """
    me = processes.own()
    owner: dict[str, str | int] = {
        "host": processes.host(),
        "pid": me.pid,
        "start_ticks": me.start_ticks,
        "boot_id": me.boot_id,
    }
    try:
        return journal.acquire(run, owner=owner, ttl_s=LEASE_TTL_S, is_dead=_is_dead)
    except LeaseHeld as error:
        raise RunBusy(
            f"run {run!r} is driven by process {error.owner.get('pid')} on {error.owner.get('host')}, which was heard "
            f"{error.heartbeat_age_s:.0f} s ago. Nothing was started; watch it with `matterstack status {run}`, or "
            "end that process first."
        ) from error


def _is_dead(owner: object) -> bool | None:
    """Return whether the controller is gone for sure; None where that cannot be known from here."""
    match owner:
        case {"host": host, "pid": int(pid), "start_ticks": int(ticks), "boot_id": str(boot)}:
            if host != processes.host():
                return None
            return not processes.alive(processes.ProcessId(pid, ticks, boot))
        case _:
            return None


def lease_of(journal: Journal, run: str) -> str | None:
    """Return who drives the run, as ``pid 123 on host``; None where nobody does, or its process is gone."""
    info = journal.lease(run)
    if info is None or info.owner is None or _is_dead(info.owner):
        return None
    silent_s = (journal.now() - info.heartbeat) / 1e6
    # Its heartbeat comes four times in the time to live; a longer silence means that it is stopped or stuck.
    since = f", silent for {silent_s:.0f} s" if silent_s > info.ttl_s / 2 else ""
    return f"pid {info.owner.get('pid')} on {info.owner.get('host')}{since}"
