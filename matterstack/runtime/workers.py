"""The backends of a run: one lane each, with its worker, what is ready for it and what it has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from matterstack.runtime.backends.base import ComputeBackend
from matterstack.runtime.worker import BackendWorker

# Submitted beyond the backend's slots, so that slots never stand empty during a commit. Kept small: after a
# kill each of these has to be checked against its record.
AHEAD: Final = 16
BLOCK: Final = 1000  # for backends with a queue of their own


class Lane:
    """One backend of a run.

    ``profile`` is what tasks call it, empty for the run's own; ``retry`` its policy for tasks that leave theirs
    at the default. ``trouble`` and ``held`` say why nothing can be asked or submitted now, ``notice`` what else a
    person should know; else they are empty.
    """

    def __init__(self, profile: str, worker: BackendWorker, retry: str = "") -> None:
        self.profile, self.worker, self.retry = profile, worker, retry
        self.ready: deque[str] = deque()
        self.live = 0
        self.withdrawing = False
        self.trouble = self.held = self.notice = ""

    @property
    def backend(self) -> ComputeBackend:
        """The backend itself; only its worker's thread may call it."""
        return self.worker.backend

    @property
    def hungry(self) -> bool:
        """Whether the backend may soon run out of work that the engine has."""
        slots = self.backend.slots
        return slots is None or self.live < slots + AHEAD * 3 // 4

    def take(self, startable: Callable[[str], bool]) -> list[str]:
        """Return the tasks to submit now, in order, and forget those lined up that may not start."""
        slots = self.backend.slots
        room = BLOCK if slots is None else slots + AHEAD - self.live
        block: dict[str, None] = {}  # a task may be lined up twice
        while self.ready and len(block) < room:
            task_id = self.ready.popleft()
            if startable(task_id):
                block[task_id] = None
        return list(block)


class Workers:
    """The lanes of a run.

    Args:
        main: The lane of the run's own profile.
        others: Those of profiles that tasks name, by name; a name may stand for ``main``.
    """

    def __init__(self, main: Lane, others: Mapping[str, Lane] | None = None) -> None:
        self.main, self._others = main, dict(others or {})
        self._lanes = list({id(lane): lane for lane in (main, *self._others.values())}.values())

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes)

    @property
    def alone(self) -> bool:
        """Whether the run has one lane only."""
        return len(self._lanes) == 1

    def of(self, profile: str) -> Lane:
        """Return the lane of a profile that a task names; none names the run's own."""
        return self._others.get(profile, self.main)

    @property
    def withdrawing(self) -> bool:
        """Whether a backend has not yet said what it took back."""
        return any(lane.withdrawing for lane in self)

    @property
    def hungry(self) -> bool:
        """Whether a backend may soon run out of work that the engine has."""
        return any(lane.hungry for lane in self)

    def start(self) -> None:
        """Begin to work."""
        for lane in self:
            lane.worker.start()

    def close_accounts(self) -> None:
        """Let every worker tell what the ended jobs used."""
        for lane in self:
            lane.worker.close_accounts()

    @property
    def owing(self) -> bool:
        """Whether a worker has still to tell that."""
        return any(lane.worker.accounts.owing for lane in self)

    def stop(self) -> None:
        """End all workers, after the calls at hand."""
        for lane in self:
            lane.worker.ask_to_stop()
        for lane in self:
            lane.worker.stop()
