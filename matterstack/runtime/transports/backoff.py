"""When to connect again after connections that failed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from matterstack.errors import AccessError, LoginRefused, TransportError

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0
REFUSED_S: Final = 600.0
"""After a refused login: sites lock accounts, or block addresses, after a handful of those in ten minutes."""


def _jitter() -> float:
    return random.uniform(0.8, 1.2)  # noqa: S311  # spreads load, hides nothing


class Backoff:
    """Waits 1 s after the first failure, doubling to 60 s, each up to a fifth more or less.

    Until then the last failure is told again, without a look at the host.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = _jitter) -> None:
        self._clock, self._jitter = clock, jitter
        self.succeeded()

    def succeeded(self) -> None:
        """Forget all failures."""
        self._failures, self._again_at = 0, 0.0
        self._error: TransportError | AccessError | None = None

    def failed(self, error: TransportError | AccessError) -> None:
        """Note one more failure in a row."""
        wait_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self._failures, 30)) * self._jitter()
        if isinstance(error, LoginRefused):
            wait_s = max(wait_s, REFUSED_S)
        self._failures += 1
        self._error, self._again_at = error, self._clock() + wait_s

    def check(self) -> None:
        """Do nothing where it is time to connect.

        Raises:
            TransportError: It is too early; the message says how long, in seconds.
            AccessError: It is too early, and only a person can mend it.
        """
        left_s = self._again_at - self._clock()
        if self._error is None or left_s <= 0:
            return
        if isinstance(self._error, AccessError):
            raise type(self._error)(self._error.host, self._error.problem, self._error.remedy)
        cause = f"{self._error.cause}; the next try is in {left_s:.0f} s"
        raise TransportError(self._error.backend, cause, started=False)
