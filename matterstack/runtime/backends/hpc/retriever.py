"""Bringing results back beside everything else: a thread that retrieves, tries again, and never fails a task.

Where the way or this machine is the trouble it tries for ever; of a file that cannot be had it has enough in the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from matterstack.runtime.backends.hpc.retrieval import Wanted, retrieve
from matterstack.runtime.transports.base import Transport

_BLOCK: Final = 500  # attempts in one stream
# Of files that cannot be had, with two minutes between the first and the last: a network file system needs one at most.
TRIES: Final = 6
_AGAIN_MIN_S: Final = 2.0
_AGAIN_MAX_S: Final = 300.0


class _Errand(Struct):
    """Something to retrieve. ``due``: not before this time of the monotonic clock.

    ``faults``: how many of the tries failed at a file of its own.
    """

    job_id: str
    wanted: Wanted
    tries: int = 0
    faults: int = 0
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
        self._left: dict[str, str] = {}
        self._closed = False
        self._thread: threading.Thread | None = None
        self.problem = ""
        """Why the last try failed; empty where it went well."""

    def want(self, job_id: str, wanted: Callable[[], Wanted]) -> bool:
        """Return whether the job's results are here, or never will be; begin to retrieve them where they are not.

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

    def left(self, job_id: str) -> str:
        """Return why some of the job's results are not here and are tried no more; empty where that is not so."""
        with self._changed:
            return self._left.get(job_id, "")

    def close(self) -> None:
        """End the thread after what it is at; what has not arrived is retrieved when it is asked for again."""
        with self._changed:
            self._closed = True
            self._errands.clear()
            self._changed.notify()

    def _run(self) -> None:
        while (block := self._next()) is not None:
            problems, of_files = self._retrieve([errand.wanted for errand in block])
            with self._changed:
                for errand in block:
                    problem = problems.get(errand.wanted.directory, "")
                    if not problem or self._gives_up(errand, problem if of_files else ""):
                        if self._errands.pop(errand.job_id, None) is not None:
                            self._here.add(errand.job_id)
                    else:
                        errand.tries += 1
                        errand.due = time.monotonic() + min(_AGAIN_MIN_S * 2**errand.tries, _AGAIN_MAX_S)
                going = [problems.get(one.wanted.directory, "") for one in block if one.job_id in self._errands]
                self.problem = next(filter(None, going), "")
            self._arrived()

    def _gives_up(self, errand: _Errand, problem: str) -> bool:
        """Return whether what stays on the cluster, for a ``problem`` of files, was tried often enough."""
        errand.faults += bool(problem)
        if not problem or errand.faults < TRIES:
            return False
        self._left[errand.job_id] = f"{problem} (tried {errand.faults} times)"
        return True

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

    def _retrieve(self, wanted: list[Wanted]) -> tuple[dict[str, str], bool]:
        """Return problems by directory, and whether they are of the files and not of the way or this machine."""
        try:
            return retrieve(self._transport, self._root, wanted), True
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told and tried again: no task fails for it
            return {one.directory: f"{type(error).__name__}: {error}" for one in wanted}, False
