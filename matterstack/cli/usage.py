"""``report``: what attempts used, or by `page` a run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from matterstack.cli.text import as_json, number, table
from matterstack.core.printable import printable
from matterstack.errors import MatterStackError

_WHICH = ("run", "task", "profile", "account")
_HEAD = (
    "attempts",
    "failed",
    "core h",
    "wasted",
    "CPU h",
    "CPU",
    "waited",
    "asked GB",
    "used",
    "next",
    "asked min",
    "used",
    "next",
)


def report(arguments: argparse.Namespace) -> int:
    """Write a run's page or, where ``usage`` is asked for, print the ledger."""
    if arguments.what == "usage":
        return _usage(arguments)
    given = [f"--{name}" for name in _WHICH if getattr(arguments, name) is not None]
    given += ["--json"] if arguments.json else []
    if given:
        raise MatterStackError(
            f"{given[0]} goes with `matterstack report usage`, not with the page of a run. Nothing was written."
        )
    from matterstack.cli import page  # the ledger does without what makes pages

    arguments.run = arguments.what
    return page.report(arguments)


def _usage(arguments: argparse.Namespace) -> int:
    from matterstack.history.past import Past

    if arguments.output is not None:
        raise MatterStackError("--output goes with the page of a run, not with usage. Nothing was written.")
    with Past(arguments.journal) as past:
        rows = past.ledger(arguments.by, **{name: getattr(arguments, name) for name in _WHICH})
    if arguments.json:
        print(as_json({"by": arguments.by, "rows": [row._asdict() for row in rows]}))
        return 0
    if not rows:
        print("No attempt that fits has ended.")
        return 0
    lines = [
        (
            printable(row.key) or "-",
            str(row.attempts),
            str(row.failed),
            _decimal(row.core_hours, 3),
            _decimal(row.wasted_core_hours, 3),
            _decimal(row.cpu_hours, 3),
            "-" if row.cpu_efficiency is None else f"{row.cpu_efficiency:.0%}",
            "-" if row.queue_wait_mean_s is None else f"{row.queue_wait_mean_s:.0f} s",
            _decimal(row.asked_memory_gb, 2),
            _decimal(row.used_memory_gb, 2),
            _decimal(row.suggested_memory_gb, 1),
            _decimal(row.asked_minutes, 1),
            _decimal(row.used_minutes, 1),
            _decimal(row.suggested_minutes, 0),
        )
        for row in rows
    ]
    for line in table([arguments.by, *_HEAD], lines):
        print(line)
    for line in _notes(sum(row.unmeasured for row in rows), [row.cpu_efficiency for row in rows]):
        print(line)
    return 0


def _notes(unmeasured: int, efficiencies: Sequence[float | None]) -> Iterator[str]:
    if unmeasured:
        yield (
            f"Of {number(unmeasured, 'attempt')} memory or CPU time is not known (-); `history_attempt_usage` says why "
            "of each. On Slurm, `matterstack resume RUN` asks for what accounting had not told yet."
        )
    if any(one is not None for one in efficiencies):
        yield "CPU: the part of the core time that was used. next: what the next campaign might ask for."


def _decimal(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"
