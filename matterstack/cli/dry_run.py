"""``run --dry-run``: what would be submitted, from the workflow and the profiles alone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from matterstack import api
from matterstack.cli.text import as_json, number
from matterstack.core.schedule import Schedule
from matterstack.core.workflow import OutputRef, Task, Workflow
from matterstack.runtime import staging
from matterstack.runtime.backends.base import ComputeBackend, Submission
from matterstack.runtime.opening import find_journal
from matterstack.runtime.prepare import checked_run_id
from matterstack.runtime.settings import Settings

# The real ones depend on the journal, which is not opened.
_TOKEN: Final = f"ms-{'x' * 26}"
_DIRECTIVE: Final = "#SBATCH "


def dry_run(workflow: Workflow, arguments: argparse.Namespace) -> int:
    """Print what would be submitted; connect to nothing, write nothing."""
    run = checked_run_id(workflow, arguments.run_id)
    needs = workflow.dependencies()
    named = {task.profile for task in workflow if task.profile}
    settings = api.chosen_settings(arguments.profile, None, find_journal(arguments.journal), arguments.config, named)
    check_inputs(workflow)
    planned = [
        one
        for wave in _waves(workflow, needs)
        for one in _submissions(run, [workflow[name] for name in wave], settings)
    ]
    if arguments.json:
        print(as_json({"run": run, "submissions": planned}))
        return 0
    for one in planned:
        print("\n".join(_lines(one)), end="\n\n")
    print(f"{run}: {number(len(workflow), 'task')} in {number(len(planned), 'submission')}. Nothing was submitted.")
    return 0


def check_inputs(workflow: Workflow) -> None:
    """Refuse inputs that do not exist; those that do are not read."""
    for task in workflow:
        for source in task.files.values():
            if isinstance(source, Path) and not source.is_file():
                staging.digest(task.task_id, source)


def _waves(workflow: Workflow, needs: dict[str, Sequence[str]]) -> Iterator[list[str]]:
    """Yield the tasks that become ready together, if all of a wave ended at once."""
    schedule = Schedule(needs, ())
    wave = [name for name in workflow.tasks if schedule.is_ready(name)]
    while wave:
        yield wave
        freed = {task for name in wave for task, _ in schedule.settle(name, ok=True)}
        wave = [name for name in workflow.tasks if name in freed]


def _submissions(run: str, tasks: Sequence[Task], settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield what goes to each profile's backend, in the order of the first tasks."""
    by_profile: dict[str, list[Task]] = {}
    for task in tasks:
        by_profile.setdefault(task.profile if task.profile in settings.others else "", []).append(task)
    for name, group in by_profile.items():
        chosen = settings.of(name)
        arrays = chosen.backend.arrays(group)
        grouped = {position for positions in arrays for position in positions}
        alone = [[position] for position in range(len(group)) if position not in grouped]
        for positions in sorted([*arrays, *alone]):
            members = [_submission(run, group[p], i if len(positions) > 1 else None) for i, p in enumerate(positions)]
            yield {"profile": chosen.profile["name"], **_shown(chosen.backend, members)}


def _submission(run: str, task: Task, index: int | None) -> Submission:
    return Submission(task, run, 1, _TOKEN, array=_TOKEN if index is not None else "", index=index)


def _shown(backend: ComputeBackend, members: Sequence[Submission]) -> dict[str, Any]:
    kind = backend.settings().get("backend") or type(backend).__name__
    tasks = [{"task": one.task.task_id, "command": one.task.command, "files": _files(one.task)} for one in members]
    if kind != "slurm":
        return {"backend": kind, "tasks": tasks}
    # Nothing of Slurm is imported for local runs.
    from matterstack.runtime.backends.hpc.backend import SlurmBackend
    from matterstack.runtime.backends.hpc.batch import batches, place
    from matterstack.runtime.backends.hpc.job_script import attempt_files
    from matterstack.runtime.backends.hpc.preparing import script_of

    assert isinstance(backend, SlurmBackend)
    (batch,) = batches(members)
    script = script_of(batch, backend.options)
    for task, one in zip(tasks, members, strict=True):
        task["directory"] = f"{backend.root}/{place(one)}"
        task["environment"] = attempt_files(one)["env"].decode()
    head = takewhile(lambda line: line.startswith("#"), script.splitlines())
    directives = [line.removeprefix(_DIRECTIVE) for line in head if line.startswith(_DIRECTIVE)]
    return {"backend": kind, "tasks": tasks, "array": batch.indices, "directives": directives, "script": script}


def _files(task: Task) -> dict[str, str]:
    return {
        name: f"{source.path} of {source.task_id}" if isinstance(source, OutputRef) else _source(source)
        for name, source in task.files.items()
    }


def _source(source: str | Path) -> str:
    return str(source) if isinstance(source, Path) else f"text of {number(len(source), 'character')}"


def _lines(planned: dict[str, Any]) -> Iterator[str]:
    tasks = planned["tasks"]
    what = f"array of {number(len(tasks), 'task')}, elements {planned['array']}" if planned.get("array") else "job"
    if "script" in planned:
        yield f"== {planned['profile']}: {what}"
        yield planned["script"].rstrip("\n")
    for index, task in enumerate(tasks):
        element = f"element {index}, " if planned.get("array") else ""
        where = f" in {task['directory']}" if "directory" in task else ""
        yield f"-- {planned['profile']}: {element}task {task['task']}{where}"
        yield from (f"file {name}: {source}" for name, source in task["files"].items())
        if "environment" in task:
            yield task["environment"].rstrip("\n")
        yield task["command"]
