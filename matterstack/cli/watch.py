"""``watch``: how a run stands, on a terminal, as it goes."""

from __future__ import annotations

import argparse
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from matterstack.cli.showing import what_now
from matterstack.cli.text import duration, line_of_counts, table, why
from matterstack.core.machine import State
from matterstack.core.printable import printable
from matterstack.history import History, RunStatus, TaskStatus
from matterstack.history.past import located
from matterstack.runtime.opening import open_journal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_EVENTS: Final = 40
_LOOK_S: Final = 0.25
_COLOURS: Final = {State.COMPLETED: "green", State.FAILED: "red", State.RUNNING: "blue", State.PENDING: "bright_black"}


class Seen(NamedTuple):
    """How a run stands: its counts, what runs (longest first), what failed (newest first), the last events."""

    status: RunStatus
    running: list[TaskStatus]
    failed: list[TaskStatus]
    events: list[str]


def watch(arguments: argparse.Namespace) -> int:
    """Show a run until the reader leaves; without a terminal, once."""
    path = located(arguments.journal)
    with History(path) as history, open_journal(path, create=False, read_only=True) as journal:
        run = history.run(arguments.run)

        def look() -> Seen:
            first = max(0, journal.head(run).version - _EVENTS)
            tasks = list(history.tasks(run, (State.RUNNING, State.FAILED)))
            return Seen(
                history.status(run),
                sorted((t for t in tasks if t.state == State.RUNNING), key=lambda t: t.started_at or 9e99),
                sorted((t for t in tasks if t.state == State.FAILED), key=lambda t: -(t.ended_at or 0)),
                [
                    printable(f"{event.time:%H:%M:%S}  {event.type:<16} {event.subject.partition('/')[2]}")
                    for event in journal.read(run, after_version=first)
                ][::-1],
            )

        if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            print("\n".join(_plainly(look())))
            return 0
        from rich.console import Console  # 60 ms, and only a terminal needs it
        from rich.live import Live

        console, seen = Console(highlight=False), look()
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(_screen(seen, console), refresh=True)
                # Drawn again each second for the running times, and at once when something was recorded.
                until = time.monotonic() + 1
                while time.monotonic() < until and not journal.changed():
                    if pressed(_LOOK_S) in ("q", "Q"):
                        return 0
                seen = look()


@contextmanager
def _keys() -> Iterator[_Keys]:
    """Give what tells the next key, typed without Enter; the terminal is left as it was."""
    if not sys.stdin.isatty():
        yield _Keys(None)
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield _Keys(number)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


class _Keys:
    def __init__(self, number: int | None) -> None:
        self._number = number

    def __call__(self, wait_s: float) -> str:
        """Return the key typed within that time, ``""`` for none."""
        if self._number is None:
            time.sleep(wait_s)
            return ""
        if not select.select([self._number], [], [], wait_s)[0]:
            return ""
        key = os.read(self._number, 1)
        if not key:  # the terminal is gone
            raise KeyboardInterrupt
        return key.decode("latin-1")


def _screen(seen: Seen, console: Console) -> RenderableType:
    """Return what fits the terminal: the parts share its height, and what one does not need the next one has."""
    from rich.console import Group
    from rich.text import Text

    width, height = console.size
    # Three lines or more above, one below, and each of the three parts has a heading.
    room = max(3, height - 3 - len(_lost(seen.status)) - 1 - 3)
    running, failed = min(len(seen.running), room // 3), min(len(seen.failed), room // 3)
    events = min(len(seen.events), room - running - failed)
    lines = [
        Text(f"{seen.status.run}  {printable(what_now(seen.status))}", style="bold"),
        _bar(seen.status, width),
        Text(line_of_counts(seen.status.counts)),
        *(Text(line, style="yellow") for line in _lost(seen.status)),
        *_part("running", len(seen.running), [_running(task) for task in seen.running[:running]]),
        *_part("failed", len(seen.failed), [_failed(task) for task in seen.failed[:failed]]),
        *_part("last events", None, seen.events[:events]),
    ]
    lines = lines[: height - 1]
    lines += [Text()] * (height - 1 - len(lines))
    lines.append(Text("q or Ctrl-C leaves; the run goes on", style="dim"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _bar(status: RunStatus, width: int) -> Text:
    from rich.text import Text

    total, bar, drawn = max(1, sum(status.counts.values())), Text(), 0
    past = 0
    for state in (State.COMPLETED, State.FAILED, State.RUNNING, State.PENDING):
        past += status.counts[state]
        end = round(width * past / total)
        bar.append("━" * (end - drawn), style=_COLOURS[state])
        drawn = end
    return bar


def _part(title: str, count: int | None, rows: Sequence[str]) -> list[Text]:
    from rich.text import Text

    more = "" if count is None else f" {count}" if count <= len(rows) else f" {count}, the first {len(rows)} of them"
    return [Text(f"{title}{more}", style="bold"), *(Text(f"  {row}") for row in rows)]


def _lost(status: RunStatus) -> list[str]:
    """Return a line for each backend that the controller cannot ask."""
    lost = status.lost_contacts if status.controller else ()
    return [printable(f"no contact{f' with {one.profile}' if one.profile else ''}: {one.detail}") for one in lost]


def _running(task: TaskStatus) -> str:
    again = f" (attempt {task.attempt})" if task.attempt > 1 else ""
    return printable(f"{duration(task.started_at, time.time()):>8}  {task.task}{again}  {task.job_id or ''}")


def _failed(task: TaskStatus) -> str:
    return printable(f"{task.task}  {why(task.reason, task.exit_code, task.signal, task.detail)}")


def _plainly(seen: Seen) -> Iterator[str]:
    """Yield the same as lines for a file or a pipe."""
    yield f"{seen.status.run}  ({printable(what_now(seen.status))})"
    yield line_of_counts(seen.status.counts)
    yield from _lost(seen.status)
    for title, rows in (
        ("RUNNING", [_running(task) for task in seen.running[:20]]),
        ("FAILED", [_failed(task) for task in seen.failed[:20]]),
        ("LAST EVENTS", seen.events[:10]),
    ):
        if rows:
            yield ""
            yield from (line.rstrip() for line in table([title], [[row] for row in rows]))
