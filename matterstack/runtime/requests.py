"""What other processes ask a run for: a stream of its own, which the run's controller follows."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence

from journal import Journal, NewEvent
from matterstack.core import events as ev
from matterstack.runtime.engine import Engine
from matterstack.runtime.projections import REQUESTS


def user() -> str:
    """Return the name of the user whose process this is, or the number where there is no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container the user may have none
        return str(os.getuid())


def requester() -> str:
    """Return who asks, for the record: ``user (pid 123)``."""
    return f"{user()} (pid {os.getpid()})"


def ask(journal: Journal, run: str, event: ev.CancelRequested | ev.RetryRequested, task_ids: Sequence[str]) -> None:
    """Record a request for these tasks; the controller that has the run, now or next, acts on it."""
    data, kind = ev.encode(event), type(event).__name__
    journal.append(run + REQUESTS, [NewEvent(kind, f"{run}/{task_id}", data) for task_id in task_ids])


class Inbox:
    """The requests that the engine of a run has not acted on yet."""

    def __init__(self, journal: Journal, run: str) -> None:
        self._journal, self._run = journal, run
        rows = journal.query("SELECT requests_taken FROM runs WHERE run = ?", (run,))
        self._taken = int(rows[0][0]) if rows else 0

    def waiting(self) -> bool:
        """Return whether there is a request that nobody has acted on."""
        return self._journal.head(self._run + REQUESTS).version > self._taken

    def act(self, engine: Engine) -> bool:
        """Carry out new requests; return whether tasks were put back to PENDING."""
        cancels: dict[str, str] = {}
        retries: dict[str, str] = {}
        for record in self._journal.read(self._run + REQUESTS, after_version=self._taken):
            self._taken = record.version
            task_id = record.subject.partition("/")[2]
            if task_id not in engine.attempts:
                continue
            event = ev.decode(record.type, record.data)
            if isinstance(event, ev.CancelRequested):
                cancels[task_id] = event.by
            elif isinstance(event, ev.RetryRequested):
                retries[task_id] = event.by
        if not cancels and not retries:
            return False
        for by in dict.fromkeys(cancels.values()):
            engine.cancel([task_id for task_id, asker in cancels.items() if asker == by], by)
        if retries:
            engine.retry(retries, f"asked for by {next(iter(retries.values()))}")
        engine.note(ev.RequestsTaken(self._taken))
        return bool(retries)
