"""The four states of a task and the one table of what may follow what."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from transitions import Machine


class State(StrEnum):
    """State of a task. Finer truth (stage, reason) is derived from recorded facts."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Reason(StrEnum):
    """Why an attempt is FAILED."""

    EXIT_CODE = "EXIT_CODE"
    TIMEOUT = "TIMEOUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    BOOT_FAIL = "BOOT_FAIL"
    CANCELLED = "CANCELLED"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    SUBMIT_REFUSED = "SUBMIT_REFUSED"
    INTERRUPTED = "INTERRUPTED"
    LOST = "LOST"


PENDING, RUNNING, COMPLETED, FAILED = State.PENDING, State.RUNNING, State.COMPLETED, State.FAILED
SAME: Final = None  # the state stays as it is

TRANSITIONS: Final[list[tuple[str, list[State], State | None]]] = [
    # event              from                          to
    ("SubmitRequested", [PENDING],                     PENDING),
    ("JobSubmitted",    [PENDING],                     PENDING),
    ("SubmitUnknown",   [PENDING],                     PENDING),
    ("SubmitAbsent",    [PENDING],                     PENDING),
    ("SubmitRefused",   [PENDING],                     FAILED),
    ("JobStalled",      [PENDING],                     PENDING),
    ("JobStarted",      [PENDING],                     RUNNING),
    ("JobRequeued",     [RUNNING],                     PENDING),
    ("CancelRequested", [PENDING, RUNNING],            SAME),
    ("TaskCompleted",   [PENDING, RUNNING],            COMPLETED),
    ("TaskFailed",      [PENDING, RUNNING],            FAILED),
    ("TaskRetried",     [FAILED],                      PENDING),
    ("TaskChanged",     [PENDING, COMPLETED, FAILED],  PENDING),
    ("TaskDropped",     [PENDING, COMPLETED, FAILED],  SAME),
    ("UsageRecorded",   [PENDING, RUNNING, COMPLETED, FAILED], SAME),  # the next attempt may have begun
    ("FilesRecorded",   [PENDING, RUNNING, COMPLETED, FAILED], SAME),
]  # fmt: skip


def compile_machine() -> Machine:
    """Return the table as a model-less ``transitions`` machine.

    Raises:
        ValueError: The table names a state that does not exist or has a row twice, which ``transitions``
            itself takes without a word.
    """
    from transitions import Machine  # 20 ms that a run with nothing to do need not pay

    rows = [(event, source, target) for event, sources, target in TRANSITIONS for source in sources]
    states = frozenset(State)  # `in State` raises for a plain str before Python 3.12
    for _, source, target in rows:
        if source not in states or (target is not SAME and target not in states):
            raise ValueError(f"the table names an unknown state: {source} -> {target}")
    if len({(event, source) for event, source, _ in rows}) != len(rows):
        raise ValueError("the table has an event twice for one state")
    return Machine(
        model=None,
        states=[state.value for state in State],
        initial=PENDING.value,
        transitions=[
            {"trigger": event, "source": source.value, "dest": "=" if target is SAME else target.value}
            for event, source, target in rows
        ],
        auto_transitions=False,
    )


@cache
def next_states() -> dict[tuple[str, str], State]:
    """Return the state that follows, by event type and state; a pair that is not there may not happen."""
    return {
        (event, transition.source): State(transition.dest or transition.source)
        for event, compiled in compile_machine().events.items()
        for found in compiled.transitions.values()
        for transition in found
    }
