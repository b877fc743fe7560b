"""Virtual time: a heap of what happens when, and one thread that lets it happen."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

STEPS_MAX = 1_000_000
EPOCH = 1_700_000_000.0  # of the virtual clock


class Violation(Exception):
    """What MatterStack promises does not hold."""


class Stuck(Violation):
    """What should come about does not."""


class Timeline:
    """Events in the order of their times, equal ones in that of their making. ``now`` is in seconds from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self.violation = ""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.steps = 0

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Let ``call`` happen later."""
        self._count += 1
        heappush(self._heap, (self.now + delay_s, self._count, call))

    def violate(self, words: str) -> None:
        """Take down the first violation; the simulation ends at its next step."""
        self.violation = self.violation or words

    def step(self) -> None:
        """Let the next event happen."""
        if self.violation:
            raise Violation(self.violation)
        if not self._heap:
            raise Stuck("nothing is left to happen")
        if self.steps > STEPS_MAX:
            raise Stuck(f"{STEPS_MAX} steps, and no end")
        at, _, call = heappop(self._heap)
        self.now = max(self.now, at)
        self.steps += 1
        call()

    def until(self, holds: Callable[[], bool]) -> None:
        """Let events happen until ``holds``; may be called from within one."""
        while not holds():
            self.step()

    def wait(self, seconds: float) -> None:
        """Let events happen for so long."""
        end = self.now + seconds
        self.after(seconds, lambda: None)
        self.until(lambda: self.now >= end)
