"""The slots this process holds: shells, each with its ticket, lent to one task at a time."""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from typing import Final

from matterstack.errors import BackendUnavailable
from matterstack.runtime.backends.local.shell import SlotShell
from matterstack.runtime.backends.local.store import JobStore

# A slot that is idle this long goes back; until then the next task of a chain finds its shell warm.
IDLE_S: Final = 0.25
# How often to ask again for a slot that others hold.
ASK_AGAIN_S: Final = 0.05


class Slots:
    """At most ``limit`` cores, counted on disk together with all other processes of the workspace."""

    def __init__(self, store: JobStore, limit: int, root: str, env: Mapping[str, str]) -> None:
        self._store, self._limit, self._root, self._env = store, limit, root, env
        self._tickets: dict[int, int] = {}  # by file descriptor of the shell
        self._shells: dict[int, SlotShell] = {}
        self._void: list[int] = []
        self._idle: dict[int, float] = {}  # since when, on the monotonic clock
        self._ended: list[SlotShell] = []
        self._waiting: int | None = None
        self._asked_at = self._looked_at = 0.0
        self._others = False
        self._poll = select.epoll()

    @property
    def held(self) -> bool:
        """Whether any slot is held."""
        return bool(self._shells)

    @property
    def waiting(self) -> bool:
        """Whether a slot was asked for and not granted."""
        return self._waiting is not None

    def has(self, fd: int) -> bool:
        """Return whether there is news of a shell with this file descriptor."""
        return fd in self._shells and self._shells[fd].has_news()

    def watch(self, fd: int) -> None:
        """Let `ready` also report this file descriptor."""
        self._poll.register(fd, select.EPOLLIN)

    def take(self, cores: int) -> SlotShell | None:
        """Return a free shell for a task of that many cores, or None: not now."""
        cores = min(cores, self._limit)
        for fd in self._idle:
            if self._shells[fd].cores == cores:
                del self._idle[fd]
                return self._shells[fd]
        if self.waiting and time.monotonic() - self._asked_at < ASK_AGAIN_S:
            return None
        for fd in list(self._idle):  # slots of another size: their cores are wanted
            self.retire(fd)
        self._give_back()
        ticket, granted = self._store.acquire(cores, self._limit, self._waiting)
        self._asked_at = time.monotonic()
        self._waiting = None if granted else ticket
        return self._open(ticket, cores) if granted else None

    def _open(self, ticket: int, cores: int) -> SlotShell:
        try:
            shell = SlotShell(self._root, self._env, cores)
        except OSError:
            self._void.append(ticket)
            raise
        try:
            self._store.hand_over(ticket, shell.id)
        except BackendUnavailable:
            shell.close()
            self._ended.append(shell)
            self._void.append(ticket)
            raise
        self._shells[shell.fd] = shell
        self._tickets[shell.fd] = ticket
        self._poll.register(shell.fd, select.EPOLLIN)
        return shell

    def give_up(self) -> None:
        """Leave the line for a slot."""
        if self._waiting is not None:
            self._store.release([self._waiting])
            self._waiting = None

    def ready(self, timeout_s: float) -> list[int]:
        """Return the file descriptors with news, waiting for the first at most ``timeout_s`` seconds."""
        return [fd for fd, _ in self._poll.poll(timeout_s)]

    def answer(self, fd: int) -> bool | None:
        """Return what the shell said at the end of its task, see `SlotShell.answer`."""
        return self._shells[fd].answer()

    def rest(self, fd: int, *, alive: bool) -> None:
        """Note that the shell's task is over: it is idle, or given up where it is gone or others wait."""
        self.idle(fd)
        if not alive or self._wanted():
            self.retire(fd)

    def idle(self, fd: int) -> None:
        """Take a shell back that has no task."""
        self._idle[fd] = time.monotonic()

    def retire(self, fd: int) -> None:
        """Give a shell that has no task, and its slot, back."""
        shell = self._shells.pop(fd)
        self._idle.pop(fd, None)
        self._poll.unregister(fd)
        shell.close()
        self._ended.append(shell)
        self._void.append(self._tickets.pop(fd))
        self._give_back()

    def _give_back(self) -> None:
        """Release tickets that stand for nothing; what cannot be written now is tried again with the next."""
        if self._void:
            self._store.release(self._void)
            self._void.clear()

    def trim(self) -> None:
        """Give back what has been idle for long, or what others wait for."""
        self._ended = [shell for shell in self._ended if not shell.reap()]
        self._give_back()
        if self._idle:
            before = time.monotonic() - IDLE_S
            others = self._wanted()
            for fd in [fd for fd, since in self._idle.items() if others or since < before]:
                self.retire(fd)

    def _wanted(self) -> bool:
        """Return whether others wait for slots, as of a moment ago."""
        now = time.monotonic()
        if now - self._looked_at >= ASK_AGAIN_S:
            self._looked_at = now
            self._others = self._store.others_wait(self._waiting)
        return self._others

    def let_go(self) -> None:
        """Part with all shells; those with a task finish it and keep their slot until then."""
        self.give_up()
        for fd in list(self._idle):
            self.retire(fd)
        for fd, shell in self._shells.items():
            self._poll.unregister(fd)
            shell.close()
            self._ended.append(shell)
        self._shells.clear()
        self._tickets.clear()

    def close(self) -> None:
        """Part with all shells, for good."""
        self.let_go()
        self._poll.close()
