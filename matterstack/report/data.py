"""What the page of a run shows, as one object for JSON.

Times are whole milliseconds since the run's creation, None where not known. What thousands of tasks share is said once:
tables are given by column, words as numbers into ``words``, tasks as their places in ``tasks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from matterstack import __version__
from matterstack.history.past import Past
from matterstack.history.rows import AttemptRow, RunRow, TaskRow
from matterstack.report.shown import last_lines, shown

Workdir = Callable[[str, str], Path | None]
"""Gives, for a profile (empty for the run's own) and a job id, the attempt's directory on this machine."""

EDGES: Final = 60_000
"""Dependencies that are drawn at most; the page says how many it left out."""
ATTEMPTS: Final = 30_000
LOGGED: Final = 200
"""Failures that are shown with the ends of their logs; the newest ones, and first those that failed by themselves."""

_LOG_LINES: Final = {"stderr": 15, "stdout": 6}
_LOG_CHARACTERS: Final = 2_400  # of one failure, so that all together stay below half a megabyte
_STEPS: Final = 400
_BECAUSE_OF_OTHERS: Final = "DEPENDENCY_FAILED"


def collect(past: Past, run: str, workdir: Workdir = lambda _profile, _job_id: None) -> dict[str, Any]:
    """Return what the page shows of a run, ready for JSON.

    Args:
        past: The journal.
        run: The run.
        workdir: Where logs are; by default none are shown.

    Raises:
        UnknownName: There is no such run.
    """
    tasks = past.tasks(run=run)  # first, for it answers where there is no such run
    facts = next(row for row in past.runs() if row.run == run)
    attempts = past.attempts(run=run)
    clock, words = _Clock(facts.created_at), _Words()
    places = {row.task: place for place, row in enumerate(tasks)}
    kept = _newest(attempts, places)
    edges, total = _edges(past, run, places)
    return {
        "version": __version__,
        "run": run,
        "name": shown(facts.name),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "zero": facts.created_at.timestamp() * 1000,
        "started": clock(facts.started_at),
        "stopped": clock(facts.stopped_at),
        "why": shown(facts.why),
        "host": shown(facts.host or ""),
        "counts": [facts.pending, facts.running, facts.completed, facts.failed],
        "tasks": _task_columns(tasks, kept, words),
        "attempts": _attempt_columns(kept, places, run, clock, words),
        "attempts_total": len(attempts),
        "edges": edges,
        "edges_total": total,
        "over_time": _over_time(past, facts, tasks, clock),
        "usage": [[shown(u.profile), u.state, u.attempts, round(u.run_time_s, 3)] for u in past.usage(run)],
        "failures": _failures(kept, workdir),
        "words": list(words.numbers),
    }


class _Clock:
    """Tells times from the run's creation on."""

    def __init__(self, zero: datetime) -> None:
        self._zero_s = zero.timestamp()

    def __call__(self, time: datetime | None) -> int | None:
        return None if time is None else round((time.timestamp() - self._zero_s) * 1000)


class _Words:
    """Numbers words, in the order in which they are first said."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._said: dict[str, int] = {}

    def __call__(self, text: str | None) -> int:
        number = self._said.get(text or "")
        if number is None:
            fit = shown(text or "")
            number = self._said[text or ""] = self.numbers.setdefault(fit, len(self.numbers))
        return number


def _newest(attempts: Sequence[AttemptRow], places: dict[str, int]) -> list[AttemptRow]:
    """Return the attempts to show: of tasks that the run still has; the newest where there are too many."""
    kept = [row for row in attempts if row.task in places]
    if len(kept) > ATTEMPTS:
        kept.sort(key=_began)
        kept = kept[-ATTEMPTS:]
    return kept


def _began(row: AttemptRow) -> float:
    time = row.requested_at or row.submitted_at or row.started_at
    return time.timestamp() if time else 0.0


def _task_columns(tasks: Sequence[TaskRow], kept: Sequence[AttemptRow], words: _Words) -> dict[str, list[Any]]:
    last = {row.task: place for place, row in enumerate(kept)}
    newest = [(last[row.task] if kept[last[row.task]].attempt == row.attempt else -1) if row.task in last else -1
              for row in tasks]  # fmt: skip
    return {
        "name": [shown(row.task) for row in tasks],
        "state": [words(row.state) for row in tasks],
        "stage": [words(row.stage) for row in tasks],
        "attempt": [row.attempt for row in tasks],
        "reason": [words(row.reason) for row in tasks],
        "detail": [words(row.detail) for row in tasks],
        "last": newest,  # place of the newest attempt among the attempts
    }


def _attempt_columns(
    kept: Sequence[AttemptRow], places: dict[str, int], run: str, clock: _Clock, words: _Words
) -> dict[str, list[Any]]:
    return {
        "task": [places[row.task] for row in kept],
        "attempt": [row.attempt for row in kept],
        "state": [words(row.state) for row in kept],
        "reason": [words(row.reason) for row in kept],
        "exit": [_exit(row) for row in kept],
        "detail": [words(row.detail) for row in kept],
        "profile": [words(row.profile) for row in kept],
        "node": [words(row.node) for row in kept],
        # Those of this machine follow from the rest, and would be half of the page.
        "job": ["=" if row.job_id == f"{run}/{row.task}/{row.attempt}" else shown(row.job_id or "") for row in kept],
        "requested": [clock(row.requested_at) for row in kept],
        "submitted": [clock(row.submitted_at) for row in kept],
        "started": [clock(row.started_at) for row in kept],
        "ended": [clock(row.ended_at) for row in kept],
        "recorded": [clock(row.recorded_at) for row in kept],
    }


def _exit(row: AttemptRow) -> int | str | None:
    return f"signal {row.signal}" if row.signal is not None else row.exit_code


class _Source(Struct):
    task: str = ""


class _Spec(Struct):
    dependencies: list[str] = []
    files: dict[str, _Source] = {}


class _Added(Struct):
    spec: _Spec


_needs: Final = msgspec.json.Decoder(_Added)


def _edges(past: Past, run: str, places: dict[str, int]) -> tuple[list[list[int]], int]:
    """Return, for each task, the places of those that it waits for, and how many there are beside those left out."""
    found: list[list[int]] = [[] for _ in places]
    for event in past.events(run=run, type=["TaskAdded", "TaskChanged"]):
        if event.task in places:
            spec = _needs.decode(event.data).spec
            named = dict.fromkeys([*spec.dependencies, *(s.task for s in spec.files.values() if s.task)])
            found[places[event.task]] = [places[name] for name in named if name in places]
    total = sum(map(len, found))
    # Each task keeps its first ones, so that none looks as if it waited for nothing.
    for each in (8, 4, 2, 1):
        if sum(map(len, found)) > EDGES:
            found = [needs[:each] for needs in found]
    return found, total


def _over_time(past: Past, facts: RunRow, tasks: Iterable[TaskRow], clock: _Clock) -> list[list[int | None]]:
    """Return [time, pending, running, completed, failed], in about as many steps as a picture can show."""
    known = [facts.created_at, facts.stopped_at, *(row.recorded_at for row in tasks)]
    span_s = (max(time for time in known if time) - facts.created_at).total_seconds()
    counts = past.counts_over_time(facts.run, max(1, round(span_s / _STEPS)))
    return [[clock(row.time), *row[1:]] for row in counts]


def _failures(kept: Sequence[AttemptRow], workdir: Workdir) -> list[dict[str, Any]]:
    """Return the attempts that failed by themselves, newest first, with what they wrote last."""
    failed = [place for place, row in enumerate(kept) if row.state == "FAILED" and row.reason != _BECAUSE_OF_OTHERS]
    failed.sort(key=lambda place: kept[place].recorded_at or datetime.min.replace(tzinfo=UTC), reverse=True)
    found = []
    for place in failed[:LOGGED]:
        row = kept[place]
        directory = workdir(row.profile, row.job_id) if row.job_id else None
        logs = {} if directory is None else {s: last_lines(directory / f"{s}.txt", n) for s, n in _LOG_LINES.items()}
        found.append({"attempt": place, "where": shown(str(directory)) if logs else "", "logs": _fitting(logs)})
    return found


def _fitting(logs: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the logs, cut from the front to what one failure may take."""
    room = _LOG_CHARACTERS
    fitting = {}
    for stream, lines in logs.items():
        taken: list[str] = []
        for line in reversed(lines):
            room -= len(line)
            if room < 0:
                break
            taken.insert(0, line)
        if taken:
            fitting[stream] = taken
    return fitting
