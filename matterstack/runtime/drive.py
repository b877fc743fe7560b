"""The loop that drives a run: it owns the clock, waits, and lets the engine take its turns."""

from __future__ import annotations

import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from msgspec import Struct

from journal import Journal, Lease
from matterstack.core.attempt import Attempt
from matterstack.core.machine import State
from matterstack.core.schedule import Schedule
from matterstack.runtime.accounts import END_S
from matterstack.runtime.engine import Engine
from matterstack.runtime.notices import Notifier
from matterstack.runtime.requests import Inbox
from matterstack.runtime.workers import Workers

# While the backend has work ahead, ends are collected this long, so that many share one commit.
GATHER_S: Final = 0.003
TURN_S: Final = 0.5  # longest wait between two looks at requests and the lease
SECOND_INTERRUPT_S: Final = 2.0
WITHDRAW_S: Final = 0.5  # longest wait for what has not started to be taken back, before the message
PROGRESS_S: Final = 0.1


class Progress(Struct):
    """How a run stands.

    ``trouble``: why its backend cannot be asked now, else ``""``. ``interrupted``: the run is being left; what
    shows progress should leave the terminal to the words and the question that follow.
    """

    counts: dict[State, int]
    running: list[str]
    trouble: str = ""
    interrupted: bool = False


Observer = Callable[[Progress], None]


class Interrupts:
    """Ctrl-C: the first stops the run, a second within 2 s asks whether to cancel what runs."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake
        self.count = 0
        self.first_at = 0.0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self.first_at = time.monotonic()
        self._wake.set()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM over for a while; only the main thread may, in others nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Driver:
    """Drives one engine to its end, or to the point where it was told to stop."""

    def __init__(
        self,
        engine: Engine,
        workers: Workers,
        journal: Journal,
        lease: Lease,
        wake: threading.Event,
        *,
        reschedule: Callable[[], Schedule],
        observe: Observer | None = None,
        ask: Callable[[], bool] | None = None,
        only: set[str] | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self._only, self._notifier = only, notifier
        self._engine, self._workers, self._journal, self._lease, self._wake = (
            engine,
            workers,
            journal,
            lease,
            wake,
        )
        self._reschedule, self._observe = reschedule, observe
        self._ask = ask or self._ask_on_terminal
        self._inbox = Inbox(journal, engine.facts.run)
        self._interrupts = Interrupts(wake)
        self._observed_at = 0.0
        self._accounts_until: float | None = None

    def run(self) -> bool:
        """Return True when nothing is left to do, False when the run was interrupted; tasks may then go on.

        Raises:
            RunBusy: Another controller took the run over.
            JournalError: The journal could not be written; nothing was started after that.
        """
        self._workers.start()
        try:
            with self._interrupts.installed():
                self._engine.begin(only=self._only)
                self._requests()
                while not self._over() or self._accounting():
                    if self._interrupts.count:
                        return self._interrupted()
                    self._turn(TURN_S)
                    if self._over():
                        self._requests()  # what was asked just now is not left behind
                self._engine.turn()
                self._show(final=True)
                return True
        finally:
            self._workers.stop()

    def _over(self) -> bool:
        """Return whether everything, or what this driver is here to see the end of, is over."""
        if self._only is None:
            return self._engine.done
        return not any(self._engine.attempts[task_id].live for task_id in self._only)

    def _accounting(self) -> bool:
        """Return whether to wait, where all is over, for what the last attempts used; for seconds at most."""
        if not self._workers.owing:
            return False
        if self._accounts_until is None:
            self._accounts_until = time.monotonic() + END_S + 1.0
            self._workers.close_accounts()
        return time.monotonic() < self._accounts_until

    def _turn(self, timeout_s: float) -> None:
        self._wake.wait(timeout_s)
        if not self._workers.hungry:
            time.sleep(GATHER_S)
        self._wake.clear()
        if self._journal.changed():
            self._requests()
        for event in self._notifier.turn() if self._notifier is not None else ():
            self._engine.note(event)
        self._engine.turn()
        self._lease.renew()
        self._show()

    def _requests(self) -> None:
        if self._inbox.act(self._engine):
            self._accounts_until = None
            self._engine.restart_schedule(self._reschedule())
        self._engine.turn()

    def _show(self, *, final: bool = False) -> None:
        now = time.monotonic()
        if self._observe is not None and (final or now - self._observed_at >= PROGRESS_S):
            self._observed_at = now
            interrupted = self._interrupts.count > 0
            self._observe(
                Progress(dict(self._engine.counts), self._engine.running(), self._engine.trouble, interrupted)
            )

    def _interrupted(self) -> bool:
        engine = self._engine
        engine.stop()
        engine.turn()
        while self._workers.withdrawing and time.monotonic() < self._interrupts.first_at + WITHDRAW_S:
            self._turn(0.05)
        self._show(final=True)
        print(f"\n{_farewell(engine.facts.run, engine.attempts.values())}", file=sys.stderr)
        cancelling = False
        until = self._interrupts.first_at + SECOND_INTERRUPT_S
        while (self._workers.withdrawing and not engine.trouble) or cancelling or time.monotonic() < until:
            if self._interrupts.count > 1 and not cancelling:
                if not self._ask():
                    break
                cancelling = True
                engine.cancel([task_id for task_id, a in engine.attempts.items() if a.live], "Ctrl-C")
            if not engine.live or self._interrupts.count > 2:
                break
            self._turn(0.05)
        self._show(final=True)
        return False

    def _ask_on_terminal(self) -> bool:
        """Ask, and go on with the run meanwhile; another signal means no."""
        if not sys.stdin.isatty():
            return False
        print("Cancel the running tasks? [y/N] ", end="", file=sys.stderr, flush=True)
        while self._interrupts.count <= 2 and self._engine.live:
            if select.select([sys.stdin], [], [], 0)[0]:
                return sys.stdin.readline().strip().lower() in ("y", "yes")
            self._turn(0.05)
        print(file=sys.stderr)
        return False


def _farewell(run: str, attempts: Iterable[Attempt]) -> str:
    """Return what a person is told who leaves a run: what goes on, what is in doubt, and what can be done."""
    live = [attempt for attempt in attempts if attempt.live]
    submitted = sum(attempt.job_id is not None for attempt in live)
    unknown = len(live) - submitted
    told = [f"{submitted} submitted or running {'task goes' if submitted == 1 else 'tasks go'} on"] if submitted else []
    if unknown:
        more = " more" if submitted else ""
        told.append(f"whether {unknown}{more} {'was' if unknown == 1 else 'were'} submitted, resuming will find out")
    what = "; ".join(told) or "no task is submitted or running"
    ask = "; Ctrl-C within 2 s asks whether to cancel them" if live else ""
    return f"Interrupted: nothing more is submitted; {what}. `matterstack resume {run}` takes the run up again{ask}."
