"""What a campaign cost: the usage of its attempts, summed up, and what to ask for the next time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from matterstack.errors import UnknownName
from matterstack.history import filters
from matterstack.history.rows import LedgerRow, Query, Rows

_NUMBER: Final = re.compile(r"[0-9]+(?:[._-][0-9]+)*")
_MARGIN: Final = 1.2
_HOUR: Final = 3600.0


class _Attempt(NamedTuple):
    run: str
    task: str
    profile: str
    account: str
    state: str
    reason: str
    queue_s: float | None
    elapsed_s: float | None
    cpus: int | None
    asked_cores: int
    memory_b: int | None
    asked_memory_b: float | None
    max_rss_b: int | None
    cpu_s: float | None
    asked_s: float | None

    @property
    def core_s(self) -> float:
        """Core seconds that were allocated, as far as is known."""
        return (self.elapsed_s or 0.0) * (self.cpus or self.asked_cores)


_SELECT: Final = (
    f"SELECT {', '.join(_Attempt._fields)} FROM (SELECT *, (julianday(start) - julianday(coalesce(eligible, submit)))"
    " * 86400.0 AS queue_s FROM history_attempt_usage)"
)
BY: Final[dict[str, Callable[[_Attempt], str]]] = {
    "run": lambda one: one.run,
    "task": lambda one: pattern_of(one.task),
    "profile": lambda one: one.profile,
    "account": lambda one: one.account,
    "reason": lambda one: one.reason,
}


def pattern_of(task: str) -> str:
    """Return the pattern that tasks alike have in common: ``relax-007`` and ``relax-12`` give ``relax-*``."""
    return _NUMBER.sub("*", task)


def ledger(
    query: Query,
    *,
    by: str = "run",
    run: str | None = None,
    task: str | None = None,
    profile: str | None = None,
    account: str | None = None,
) -> Rows[LedgerRow]:
    """Return what ended attempts cost, by ``run``, ``task`` pattern, ``profile``, ``account`` or failure's ``reason``.

    Raises:
        UnknownName: There is no such run, task, or nothing to sum up by.
    """
    if by not in BY:
        raise UnknownName("grouping", by, BY, "For example by='run'")
    where = filters.Where()
    filters.place(query, where, run, task)
    for column, given in (("profile", profile), ("account", account)):
        if given is not None:
            where.add(f"{column} = ?", given)
    groups: dict[str, list[_Attempt]] = {}
    for record in query(f"{_SELECT} WHERE {where} ORDER BY run, task, attempt", where.params):
        one = _Attempt(*record)
        groups.setdefault(BY[by](one), []).append(one)
    return Rows(LedgerRow, (_row(key, found) for key, found in sorted(groups.items())))


def _row(key: str, found: Sequence[_Attempt]) -> LedgerRow:
    measured = [one for one in found if one.cpu_s is not None and one.core_s]
    busy = sum(one.cpu_s or 0.0 for one in measured)
    waits = _known(one.queue_s for one in found)
    rss = _most(one.max_rss_b for one in found)
    # An attempt that ran into a limit would have used more than it did, so its use says nothing of the need.
    sound = [one for one in found if one.state == "COMPLETED"]
    used_s, need_s = _most(one.elapsed_s for one in found), _most(one.elapsed_s for one in sound)
    need_b = _most(one.max_rss_b for one in sound)
    asked_b, asked_s = _most(one.asked_memory_b or one.memory_b for one in found), _most(one.asked_s for one in found)
    return LedgerRow(
        key,
        len(found),
        sum(one.state == "FAILED" for one in found),
        sum(one.core_s for one in found) / _HOUR,
        sum(one.core_s for one in found if one.state == "FAILED") / _HOUR,
        busy / sum(one.core_s for one in measured) if measured else None,
        sum(waits) / len(waits) if waits else None,
        max(waits, default=None),
        None if asked_b is None else asked_b / 1e9,
        None if rss is None else rss / 1e9,
        None if need_b is None else math.ceil(need_b * _MARGIN / 1e8) / 10,
        None if asked_s is None else asked_s / 60,
        None if used_s is None else used_s / 60,
        None if need_s is None else math.ceil(need_s * _MARGIN / 60),
        sum(bool(one.elapsed_s) and (one.max_rss_b is None or one.cpu_s is None) for one in found),
        busy / _HOUR if measured else None,
    )


def _known(values: Iterable[Any]) -> list[float]:
    return [max(0.0, value) for value in values if value is not None]


def _most(values: Iterable[Any]) -> float | None:
    return max(_known(values), default=None)
