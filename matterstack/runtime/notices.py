"""What a run's notices come to, as the journal has them, and their way to the herald and back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from msgspec import Struct

from journal import Journal
from matterstack.core import events as ev
from matterstack.core.notices import TRIES
from matterstack.runtime.herald import Herald

FINISH_S: Final = 120.0
AGAIN_S: Final = 30.0  # until a notice is tried again that failed, twice as long each time


class Notice(Struct, frozen=True):
    """A notice that is not delivered: ``due`` is the version of its event; ``given_up``: it is not tried again."""

    due: int
    event: ev.NotificationDue
    tries: int
    detail: str
    given_up: bool


def load_notices(journal: Journal, run: str, *, owed: bool = False) -> list[Notice]:
    """Return the run's notices that were not delivered; with ``owed`` only those that are still to be tried."""
    rows = journal.query(
        "SELECT due, data, tries, detail, state FROM notices"
        f" WHERE run = ? AND state <> 'delivered' {'AND state = ?' if owed else ''} ORDER BY due",
        (run, "owed") if owed else (run,),
    )
    return [Notice(due, _event(data), tries, detail, state == "given up") for due, data, tries, detail, state in rows]


def _event(data: str) -> ev.NotificationDue:
    event = ev.decode("NotificationDue", data)
    assert isinstance(event, ev.NotificationDue)
    return event


@contextmanager
def telling(journal: Journal, run: str, on: Mapping[str, str], wake: threading.Event) -> Iterator[Notifier | None]:
    """Give the notifier of a run with these commands, and stop it in the end; None where there are none."""
    notifier = Notifier(journal, run, Herald(on, run, wake.set)) if on else None
    try:
        yield notifier
    finally:
        if notifier is not None:
            notifier.stop()


class Notifier:
    """Has a run's owed notices told, and says what is to be recorded of it. Never waits.

    Args:
        journal: Has what is owed; read only.
        run: The run.
        herald: Tells it.
        clock: Seconds, of any origin; by default the monotonic clock.
    """

    def __init__(self, journal: Journal, run: str, herald: Herald, clock: Callable[[], float] = time.monotonic) -> None:
        self._journal, self._run, self._herald, self._clock = journal, run, herald, clock
        self._underway: dict[int, Notice] = {}
        self._not_before: dict[int, float] = {}

    @property
    def busy(self) -> bool:
        """Whether something is being told."""
        return bool(self._underway)

    def turn(self) -> list[ev.Event]:
        """Return what came of what was told, to be recorded at once; have told what is owed by now."""
        found = [self._came_of(due, problem) for due, problem in self._herald.collect()]
        now = self._clock()
        for notice in load_notices(self._journal, self._run, owed=True):
            if notice.due not in self._underway and now >= self._not_before.get(notice.due, now):
                self._underway[notice.due] = notice
                self._herald.tell(notice.due, notice.event)
        return found

    def finish(self, record: Callable[[ev.Event], None], renew: Callable[[], None], wake: threading.Event) -> None:
        """Have all told that is owed, once each, and wait for that; two minutes at most, what is left stays owed.

        Args:
            record: Records an event.
            renew: Called at least every second.
            wake: Is set when the herald has something to collect.
        """
        until = self._clock() + FINISH_S
        while True:
            wake.clear()
            for event in self.turn():
                record(event)
            if not self.busy or self._clock() >= until:
                return
            renew()
            wake.wait(0.5)

    def stop(self) -> None:
        """End what is being told; it stays owed."""
        self._herald.stop()

    def _came_of(self, due: int, problem: str) -> ev.Event:
        notice = self._underway.pop(due)
        tries = notice.tries + 1
        over = not problem or tries >= TRIES
        # Until it is recorded, the journal still has it as owed.
        self._not_before[due] = float("inf") if over else self._clock() + AGAIN_S * 2**notice.tries
        if not problem:
            return ev.NotificationDelivered(due)
        return ev.NotificationFailed(due, problem, given_up=over)
