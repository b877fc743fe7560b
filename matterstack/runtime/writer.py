"""The way of events into the journal: first the commit, then what was to happen after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from journal import Journal, Lease, LeaseLost, NewEvent, VersionConflict
from matterstack.core import events as ev
from matterstack.errors import RunBusy

Facts = Sequence[tuple[str, ev.Event]]  # (subject, event)
Effect = Callable[[], None]


class Writer(Protocol):
    """Makes events durable, in order, and releases effects only after the events before them."""

    def write(self, facts: Facts, effects: Sequence[Effect]) -> None:
        """Append the events; then carry out the effects.

        Raises:
            RunBusy: Another controller has the run now; nothing was appended, no effect released.
            JournalError: The journal could not be written; nothing was appended, no effect released.
        """


class InlineWriter:
    """Commits in the calling thread. The backends' workers go on meanwhile with what was released before."""

    def __init__(self, journal: Journal, run: str, lease: Lease) -> None:
        self._journal, self._run, self._lease = journal, run, lease
        self._version = journal.head(run).version

    def write(self, facts: Facts, effects: Sequence[Effect]) -> None:
        """Append and release."""
        if facts:
            events = [NewEvent(type(event).__name__, subject, ev.encode(event)) for subject, event in facts]
            try:
                self._version = self._journal.append(
                    self._run, events, expected_version=self._version, lease=self._lease
                )
            except (VersionConflict, LeaseLost) as error:
                raise taken_over(self._run) from error
        for effect in effects:
            effect()


def taken_over(run: str) -> RunBusy:
    """Return the error of a controller that was away for so long that another has its run."""
    return RunBusy(
        f"another controller has taken over run {run!r}. This one recorded nothing more and started "
        "nothing more; tasks go on."
    )
