"""Progress: a bar on a terminal, plain lines elsewhere. The only import of `rich`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from matterstack.cli.text import line_of_counts
from matterstack.core.machine import State
from matterstack.core.printable import printable
from matterstack.runtime.drive import Observer, Progress

PLAIN_S = 5.0
SHOWN = 4


@contextmanager
def progress(name: str, *, quiet: bool) -> Iterator[Observer | None]:
    """Give what shows the progress of a run on standard error."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar(name) as observe:
            yield observe
    else:
        yield _plain()


def _plain() -> Observer:
    last = ("", time.monotonic() - PLAIN_S)

    def observe(now: Progress) -> None:
        nonlocal last
        line = line_of_counts(now.counts) + _trouble(now)
        over = not (now.counts[State.PENDING] or now.counts[State.RUNNING])
        if line != last[0] and (over or time.monotonic() - last[1] >= PLAIN_S):
            print(line, file=sys.stderr, flush=True)
            last = line, time.monotonic()

    return observe


@contextmanager
def _bar(name: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console  # 60 ms, and only a terminal needs it
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task(escape(name) or "run", total=None, note="")

        def observe(now: Progress) -> None:
            if now.interrupted:
                bar.stop()
                return
            over = now.counts[State.COMPLETED] + now.counts[State.FAILED]
            failed = f"[red]{now.counts[State.FAILED]} failed[/] " if now.counts[State.FAILED] else ""
            names = ", ".join(sorted(now.running)[:SHOWN]) + (" …" if len(now.running) > SHOWN else "")
            note = failed + escape(names + _trouble(now))
            bar.update(row, total=sum(now.counts.values()), completed=over, note=note)

        yield observe


def _trouble(now: Progress) -> str:
    return f" [paused: {printable(now.trouble)}]" if now.trouble else ""
