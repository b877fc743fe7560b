"""Bringing results back beside everything else: a thread that retrieves, tries again, and never fails a task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from matterstack.runtime.backends.hpc.retrieval import Wanted, retrieve
from matterstack.runtime.transports.base import Transport

_BLOCK: Final = 500  # attempts in one stream
_AGAIN_MIN_S: Final = 2.0
_AGAIN_MAX_S: Final = 300.0


class _Errand(Struct):
    """Something to retrieve. ``due``: not before this time of the monotonic clock."""

    job_id: str
    wanted: Wanted
    tries: int = 0
    due: float = 0.0


class Retriever:
    """Retrieves what it is told to, in the background.

    Args:
        transport: The way to the cluster.
        root: The workspace there.
        arrived: Called, from the thread, when something has arrived.
    """

    def __init__(self, transport: Transport, root: str, arrived: Callable[[], None]) -> None:
        self._transport, self._root, self._arrived = transport, root, arrived
        self._changed = threading.Condition()
        self._errands: dict[str, _Errand] = {}
        self._here: set[str] = set()
        self._closed = False
        self._thread: threading.Thread | None = None
        self.problem = ""
        """Why the last try failed; empty where it went well."""

    def want(self, job_id: str, wanted: Callable[[], Wanted]) -> bool:
        """Return whether the job's results are here; begin to retrieve them where they are not.

        An attempt may have had another job before, whose end says nothing of what this one writes.
        """
        with self._changed:
            if job_id in self._here:
                return True
            if job_id not in self._errands:
                self._errands[job_id] = _Errand(job_id, wanted())
                if self._thread is None or not self._thread.is_alive():
                    self._closed = False
                    self._thread = threading.Thread(target=self._run, name="matterstack-retrieve", daemon=True)
                    self._thread.start()
                self._changed.notify()
            return False

    def close(self) -> None:
        """End the thread after what it is at; what has not arrived is retrieved when it is asked for again."""
        with self._changed:
            self._closed = True
            self._errands.clear()
            self._changed.notify()

    def _run(self) -> None:
        while (block := self._next()) is not None:
            problems = self._retrieve([errand.wanted for errand in block])
            with self._changed:
                self.problem = next(iter(problems.values()), "")
                for errand in block:
                    directory = errand.wanted.directory
                    if directory in problems:
                        errand.tries += 1
                        errand.due = time.monotonic() + min(_AGAIN_MIN_S * 2**errand.tries, _AGAIN_MAX_S)
                    elif self._errands.pop(errand.job_id, None) is not None:
                        self._here.add(errand.job_id)
            self._arrived()

    def _next(self) -> list[_Errand] | None:
        """Return what is due, waiting for it; None when closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                due = [errand for errand in self._errands.values() if errand.due <= now]
                if due:
                    return due[:_BLOCK]
                later = [errand.due - now for errand in self._errands.values()]
                self._changed.wait(min(later) if later else None)
            return None

    def _retrieve(self, wanted: list[Wanted]) -> dict[str, str]:
        try:
            return retrieve(self._transport, self._root, wanted)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told and tried again: no task fails for it
            return {one.directory: f"{type(error).__name__}: {error}" for one in wanted}
