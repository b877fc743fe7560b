"""The facts a run records, in past tense; each is a JSON object in the journal, its type the class name."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from matterstack.core.usage import Usage


class Event(Struct, frozen=True, omit_defaults=True):
    """Base of all events of a task."""


class TaskAdded(Event, frozen=True, omit_defaults=True):
    """The run got a task; ``order`` is its place in the workflow, from 0."""

    order: int
    spec_hash: str
    spec: dict[str, Any]


class TaskChanged(Event, frozen=True, omit_defaults=True):
    """The task is to run (again) under this spec: its own changed, or ``upstream`` names one that did."""

    order: int
    spec_hash: str
    spec: dict[str, Any]
    upstream: str = ""


class TaskDropped(Event, frozen=True, omit_defaults=True):
    """The workflow no longer has the task."""


class SubmitRequested(Event, frozen=True, omit_defaults=True):
    """Intent to submit attempt ``attempt``, recorded before anything is done by a controller of boot ``boot``.

    ``gen`` counts the tries to submit this attempt, from 1; those before were proved not to have started.
    ``array`` is the token of the job array that it goes in, as element ``index``; empty for a job of its own.
    ``profile`` is the backend's, where it is not the run's.
    """

    attempt: int
    token: str
    boot: str = ""
    gen: int = 1
    array: str = ""
    index: int | None = None
    profile: str = ""


class JobSubmitted(Event, frozen=True, omit_defaults=True):
    """The backend took the attempt; ``job_id`` is its own name for it."""

    job_id: str


class SubmitUnknown(Event, frozen=True, omit_defaults=True):
    """Whether the backend took the attempt is not known."""

    detail: str = ""


class SubmitAbsent(Event, frozen=True, omit_defaults=True):
    """It is proved that the attempt was not submitted, or was taken back before it started."""

    detail: str = ""


class SubmitRefused(Event, frozen=True, omit_defaults=True):
    """The backend will not take the attempt; ``detail`` has its words."""

    detail: str = ""
    reason: str = "SUBMIT_REFUSED"


class JobStalled(Event, frozen=True, omit_defaults=True):
    """The scheduler says, since ``since`` (seconds since 1970), why it will not start the queued job as it is.

    An empty ``reason``: it waits for its turn again, like any other.
    """

    reason: str = ""
    since: float | None = None


class JobStarted(Event, frozen=True, omit_defaults=True):
    """The command began; times are seconds since 1970 UTC, by the executing host's clock."""

    started_at: float | None = None
    node: str = ""
    pid: int | None = None


class JobRequeued(Event, frozen=True, omit_defaults=True):
    """The scheduler put a started job back into its queue."""

    detail: str = ""


class CancelRequested(Event, frozen=True, omit_defaults=True):
    """Somebody wants the task ended."""

    by: str = ""


class TaskCompleted(Event, frozen=True, omit_defaults=True):
    """The command ended with exit code 0. ``cpu_s`` is its CPU time, where that was known with the end."""

    ended_at: float | None = None
    exit_code: int = 0
    detail: str = ""
    cpu_s: float | None = None


class TaskFailed(Event, frozen=True, omit_defaults=True):
    """The attempt ended otherwise; ``word`` is the backend's own word for it, ``cpu_s`` as in `TaskCompleted`."""

    reason: str
    ended_at: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    word: str = ""
    cpu_s: float | None = None


class TaskRetried(Event, frozen=True, omit_defaults=True):
    """A failed task is to be tried again."""

    why: str = ""


class UsageRecorded(Event, frozen=True, omit_defaults=True):
    """What attempt ``attempt``, which has ended, used; once an attempt, and maybe after the next one began.

    ``cores``, ``memory`` (bytes) and ``limit_s`` are what its task asked for.
    """

    attempt: int
    usage: Usage
    cores: int = 1
    memory: int | None = None
    limit_s: float | None = None


class FileSum(Struct, frozen=True):
    """What is in a file: its SHA-256 in hex, and its size in bytes."""

    sha256: str
    size: int


class FilesRecorded(Event, frozen=True, omit_defaults=True):
    """What attempt ``attempt``, which has ended, left of its task's declared outputs, by name in its directory."""

    attempt: int
    files: dict[str, FileSum]


class RunCreated(Event, frozen=True, omit_defaults=True):
    """A run began to exist; ``key`` is random and part of every token."""

    key: str
    name: str
    version: str
    profile: dict[str, Any] = {}


class RunStarted(Event, frozen=True, omit_defaults=True):
    """A controller took the run, started by ``user``. ``profiles`` are those that tasks name themselves, by name."""

    host: str
    pid: int
    boot_id: str
    version: str
    profile: dict[str, Any] = {}
    profiles: dict[str, Any] = {}
    user: str = ""


class RunStopped(Event, frozen=True, omit_defaults=True):
    """The controller let go of the run; ``why`` is finished, paused, budget (it is used up) or interrupted.

    ``detail`` says more where there is more to say.
    """

    why: str
    counts: dict[str, int] = {}
    detail: str = ""


class ContactLost(Event, frozen=True, omit_defaults=True):
    """A backend cannot be asked, or takes nothing; ``profile`` as in `SubmitRequested`. No task changes for it."""

    detail: str
    profile: str = ""


class ContactRestored(Event, frozen=True, omit_defaults=True):
    """The backend answers again."""

    profile: str = ""


class NotificationDue(Event, frozen=True, omit_defaults=True):
    """Somebody is to be told, by the command that the run's profile has for ``on``; ``state`` and so on are what of.

    ``task`` and ``attempt`` are empty where it is of the run itself.
    """

    on: str
    state: str
    reason: str = ""
    detail: str = ""
    task: str = ""
    attempt: int = 0
    exit_code: int | None = None
    counts: dict[str, int] = {}


class NotificationDelivered(Event, frozen=True, omit_defaults=True):
    """The command for the `NotificationDue` of version ``due`` of this stream ended with exit code 0."""

    due: int


class NotificationFailed(Event, frozen=True, omit_defaults=True):
    """It did not; it is tried again, unless it is ``given_up``."""

    due: int
    detail: str = ""
    given_up: bool = False


class RetryRequested(Event, frozen=True, omit_defaults=True):
    """Somebody wants a failed task tried again."""

    by: str = ""


class RequestsTaken(Event, frozen=True, omit_defaults=True):
    """The controller has acted on the run's requests up to this version of their stream."""

    version: int


TYPES: Final[dict[str, type[Event]]] = {
    kind.__name__: kind
    for kind in (
        TaskAdded,
        TaskChanged,
        TaskDropped,
        SubmitRequested,
        JobSubmitted,
        SubmitUnknown,
        SubmitAbsent,
        SubmitRefused,
        JobStalled,
        JobStarted,
        JobRequeued,
        CancelRequested,
        TaskCompleted,
        TaskFailed,
        TaskRetried,
        UsageRecorded,
        FilesRecorded,
        RunCreated,
        RunStarted,
        RunStopped,
        ContactLost,
        ContactRestored,
        NotificationDue,
        NotificationDelivered,
        NotificationFailed,
        RetryRequested,
        RequestsTaken,
    )
}

encode = msgspec.json.Encoder().encode
_decoders: dict[str, msgspec.json.Decoder[Event]] = {}


def decode(kind: str, data: bytes | str) -> Event:
    """Return the event of type ``kind`` from its JSON.

    Fields that a newer version added are ignored, so an older one still reads the journal's known part.

    Raises:
        KeyError: The type is not one of ours.
        msgspec.ValidationError: A field is missing or has the wrong type.
    """
    if kind not in _decoders:
        _decoders[kind] = msgspec.json.Decoder(TYPES[kind])
    return _decoders[kind].decode(data)


def profile_of(text: str) -> dict[str, Any]:
    """Return a profile from the JSON that the tables keep of it."""
    return msgspec.json.decode(text, type=dict[str, Any])
