"""The way to the login node: late, cut, deaf; and what was sent may be carried out all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matterstack.errors import TransportError
from matterstack.runtime.transports.base import Reply, Transport
from simulation.shell import Shell

if TYPE_CHECKING:
    from simulation.controller import Controller
    from simulation.world import World

HOST = "login"


class SimulatedTransport(Transport):
    """One controller's connection."""

    name = HOST

    def __init__(self, world: World, owner: Controller) -> None:
        self.world, self.owner = world, owner

    def close(self) -> None:
        """Do nothing."""

    def run(self, script, *, payload=b"", sink=None, timeout_s=120.0) -> Reply:
        world, chance, timeline = self.world, self.world.chance, self.world.timeline
        self.owner.survive()
        fault = world.faults.of_command()
        if world.faults.unreachable or fault == "unreachable":
            self._wait(chance.uniform(0.5, 30))
            raise TransportError(HOST, "Connection timed out", started=False)
        sent = payload if isinstance(payload, bytes) else b"".join(payload)
        self._wait(chance.uniform(0.02, 0.3))
        shell = Shell(world, script, sent, timeline.now)
        shell.lazy = fault == "lazy"
        shell.begin()
        if fault == "twice":
            again = Shell(world, script, sent, timeline.now)
            timeline.after(chance.uniform(0, 300), again.begin)
        cut_at = timeline.now + chance.uniform(0, 3) if fault in ("cut", "cut and killed") else None
        self._listen(shell, cut_at, timeout_s)
        if fault == "cut and killed" and not shell.done:
            shell.killed = True
        if not shell.done:
            raise TransportError(HOST, "Connection reset by peer", started=True)
        self._wait(chance.uniform(0.02, 0.3))
        return self._reply(shell, fault)

    def _reply(self, shell: Shell, fault: str) -> Reply:
        text = "".join(shell.out)
        if fault in ("lost", "twice"):
            raise TransportError(HOST, "Broken pipe", started=True)
        if fault == "truncated":
            text = text[: self.world.chance.randrange(len(text) + 1)]
        elif fault == "doubled":
            text += text
        elif fault == "noise":
            text = f"Welcome to login!\n{text}bye"
        return Reply(1 if shell.failed else 0, text.encode(), b"")

    def _listen(self, shell: Shell, cut_at: float | None, timeout_s: float) -> None:
        """Wait for the end of the script, of the connection, or of patience."""
        timeline = self.world.timeline
        end = [float("inf") if cut_at is None else cut_at]
        timeline.after(end[0] - timeline.now if cut_at else timeout_s, lambda: None)

        def over() -> bool:
            silent = timeline.now - shell.said_at >= timeout_s
            return shell.done or timeline.now >= end[0] or silent or self.owner.dead

        def watch() -> None:
            if not over():
                timeline.after(max(shell.said_at + timeout_s - timeline.now, 0.01), watch)

        timeline.after(timeout_s, watch)
        timeline.until(over)
        self.owner.survive()

    def _wait(self, seconds: float) -> None:
        self.world.timeline.wait(seconds)
        self.owner.survive()
