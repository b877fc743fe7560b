"""The rows that questions are answered with. Times are aware and in UTC, durations in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from matterstack.errors import MatterStackError

T = TypeVar("T", bound=tuple[Any, ...])

Query = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]  # a journal's `query`

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class RunRow(NamedTuple):
    """A run and its tasks by state. ``stopped_at`` is empty while a controller has it, or had it when it died."""

    run: str
    name: str
    created_at: datetime
    started_at: datetime | None
    stopped_at: datetime | None
    why: str
    host: str | None
    pid: int | None
    pending: int
    running: int
    completed: int
    failed: int


class AttemptRow(NamedTuple):
    """One attempt at a task. ``profile`` is empty for the run's own.

    ``requested_at``, ``submitted_at`` and ``recorded_at`` (of the end) are by the controller's clock, ``started_at``
    and ``ended_at`` by that of the executing host.
    """

    run: str
    task: str
    state: str
    attempt: int
    reason: str
    exit_code: int | None
    signal: int | None
    detail: str
    profile: str
    job_id: str | None
    node: str
    token: str
    requested_at: datetime | None
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    recorded_at: datetime | None
    cancel_requested: bool


class TaskRow(NamedTuple):
    """A task with its newest attempt, as in `AttemptRow`; attempt 0 before the first.

    ``stage`` is where a PENDING one stands: waiting, submitting or queued.
    """

    run: str
    task: str
    state: str
    attempt: int
    reason: str
    exit_code: int | None
    signal: int | None
    detail: str
    profile: str
    job_id: str | None
    node: str
    token: str
    requested_at: datetime | None
    submitted_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    recorded_at: datetime | None
    cancel_requested: bool
    stage: str


class EventRow(NamedTuple):
    """One recorded event. ``task`` is empty for events of the run itself; ``data`` is its JSON text."""

    position: int
    time: datetime
    run: str
    task: str
    type: str
    data: str

    def json(self) -> dict[str, Any]:
        """Return the data as a dictionary."""
        return msgspec.json.decode(self.data, type=dict[str, Any])


class StepRow(NamedTuple):
    """An event in the life of a task: what it led to, and the seconds since the event before it."""

    time: datetime
    attempt: int
    type: str
    state: str
    after_s: float
    what: str


class CountRow(NamedTuple):
    """How many tasks were in each state just before ``time``."""

    time: datetime
    pending: int
    running: int
    completed: int
    failed: int


class WaitRow(NamedTuple):
    """How long an attempt waited in the queue and ran; None where it has not, or where a time is not known."""

    run: str
    task: str
    attempt: int
    state: str
    profile: str
    node: str
    queue_wait_s: float | None
    run_time_s: float | None


class RetryRow(NamedTuple):
    """A failed attempt that was followed by another try: how it had failed, and who or what tried again."""

    run: str
    task: str
    attempt: int
    reason: str
    exit_code: int | None
    signal: int | None
    detail: str
    retried_at: datetime
    why: str


class UsageRow(NamedTuple):
    """Attempts that ended, by profile and state, and the time they ran together; ``profile`` as in `AttemptRow`."""

    run: str
    profile: str
    state: str
    attempts: int
    run_time_s: float


class LedgerRow(NamedTuple):
    """What some attempts cost. None: of none of them it is known.

    ``core_hours`` counts the cores that were allocated, or asked for where that is not known; ``wasted_core_hours``
    those of failed attempts; ``cpu_hours`` is the CPU time, and ``cpu_efficiency`` its part of the core time, of those
    attempts of which it is known. ``unmeasured``: attempts that ran and of which memory or CPU time is not known.
    Memory is in GB (1e9 bytes); ``used`` is the most of any attempt. ``suggested``: for the next campaign, a fifth
    above that.
    """

    key: str
    attempts: int
    failed: int
    core_hours: float
    wasted_core_hours: float
    cpu_efficiency: float | None
    queue_wait_mean_s: float | None
    queue_wait_max_s: float | None
    asked_memory_gb: float | None
    used_memory_gb: float | None
    suggested_memory_gb: float | None
    asked_minutes: float | None
    used_minutes: float | None
    suggested_minutes: int | None
    unmeasured: int
    cpu_hours: float | None


class Rows(list[T]):
    """A list of rows, all of one kind."""

    def __init__(self, kind: type[T], rows: Iterable[T] = ()) -> None:
        self.kind = kind
        super().__init__(rows)

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a column for each field, also where there are no rows.

        Raises:
            MatterStackError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise MatterStackError(
                "pandas is not installed here, so there is no table of it; the rows can be used as they are. "
                "Install it with `pip install pandas`."
            ) from error
        return pandas.DataFrame.from_records(list(self), columns=_fields(self.kind))


def _fields(kind: type[tuple[Any, ...]]) -> list[str]:
    return list(getattr(kind, "_fields"))  # noqa: B009  # of a NamedTuple, which has no type of its own


def moment(at: int) -> datetime:
    """Return µs since 1970 as an aware datetime."""
    return EPOCH + timedelta(microseconds=at)


def made(kind: type[T], records: Iterable[Sequence[Any]]) -> Rows[T]:
    """Return rows from records of SQL, in which times are whole µs since 1970."""
    fields = _fields(kind)
    times = [i for i, name in enumerate(fields) if name.endswith("_at") or name == "time"]
    flags = [i for i, name in enumerate(fields) if name == "cancel_requested"]
    rows = Rows(kind)
    known: dict[int | None, datetime | None] = {None: None}  # events of one commit share theirs
    for record in records:
        values = list(record)
        for i in times:
            at = values[i]
            if at not in known:
                known[at] = datetime.fromtimestamp(at / 1e6, UTC)  # to the µs, and twice as fast as a timedelta
            values[i] = known[at]
        for i in flags:
            values[i] = bool(values[i])
        rows.append(tuple.__new__(kind, values))
    return rows
