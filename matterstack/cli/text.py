"""How things are written for people and machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from matterstack.core.machine import State
from matterstack.core.printable import printable
from matterstack.runtime.result import TaskResult

SHOWN_FAILURES = 20


def as_json(value: Any) -> str:
    """Return the value as one line of JSON."""
    return msgspec.json.encode(value).decode()


def line_of_counts(counts: Mapping[State, int] | Mapping[str, int]) -> str:
    """Return for instance ``3 of 7 tasks COMPLETED, 1 RUNNING, 3 PENDING``."""
    total = sum(counts.values())
    rest = "".join(f", {counts[s]} {s}" for s in (State.FAILED, State.RUNNING, State.PENDING) if counts[s])
    return f"{counts[State.COMPLETED]} of {total} tasks COMPLETED{rest}"


def number(n: int, thing: str) -> str:
    """Return for instance ``1 task`` or ``3 tasks``."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def more_budget(run: str) -> str:
    """Return what goes on with a run whose budget is used up."""
    return f"`matterstack resume {run} --budget N`, N above that, goes on."


def why(reason: str, exit_code: int | None, signal: int | None, detail: str) -> str:
    """Return why an attempt failed, in a few words."""
    parts = [reason]
    if signal is not None:
        parts.append(f"signal {signal}")
    elif exit_code:
        parts.append(f"exit code {exit_code}")
    text = ", ".join(parts)
    return printable(f"{text}: {detail}" if detail else text)


def failure_lines(failed: Sequence[TaskResult]) -> Iterator[str]:
    """Yield a line a failed task, with the end of what it wrote to standard error."""
    own = [task for task in failed if task.reason != "DEPENDENCY_FAILED"]
    for task in own[:SHOWN_FAILURES]:
        yield f"  {task.task_id}: {why(task.reason, task.exit_code, task.signal, task.detail)}"
        if task.workdir is not None and task.workdir.is_dir():
            yield f"    in {task.workdir}"
        yield from (f"    | {printable(line)}" for line in task.logs()["stderr"].splitlines()[-3:])
    if len(own) > SHOWN_FAILURES:
        yield f"  … and {len(own) - SHOWN_FAILURES} more"
    if len(failed) > len(own):
        yield f"  {number(len(failed) - len(own), 'task')} failed because of others"


def duration(start: float | None, end: float | None) -> str:
    """Return a time span such as ``4.2 s`` or ``1:02:03``; ``""`` where an end is not known."""
    if start is None or end is None:
        return ""
    seconds = max(0.0, end - start)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(seconds: float | None) -> str:
    """Return a time as ISO 8601 in UTC, to the second; ``-`` where it is not known."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds is not None else "-"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table with aligned columns."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
