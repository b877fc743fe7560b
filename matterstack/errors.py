"""Every exception of MatterStack. A message says what happened, what did not happen, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MatterStackError(Exception):
    """Base of all errors that MatterStack raises on purpose."""


class SpecError(MatterStackError):
    """A task or workflow cannot mean anything. Nothing was recorded or started."""

    def __init__(self, task_id: str, field: str, problem: str) -> None:
        self.task_id, self.field, self.problem = task_id, field, problem
        super().__init__(f"task {task_id!r}: {field}: {problem}")


class WorkflowError(MatterStackError):
    """A workflow's tasks do not fit together (duplicate id, unknown dependency, cycle)."""


class ConfigError(MatterStackError):
    """A workflow file or a profile cannot be read; the message has the file and the path inside it."""


class BackendUnavailable(MatterStackError):
    """The backend could not be asked. Says nothing about any job."""

    def __init__(self, backend: str, action: str, cause: str) -> None:
        self.backend, self.action, self.cause = backend, action, cause
        super().__init__(
            f"{backend}: could not {action}: {cause}. No task changed state; "
            "the run goes on by itself when this is mended, or with `matterstack resume`."
        )


class TransportError(BackendUnavailable):
    """A host could not be reached, or the connection to it broke.

    ``started``: whether the command may have begun, so that nothing is known of what it did.
    """

    def __init__(self, host: str, cause: str, *, started: bool) -> None:
        self.started = started
        super().__init__(host, "run a command", cause)


class AccessError(MatterStackError):
    """A host will not be used before a person does something: an unknown host key, a refused login.

    Trying again by itself would change nothing, and could lock an account.
    """

    def __init__(self, host: str, problem: str, remedy: str) -> None:
        self.host, self.problem, self.remedy = host, problem, remedy
        super().__init__(f"{host}: {problem}. Nothing was submitted, no task changed state; {remedy}")


class LoginRefused(AccessError):
    """A host refused our keys and answers."""


class SubmitInDoubt(MatterStackError):
    """Whether the scheduler has the job is not known yet; submitting it again settles it, and starts no second."""

    def __init__(self, detail: str, *, again_s: float) -> None:
        self.detail, self.again_s = detail, again_s
        super().__init__(f"{detail}. It is not known yet whether the job was submitted; this is looked up again.")


class SubmitAbsentError(MatterStackError):
    """The attempt was not submitted, and no late command can submit it any more."""


class SubmitHeld(MatterStackError):
    """The scheduler takes no more jobs for now, for instance at a QOS limit; the task waits and is tried again."""

    def __init__(self, detail: str, *, again_s: float) -> None:
        self.detail, self.again_s = detail, again_s
        super().__init__(f"{detail}. Nothing was submitted; it is tried again later.")


class BackendBroken(MatterStackError):
    """A backend failed in a way that it should not; its own error is the cause of this one."""

    def __init__(self, backend: str, error: BaseException) -> None:
        self.backend = backend
        super().__init__(
            f"backend {backend} failed with {type(error).__name__}: {error}. The run stopped, nothing more was "
            "recorded, tasks go on; mend the backend, then `matterstack resume`."
        )


class SubmitRefusedError(MatterStackError):
    """The backend will not take this task as it is; trying again unchanged would be refused again."""


class UnknownJob(MatterStackError):
    """The backend has never had a job of this id."""

    def __init__(self, backend: str, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"{backend}: no job {job_id!r} was ever submitted here. Check the id and workspace_root.")


class FilesUnsupported(MatterStackError):
    """The backend has no way to hand out its jobs' files."""

    def __init__(self, backend: str) -> None:
        super().__init__(
            f"backend {backend} does not hand out files of its jobs: it has neither `workdir(job_id)` nor "
            "`retrieve`. Give it one of them, or pass the data between tasks in another way."
        )


class IllegalTransition(MatterStackError):
    """An event does not fit the state of its task; it was not recorded."""

    def __init__(self, task_id: str, event: str, state: str) -> None:
        self.task_id, self.event, self.state = task_id, event, state
        super().__init__(f"task {task_id!r} is {state}: {event} cannot follow. Nothing was recorded.")


class RunError(MatterStackError):
    """A run cannot be started, resumed or changed as asked; nothing was started."""


class RunBusy(RunError):
    """Another controller drives this run."""


class UnknownName(MatterStackError):
    """A run, task or profile of this name does not exist; the message has the nearest one that does."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name = kind, name
        super().__init__(f"no {kind} {name!r}{_with_hint(nearest(name, known), hint)}")


def _with_hint(text: str, hint: str) -> str:
    if not hint:
        return text
    return f"{text}{' ' if text.endswith('?') else '. '}{hint}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``". Did you mean 'x'?"``, or the known names where none is near, or ``""`` where there are none."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f". Did you mean {close[0]!r}?"
    if not names:
        return ""
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f". Known: {shown}"
