"""Which rows are asked for: checks of what was given, and the conditions in SQL."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypedDict, Unpack, cast

from matterstack.core.machine import Reason, State
from matterstack.errors import UnknownName
from matterstack.history.rows import EPOCH, Query, moment

Time: TypeAlias = datetime | str | float
Words: TypeAlias = str | Collection[str] | None

_PATTERN: Final = frozenset("*?[")


class Filters(TypedDict, total=False):
    """Which attempts are meant; those that fit all that is given. Several names may be given as a list.

    ``task`` is a name, or a pattern such as ``relax-*``. ``since`` and ``until`` bound the time in which the attempt
    lived, from its request to its recorded end: an aware datetime, ISO 8601 with its zone, or seconds since 1970.
    """

    run: str | None
    task: str | None
    state: Words
    reason: Words
    profile: Words
    node: Words
    job_id: Words
    token: Words
    since: Time | None
    until: Time | None


def microseconds(query: Query, time: Time) -> int:
    """Return a moment as µs since 1970.

    Args:
        query: Of the journal, for the message.
        time: An aware datetime, ISO 8601 with its zone, or seconds since 1970.

    Raises:
        UnknownName: It is none of these.
    """
    try:
        if isinstance(time, str):
            time = datetime.fromisoformat(time)
        elif not isinstance(time, datetime):
            return round(float(time) * 1e6)
        since = _with_zone(time).astimezone(UTC) - EPOCH
    except (TypeError, ValueError, OverflowError) as error:
        raise UnknownName("moment", str(time), (), _known_times(query, error)) from error
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _with_zone(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("it has no zone")
    return time


def _known_times(query: Query, error: Exception) -> str:
    first, last = "SELECT min(position) FROM events", "SELECT max(position) FROM events"
    ends = query(f"SELECT at FROM events WHERE position IN (({first}), ({last})) ORDER BY position", ())
    known = [moment(at).isoformat(timespec="seconds") for (at,) in ends]
    span = f" The journal's events are from {known[0]} to {known[-1]}." if known else ""
    return (
        f"({error}.) Give it with its zone, such as '2026-03-01T12:00:00Z', an aware datetime, or seconds since "
        f"1970.{span}"
    )


def words(kind: str, given: Words, known: Collection[str] = ()) -> list[str]:
    """Return one or several names as a list, checked against the known ones where there are any.

    Raises:
        UnknownName: One of them is none.
    """
    found = [str(given)] if isinstance(given, str) else [str(name) for name in given or ()]
    for name in found:
        if known and name not in known:
            raise UnknownName(kind, name, known, f"For example {kind}={min(known)!r}")
    return found


def known_run(query: Query, run: str) -> str:
    """Return ``run``.

    Raises:
        UnknownName: The journal has no such run.
    """
    if not query("SELECT 1 FROM runs WHERE run = ?", (run,)):
        known = [name for (name,) in query("SELECT run FROM runs", ())]
        hint = (
            "runs() has them all" if known else "The journal has no run yet; start one with `matterstack run WORKFLOW`"
        )
        raise UnknownName("run", run, known, hint)
    return run


def known_task(query: Query, run: str, task: str) -> str:
    """Return the task's subject.

    Raises:
        UnknownName: There is no such run, or the run has no such task.
    """
    subject = f"{known_run(query, run)}/{task}"
    if not query("SELECT 1 FROM tasks WHERE subject = ?", (subject,)):
        known = [name for (name,) in query("SELECT task FROM tasks WHERE run = ? ORDER BY ord", (run,))]
        raise UnknownName(
            "task", task, known, f"Run {run!r} has {len(known)} tasks; a pattern such as 'relax-*' is taken, too"
        )
    return subject


def some_task(query: Query, task: str) -> None:
    """Do nothing when the name is a pattern, or a run has such a task.

    Raises:
        UnknownName: No run has.
    """
    if not is_pattern(task) and not query("SELECT 1 FROM tasks WHERE task = ? LIMIT 1", (task,)):
        raise UnknownName("task", task, [name for (name,) in query("SELECT DISTINCT task FROM tasks", ())])


def is_pattern(task: str) -> bool:
    """Return whether a task's name is one with ``*``, ``?`` or ``[…]``."""
    return not _PATTERN.isdisjoint(task)


class Where:
    """Conditions that all hold, and their parameters."""

    def __init__(self) -> None:
        self.conditions: list[str] = []
        self.params: list[Any] = []

    def add(self, condition: str, *params: object) -> None:
        """Add a condition with its parameters."""
        self.conditions.append(condition)
        self.params += params

    def among(self, column: str, names: list[str]) -> None:
        """Add that the column has one of the names; nothing for none."""
        if names:
            self.add(f"{column} IN ({', '.join('?' * len(names))})", *names)

    def __str__(self) -> str:
        return " AND ".join(self.conditions) or "1"


def check_names(which: Collection[str]) -> None:
    """Do nothing when all of these are filters.

    Raises:
        UnknownName: One is not.
    """
    known = Filters.__annotations__
    for name in which:
        if name not in known:
            raise UnknownName("filter", name, known, "For example state='FAILED'")


def of_attempts(query: Query, **which: Unpack[Filters]) -> Where:
    """Return the conditions on a row of ``tasks`` or ``attempts``.

    Raises:
        UnknownName: There is no such filter, run, task, state, reason or moment.
    """
    check_names(which)
    where = Where()
    place(query, where, which.get("run"), which.get("task"))
    # Written out, so that SQLite sees that its index of failed tasks will do.
    if states := words("state", which.get("state"), [known.value for known in State]):
        where.add(f"state IN ({', '.join(map(repr, states))})" if len(states) > 1 else f"state = '{states[0]}'")
    where.among("reason", words("reason", which.get("reason"), [known.value for known in Reason]))
    for column in ("profile", "node", "job_id", "token"):
        where.among(column, words(column, cast(Words, which.get(column))))
    since, until = which.get("since"), which.get("until")
    if since is not None:
        where.add("coalesce(recorded_at, 9e18) >= ?", microseconds(query, since))
    if until is not None:
        where.add("coalesce(requested_at, recorded_at) <= ?", microseconds(query, until))
    elif since is not None:
        where.add("coalesce(requested_at, recorded_at) IS NOT NULL")
    return where


def place(query: Query, where: Where, run: str | None, task: str | None) -> None:
    """Add the conditions on run and task; a name without a pattern must be there.

    Raises:
        UnknownName: There is no such run or task.
    """
    if run is not None:
        if task is not None and not is_pattern(task):
            where.add("subject = ?", known_task(query, run, task))
            return
        where.add("run = ?", known_run(query, run))
    if task is not None:
        some_task(query, task)
        where.add("(task = ? OR task GLOB ?)", task, task)
