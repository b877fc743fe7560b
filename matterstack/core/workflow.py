"""What the user writes: tasks and workflows, checked when they are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, is_
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Final, TypeGuard

from msgspec import Struct
from msgspec.structs import fields, force_setattr

from matterstack.errors import SpecError, WorkflowError, nearest

ID_MAX: Final = 128
DEFAULT_RETRY: Final = "if-not-started"
RETRIES: Final = ("never", "if-not-started", "infrastructure", "always")
# The attempt directory is shared with the task's own files, so these names are taken.
RESERVED_FILES: Final = ("stdout.txt", "stderr.txt")
RESERVED_PREFIX: Final = ".matterstack"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_EMPTY: Final[Mapping[str, str]] = MappingProxyType({})


class OutputRef(Struct, frozen=True):
    """A file that another task writes, named relative to that task's directory."""

    task_id: str
    path: str


class Task(Struct, frozen=True):
    """One shell command with its files, resources and dependencies. Immutable.

    Args:
        command: Run by ``/bin/sh -c`` in the task's own directory.
        task_id: Name of the task, the same in every run of the workflow: 1 to 128 of ``A-Z a-z 0-9 . _ -``,
            beginning with a letter or digit.
        files: Input files by name in the task's directory: text, a ``Path`` (its content is part of the
            spec's hash), or ``upstream.output("name")``, which also makes the dependency.
        env: Environment variables, added to those of the host.
        dependencies: Tasks, or ids of tasks, that must have completed before this one starts.
        cores: CPU cores, at least 1.
        memory_gb: Memory in GB, above 0; ``None`` leaves it to the backend.
        gpus: GPUs, at least 0.
        time_limit_minutes: Wall time in minutes, above 0; after it the task is ended and FAILED with reason
            TIMEOUT. ``None``: no limit of our own.
        image: Container image; ignored by LocalBackend.
        allow_failure: Dependents run, and the run counts as done, even when this task fails.
        allow_dependency_failure: This task runs even when its dependencies failed.
        outputs: Glob patterns, relative to the task's directory, of the files worth keeping: what remote
            backends bring back, and what ``matterstack clean`` leaves.
        secrets: Names of environment variables whose values must be there when the task starts and are
            recorded nowhere.
        retry: Which ends are tried again by themselves: ``"never"``, ``"if-not-started"`` (default),
            ``"infrastructure"`` (also node failures, interruptions and losses) or ``"always"``.
        max_attempts: Most attempts that ``retry`` makes, at least 1.
        profile: Name of the profile to run with, where it is not the run's.

    Raises:
        SpecError: A field has a wrong type or makes no sense; it names the task and the field.

    Example:
        ``Task("python relax.py", "relax-Al", files={"relax.py": Path("relax.py")}, cores=2)``
    """

    command: str
    task_id: str
    files: Mapping[str, str | Path | OutputRef] = _EMPTY
    env: Mapping[str, str] = _EMPTY
    dependencies: Sequence[str | Task] = ()
    cores: int = 1
    memory_gb: float | None = None
    gpus: int = 0
    time_limit_minutes: float | None = None
    image: str | None = None
    allow_failure: bool = False
    allow_dependency_failure: bool = False
    outputs: Sequence[str] = ()
    secrets: Sequence[str] = ()
    retry: str = DEFAULT_RETRY
    max_attempts: int = 3
    profile: str = ""

    def __post_init__(self) -> None:
        if problem := id_problem(self.task_id):
            raise SpecError(_shown(self.task_id), "task_id", problem)
        if not _is_text(self.command) or not self.command.strip():
            raise SpecError(self.task_id, "command", "must be a non-empty text without NUL characters")
        if self.files is not _EMPTY:
            _check_files(self)
        if self.env is not _EMPTY:
            _check_env(self)
        if self.dependencies != ():
            force_setattr(self, "dependencies", _dependency_ids(self))
        for field in ("outputs", "secrets"):
            if getattr(self, field) != ():
                _check_names(self, field)
        if not all(map(is_, _resources(self), _DEFAULT_RESOURCES)):
            _check_resources(self)

    def output(self, path: str) -> OutputRef:
        """Return a reference to a file that this task writes, for another task's ``files``.

        Args:
            path: Name of the file relative to this task's directory, e.g. ``"energy.json"``.

        Raises:
            SpecError: The name is absolute or leaves the directory.
        """
        problem = file_name_problem(path, reserved=False)
        if problem:
            raise SpecError(self.task_id, "output", problem)
        return OutputRef(self.task_id, path)

    def needs(self) -> Sequence[str]:
        """Return the ids of all tasks this one waits for, without doubles, in the order they were named."""
        refs = [source.task_id for source in self.files.values() if isinstance(source, OutputRef)]
        ids: list[str] = list(self.dependencies)  # type: ignore[arg-type]  # ids since __post_init__
        return list(dict.fromkeys(ids + refs)) if refs else ids


# Nearly all tasks leave most of these as they are; comparing them at once halves the cost of making a task.
_RESOURCES: Final = (
    *("cores", "gpus", "max_attempts", "memory_gb", "time_limit_minutes", "retry", "image"),
    *("allow_failure", "allow_dependency_failure", "profile"),
)
_resources: Final = attrgetter(*_RESOURCES)
_DEFAULT_RESOURCES: Final = tuple({field.name: field.default for field in fields(Task)}[name] for name in _RESOURCES)


ID_RULE: Final = (
    f"must be 1 to {ID_MAX} characters out of A-Z a-z 0-9 . _ - and begin with a letter or digit, for it names a "
    "directory and a job"
)


def id_problem(name: object) -> str | None:
    """Return what is wrong with ``name`` as the id of a run or task, or None."""
    return None if isinstance(name, str) and len(name) <= ID_MAX and _ID.match(name) else ID_RULE


def _is_text(value: object) -> TypeGuard[str]:
    """Return whether it is text that can stand in a script: no NUL, and nothing that UTF-8 cannot say."""
    if not isinstance(value, str) or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def file_name_problem(name: object, *, reserved: bool = True) -> str | None:
    """Return what is wrong with ``name`` as a file inside a task's directory, or None."""
    if not _is_text(name) or not name:
        return f"file name {name!r} must be a non-empty text without NUL characters"
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return f"file name {name!r} must stay inside the task's directory: relative, without '..'"
    if len(name.encode()) > 1024 or any(len(part.encode()) > 255 for part in path.parts):
        return f"file name {name[:40]!r}… is longer than file systems take"
    if str(path) != name:
        return f"file name {name!r} must be written {str(path)!r}"
    if reserved and (path.parts[0] in RESERVED_FILES or path.parts[0].startswith(RESERVED_PREFIX)):
        return f"file name {name!r} is taken by MatterStack's own record of the task"
    return None


def _check_files(task: Task) -> None:
    if not isinstance(task.files, Mapping):
        raise SpecError(task.task_id, "files", f"must map names to contents, not be {_kind(task.files)}")
    for name, source in task.files.items():
        problem = file_name_problem(name) or _source_problem(name, source)
        if problem:
            raise SpecError(task.task_id, "files", problem)
    for name in task.files:
        for parent in PurePath(name).parents if "/" in name else ():
            if str(parent) in task.files:
                raise SpecError(
                    task.task_id, "files", f"{str(parent)!r} cannot be a file and the directory of {name!r}"
                )


def _source_problem(name: str, source: object) -> str | None:
    match source:
        case OutputRef():
            wrong = file_name_problem(source.path, reserved=False)
            return f"{name!r}: {wrong}" if wrong else None
        case Path():
            return f"{name!r}: a path cannot have NUL characters" if "\0" in str(source) else None
        case str():
            return None if _is_text(source.replace("\0", "")) else f"{name!r} has characters that UTF-8 cannot say"
    return f"{name!r} must be text, a Path or another task's output, not {_kind(source)}"


def _check_env(task: Task) -> None:
    if not isinstance(task.env, Mapping):
        raise SpecError(task.task_id, "env", f"must map names to values, not be {_kind(task.env)}")
    for name, value in task.env.items():
        if not isinstance(name, str) or not _ENV_NAME.match(name):
            raise SpecError(task.task_id, "env", f"{name!r} is not a name a shell can export")
        if not _is_text(value):
            raise SpecError(
                task.task_id, "env", f"the value of {name} must be text without NUL characters, not {value!r}"
            )


def _dependency_ids(task: Task) -> tuple[str, ...]:
    if isinstance(task.dependencies, (str, Task)) or not isinstance(task.dependencies, Iterable):
        raise SpecError(task.task_id, "dependencies", "must be a list of tasks or task ids, not a single one")
    ids = [d.task_id if isinstance(d, Task) else d for d in task.dependencies]
    for one in ids:
        if not isinstance(one, str):
            raise SpecError(task.task_id, "dependencies", f"must be tasks or task ids, not {_kind(one)}")
    return tuple(dict.fromkeys(ids))


def _check_names(task: Task, field: str) -> None:
    names = getattr(task, field)
    if not _is_list(names) or not all(_is_text(name) and name for name in names):
        raise SpecError(task.task_id, field, "must be a list of non-empty texts")
    for name in names:
        problem = file_name_problem(name, reserved=False) if field == "outputs" else None
        if field == "secrets" and not _ENV_NAME.match(name):
            problem = f"{name!r} is not a name a shell can export"
        if problem:
            raise SpecError(task.task_id, field, problem)
    force_setattr(task, field, tuple(names))


def _is_list(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _check_resources(task: Task) -> None:
    if type(task.cores) is not int or task.cores < 1:
        raise SpecError(task.task_id, "cores", f"must be a whole number of at least 1, not {task.cores!r}")
    if type(task.gpus) is not int or task.gpus < 0:
        raise SpecError(task.task_id, "gpus", f"must be a whole number of at least 0, not {task.gpus!r}")
    if type(task.max_attempts) is not int or task.max_attempts < 1:
        raise SpecError(
            task.task_id, "max_attempts", f"must be a whole number of at least 1, not {task.max_attempts!r}"
        )
    for field, unit in (("memory_gb", "GB"), ("time_limit_minutes", "minutes")):
        value = getattr(task, field)
        if value is not None and not (
            isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
        ):
            raise SpecError(task.task_id, field, f"must be a number of {unit} above 0, not {value!r}")
    _check_choices(task)


def _check_choices(task: Task) -> None:
    if task.retry not in RETRIES:
        raise SpecError(
            task.task_id, "retry", f"{task.retry!r} is not a way to retry{nearest(str(task.retry), RETRIES)}"
        )
    for field in ("allow_failure", "allow_dependency_failure"):
        if type(getattr(task, field)) is not bool:
            raise SpecError(task.task_id, field, f"must be True or False, not {getattr(task, field)!r}")
    if type(task.profile) is not str or (task.profile and id_problem(task.profile)):
        raise SpecError(task.task_id, "profile", f"must be the name of a profile, not {task.profile!r}")
    if task.image is not None and (not _is_text(task.image) or not task.image):
        raise SpecError(task.task_id, "image", f"must be the name of a container image, not {task.image!r}")


def _kind(value: object) -> str:
    return type(value).__name__


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else text[:40] + "…"


class Workflow:
    """Tasks that belong together, in the order they were added.

    Args:
        name: Name of the workflow and, unless another is given, of its run: same rule as ``task_id``.
        tasks: Tasks to begin with.

    Raises:
        WorkflowError: The name is no id, or two tasks have one id.

    Example:
        ``workflow = Workflow("scan"); first = workflow.add(Task("date > now", "first", outputs=["now"]))``
    """

    def __init__(self, name: str = "", tasks: Iterable[Task] = ()) -> None:
        if name and id_problem(name):
            raise WorkflowError(f"workflow name {_shown(name)!r} {ID_RULE}")
        self.name = name
        self.tasks: dict[str, Task] = {}
        for task in tasks:
            self.add(task)

    def add(self, task: Task) -> Task:
        """Return ``task`` after adding it.

        Raises:
            WorkflowError: It is not a Task, or its id is taken.
        """
        if not isinstance(task, Task):
            raise WorkflowError(f"a workflow takes Task objects, not {_kind(task)}. Nothing was added.")
        if task.task_id in self.tasks:
            raise WorkflowError(
                f"two tasks have the id {task.task_id!r}. The second was not added; give it another task_id."
            )
        self.tasks[task.task_id] = task
        return task

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks.values())

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, task_id: str) -> Task:
        return self.tasks[task_id]

    def __contains__(self, task_id: object) -> bool:
        return task_id in self.tasks

    def dependencies(self) -> dict[str, Sequence[str]]:
        """Return the ids each task waits for, for the tasks that wait for any, checked.

        Raises:
            WorkflowError: A dependency is not in the workflow, or tasks wait for each other in a cycle,
                which is named in order.
        """
        needs = {task.task_id: found for task in self if (found := task.needs())}
        for task_id, ids in needs.items():
            for one in ids:
                if one not in self.tasks:
                    hint = nearest(one, self.tasks)
                    raise WorkflowError(
                        f"task {task_id!r} depends on {one!r}, which is not in the workflow{hint}"
                        f"{'' if hint.endswith('?') else '.'} Nothing was started."
                    )
        cycle = find_cycle(needs)
        if cycle:
            raise WorkflowError(f"tasks wait for each other: {' -> '.join(cycle)}. Nothing was started.")
        return needs


def find_cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ids of one cycle, each depending on the next and the first repeated last, or ``[]``."""
    done: set[str] = set()
    for root in needs:
        if root in done:
            continue
        path: dict[str, Iterator[str]] = {root: iter(needs[root])}
        while path:
            here, rest = next(reversed(path.items()))
            following = next(rest, None)
            if following is None:
                done.add(here)
                path.popitem()
            elif following in path:
                ids = list(path)
                return [*ids[ids.index(following) :], following]
            elif following not in done and following in needs:
                path[following] = iter(needs[following])
    return []
