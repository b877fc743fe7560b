"""What we send: the options of sbatch, the script of a job, and the files that each attempt brings."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from shlex import quote
from typing import Final

from matterstack.core.workflow import Task
from matterstack.errors import AccessError
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc.job_shell import BEGIN, BINDABLE, END, MODULES, PROLOGUE, RUN
from matterstack.runtime.backends.hpc.layout import MAP_ROWS, SUBMISSIONS
from matterstack.runtime.backends.hpc.options import SlurmOptions

_PLAIN_LINE: Final = re.compile(r"(module|ml)( +[A-Za-z0-9_./+:@%-]+)+", re.ASCII)
_ARGUMENT_MAX: Final = 100_000  # bytes; one argument of exec may have 128 KiB on Linux
_MEMORY_MAX: Final = 2**53  # MB; no machine has it, and 1e308 GB would be infinitely many
_MINUTES_MAX: Final = 2**31 - 2  # Slurm keeps limits as 32-bit numbers of minutes


class SecretMissing(AccessError):
    """A secret of a task is not in this process's environment; the run pauses until somebody sets it."""

    def __init__(self, task_id: str, names: Sequence[str]) -> None:
        listed = ", ".join(names)
        super().__init__(
            f"task {task_id!r}",
            f"secret {listed} is not in the environment",
            f"set {listed} and go on with `matterstack resume`.",
        )


def format_walltime(seconds: float) -> str:
    """Return a time limit as ``sbatch --time`` takes it.

    Args:
        seconds: Limit in seconds, above 0; rounded up, since Slurm counts in minutes.

    Returns:
        ``"D-HH:MM:00"``, e.g. ``"1-00:01:00"`` for 86401 s.

    Raises:
        ValueError: ``seconds`` is not above 0 (Slurm reads 0 as "no limit").

    Source: sbatch manual, option ``--time``.
    """
    if not seconds > 0:
        raise ValueError(f"a time limit must be above 0 s, not {seconds!r}")
    minutes = math.ceil(min(seconds / 60, _MINUTES_MAX))
    days, rest = divmod(minutes, 24 * 60)
    return f"{days}-{rest // 60:02}:{rest % 60:02}:00"


def directives(task: Task, options: SlurmOptions) -> tuple[str, ...]:
    """Return the options of sbatch for a task, e.g. ``("--account=m1234", "--cpus-per-task=4", …)``."""
    own: list[tuple[str, str | bool]] = [
        (name, getattr(options, name))
        for name in ("account", "partition", "qos", "constraint", "gres", "nodes", "ntasks")
        if getattr(options, name)
    ]
    own.append(("cpus-per-task", str(task.cores)))
    if task.memory_gb is not None:
        own.append(("mem", f"{math.ceil(min(task.memory_gb * 1024, _MEMORY_MAX))}M"))
    if task.gpus:
        own.append(("gpus", str(task.gpus)))
    if task.time_limit_minutes is not None:
        own.append(("time", format_walltime(task.time_limit_minutes * 60)))
    own += options.extra.items()
    own.append(("requeue" if _may_restart(task, options) else "no-requeue", True))
    own.append(("export", "ALL"))  # of an environment that is nearly empty, see submit_script
    # A TERM would end the batch shell, and the job as FAILED. Slurm may be 30 s early: not at once in a short job.
    short = task.time_limit_minutes is not None and task.time_limit_minutes <= 1
    own.append(("signal", f"B:USR1@{10 if short else 60}"))
    return tuple(f"--{name}" if value is True else f"--{name}={value}" for name, value in own)


def _may_restart(task: Task, options: SlurmOptions) -> bool:
    """Return whether Slurm may start the job again by itself; secrets are gone by then, a retry brings them anew."""
    return options.requeue and not task.secrets


def array_key(task: Task, options: SlurmOptions) -> Hashable:
    """Return what tasks must have in common to go as one job array."""
    return directives(task, options), task.image


def job_script(
    *,
    submission: str,
    name: str,
    task: Task,
    options: SlurmOptions,
    array: bool,
) -> str:
    """Return the script of a submission, for POSIX ``sh``; sbatch is called in the workspace root.

    Args:
        submission: Token of the lone attempt or of the array; the map of its attempts lies in its directory.
        name: The job's name.
        task: Any of its tasks: those of an array have directives and image in common.
        options: The profile's.
        array: Whether it is a job array.
    """
    # Paths are relative to the workspace, where sbatch is called: so none of its characters matters here.
    base = f"{SUBMISSIONS}/{submission}"
    own = [f"--job-name={name}", f"--output={base}/slurm{'.%a' if array else ''}.out", *directives(task, options)]
    header = [f"#SBATCH {_option(text)}" for text in own]
    return "\n".join(
        [
            "#!/bin/sh",
            *header,
            MODULES.format(),
            BEGIN.format(base=base, rows=MAP_ROWS, requeue="1" if _may_restart(task, options) else ""),
            *([BINDABLE] if task.image is not None else []),
            *_set_up(options),
            RUN.format(cores=task.cores, container=_container(task, options)),
            END,
        ]
    )


def _set_up(options: SlurmOptions) -> Iterator[str]:
    """Yield the lines of the profile: each module has to load, a prologue is for itself to say what it needs."""
    if options.modules or options.prologue:
        yield "ms_modules"
    for line in options.modules:
        yield f"{line if _PLAIN_LINE.fullmatch(line) else f'eval {quote(line)}'} || exit"
    if options.prologue:
        yield PROLOGUE.format(lines=quote("\n".join([*options.prologue, "ms_parsed=1"])))


def _option(text: str) -> str:
    """Return an option as a line of ``#SBATCH`` takes it: sbatch splits at blanks, and knows double quotes."""
    name, equals, value = text.partition("=")
    plain = value.isascii() and all(char.isalnum() or char in "._-:,@%+/=*&|()[]" for char in value)
    if not equals or plain:
        return text
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'


def _container(task: Task, options: SlurmOptions) -> str:
    if task.image is None:
        return ""
    image = f"./{task.image}" if task.image.startswith("-") else task.image
    return f'{options.container} exec --bind "$PWD:$PWD" --pwd "$PWD" {quote(image)} '


def attempt_files(submission: Submission) -> dict[str, bytes]:
    """Return what an attempt brings to its own directory: its command and environment as a piece of shell.

    Names of the user become arguments of env: a shell has meanings of its own for some. ``ms_given``: how the command
    is given to ``/bin/sh``. It is set last, so that a file that was cut is noticed.
    """
    task = submission.task
    ours = {
        "MATTERSTACK_RUN": submission.run,
        "MATTERSTACK_TASK": task.task_id,
        "MATTERSTACK_ATTEMPT": str(submission.attempt),
        "MATTERSTACK_CORES": str(task.cores),
    }
    lines = [f"export {_assigned(ours)}", f"set -- {_assigned(task.env)}".rstrip()]
    if task.secrets:
        lines.append("ms_secrets=1")
    command = task.command.encode()
    if len(command) > _ARGUMENT_MAX:
        return {"command": command, "env": "\n".join([*lines, "ms_given=file\n"]).encode()}
    lines.append(f"ms_command={quote(task.command)}")
    return {"env": "\n".join([*lines, "ms_given=argument\n"]).encode()}


def _assigned(names: Mapping[str, str]) -> str:
    return " ".join(quote(f"{name}={value}") for name, value in names.items())


def secrets_file(task: Task, environ: Mapping[str, str]) -> bytes:
    """Return the task's secrets as lines of shell.

    Raises:
        SecretMissing: One is not in ``environ``.
    """
    missing = [name for name in task.secrets if name not in environ]
    if missing:
        raise SecretMissing(task.task_id, missing)
    return "".join(f"export {name}={quote(environ[name])}\n" for name in task.secrets).encode(
        "utf-8", "surrogateescape"
    )
