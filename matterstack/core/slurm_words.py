"""Slurm's words for a job's state and what kind of state each is."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

from matterstack.core.machine import Reason


class Kind(StrEnum):
    """Kind of state. ENDING: the processes are over, Slurm still cleans up. UNKNOWN says nothing."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDING = "ending"
    END = "end"
    UNKNOWN = "unknown"


WAITING, RUNNING, ENDING, END, UNKNOWN = Kind.WAITING, Kind.RUNNING, Kind.ENDING, Kind.END, Kind.UNKNOWN

# Long form, short form, kind. Flags that Slurm never shows alone (LAUNCH_FAILED, POWER_UP_NODE …) are not here:
# they say nothing of the job's state, so they are words that we do not know.
STATES: Final[tuple[tuple[str, str, Kind], ...]] = (
    ("PENDING",        "PD",  WAITING),
    ("CONFIGURING",    "CF",  WAITING),  # nodes are booting or set up
    ("EXPEDITING",     "",    WAITING),
    ("REQUEUED",       "RQ",  WAITING),  # in accounting: an older start of the same id, never an end
    ("REQUEUE_FED",    "RF",  WAITING),
    ("REQUEUE_HOLD",   "RH",  WAITING),
    ("RESV_DEL_HOLD",  "RD",  WAITING),
    ("SPECIAL_EXIT",   "SE",  WAITING),  # requeued and held
    ("RUNNING",        "R",   RUNNING),
    ("SUSPENDED",      "S",   RUNNING),
    ("STOPPED",        "ST",  RUNNING),
    ("RESIZING",       "RS",  RUNNING),
    ("SIGNALING",      "SI",  RUNNING),
    ("COMPLETING",     "CG",  ENDING),
    ("STAGE_OUT",      "SO",  ENDING),
    ("COMPLETED",      "CD",  END),
    ("FAILED",         "F",   END),
    ("TIMEOUT",        "TO",  END),
    ("DEADLINE",       "DL",  END),
    ("OUT_OF_MEMORY",  "OOM", END),
    ("CANCELLED",      "CA",  END),
    ("REVOKED",        "RV",  END),      # runs on another cluster of a federation
    ("NODE_FAIL",      "NF",  END),
    ("PREEMPTED",      "PR",  END),
    ("BOOT_FAIL",      "BF",  END),
)  # fmt: skip

# Why an attempt is FAILED whose job ended with the word; COMPLETED and FAILED need an exit code to tell.
REASONS: Final[dict[str, Reason]] = {
    "FAILED": Reason.EXIT_CODE,
    "TIMEOUT": Reason.TIMEOUT,
    "DEADLINE": Reason.TIMEOUT,
    "OUT_OF_MEMORY": Reason.OUT_OF_MEMORY,
    "CANCELLED": Reason.CANCELLED,
    "REVOKED": Reason.CANCELLED,
    "NODE_FAIL": Reason.NODE_FAIL,
    "PREEMPTED": Reason.PREEMPTED,
    "BOOT_FAIL": Reason.BOOT_FAIL,
}

_LONG: Final = {form: long for long, short, _ in STATES for form in (long, short) if form}
_KINDS: Final = {long: kind for long, _, kind in STATES}

_WORDS_MAX: Final = 1024  # that are remembered; Slurm has few, what surrounds its answers has any number


@lru_cache(maxsize=_WORDS_MAX)
def plain_word(text: str) -> str:
    """Return the long form of a state as Slurm prints it, or its first word in capitals where we do not know it.

    ``CANCELLED by 1000`` and ``CANCELLED+`` are CANCELLED, ``OUT_OF_ME+`` is OUT_OF_MEMORY, ``PD`` is PENDING.
    """
    word = next(iter(text.upper().split()), "")
    stem = word.removesuffix("+")
    if stem in _LONG:
        return _LONG[stem]
    cut = [long for long in _KINDS if long.startswith(stem)] if stem and word.endswith("+") else []
    return cut[0] if len(cut) == 1 else word


def kind_of(text: str) -> Kind:
    """Return the kind of a state, in any form that Slurm prints; a word that we do not know is UNKNOWN."""
    return _KINDS.get(plain_word(text), UNKNOWN)


# Why a job waits that only has to wait: for its turn, its time, or another job's end. So do limits of jobs at once.
_IN_TURN: Final = frozenset(
    {
        "",
        "None",
        "Priority",
        "Resources",
        "Dependency",
        "BeginTime",
        "JobArrayTaskLimit",
        "Licenses",
        "Cleaning",
        "Prolog",
    }
)
_JOBS_AT_ONCE: Final = re.compile(r".*Jobs?(Per[A-Za-z]+)?Limit", re.ASCII)
_REASON_LENGTH: Final = 100


def stall_of(reason: str) -> str:
    """Return Slurm's word where it says that a waiting job will not start as it is; ``""`` for any usual wait.

    ``ReqNodeNotAvail, UnavailableNodes:n[1-3]`` is ReqNodeNotAvail: what follows the comma changes by the hour. A
    reason that we do not know counts, for it costs no more than a line.
    """
    word = reason.partition(",")[0].strip().strip("()")[:_REASON_LENGTH]
    return "" if word in _IN_TURN or _JOBS_AT_ONCE.fullmatch(word) else word
