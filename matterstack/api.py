"""The library's functions: run a workflow, resume a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from matterstack.core.workflow import Workflow
from matterstack.runtime import run as runs
from matterstack.runtime.backends.base import ComputeBackend
from matterstack.runtime.drive import Progress
from matterstack.runtime.opening import JOURNAL, find_journal
from matterstack.runtime.result import WorkflowResult
from matterstack.runtime.settings import Settings

if TYPE_CHECKING:
    from matterstack.config.profiles import Profiles


def run_workflow(
    workflow: Workflow,
    profile: str | None = None,
    *,
    backend: ComputeBackend | None = None,
    journal: str | os.PathLike[str] | None = None,
    run_id: str | None = None,
    config: str | os.PathLike[str] | None = None,
    fail_fast: bool = False,
    replace: bool = False,
    rerun: Sequence[str] = (),
    retry_failed: bool = False,
    retry_interrupted: bool = False,
    budget_core_hours: float | None = None,
    progress: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> WorkflowResult:
    """Return the results of the workflow after running what is not done yet.

    The same run id in the same journal is the same run: completed tasks whose spec is unchanged are not run
    again, changed ones and what depends on them are.

    Args:
        workflow: The tasks.
        profile: Name of the profile to run with; by default the configuration's default, or ``"local"``.
        backend: A backend to use instead of a profile's.
        journal: Path of the journal; by default ``.matterstack/journal.db`` at or above the current directory.
        run_id: Id of the run; by default the workflow's name.
        config: A profile file that is looked into first.
        fail_fast: After the first failure submit nothing more; what runs goes on.
        rerun: Ids of tasks to run again, also when they are done and unchanged; what depends on them follows.
        replace: Cancel live attempts of tasks that the workflow changes, instead of refusing.
        retry_failed: Try all failed tasks again.
        retry_interrupted: Try those again of which it is not known how they ended.
        budget_core_hours: Core hours after whose use nothing more is submitted, instead of the profile's; what runs
            goes on, and ``result.budget`` tells how the run stands.
        announce: Called with what the workflow changes in a run that exists, before it is recorded.
        progress: Called a few times a second with a `Progress`.

    Raises:
        MatterStackError: It cannot be run as it is (see `matterstack.errors`); the message says what to do.
        journal.JournalError: The journal cannot be opened or written.
        KeyboardInterrupt: Ctrl-C; running tasks go on, and running the same again resumes.
        ValueError: Both ``profile`` and ``backend`` are given.
        TypeError: ``workflow`` or ``backend`` is something else.

    Example:
        ``result = run_workflow(Workflow("hello", [Task("echo hello", "one")])); print(result["one"].logs())``
    """
    if not isinstance(workflow, Workflow):
        raise TypeError(f"run_workflow takes a Workflow, not {type(workflow).__name__}: Workflow(name, tasks)")
    if backend is not None and not isinstance(backend, ComputeBackend):
        raise TypeError(f"backend must be a ComputeBackend, not {backend!r}; the name of a profile goes to `profile`")
    if profile is not None and backend is not None:
        raise ValueError("give either a profile or a backend, not both")
    path = find_journal(journal)
    options = runs.Options(
        fail_fast=fail_fast,
        replace=replace,
        rerun=rerun,
        announce=announce,
        retry_failed=retry_failed,
        retry_interrupted=retry_interrupted,
        observe=progress,
        budget=budget_core_hours,
    )
    named = {task.profile for task in workflow if task.profile}
    settings = chosen_settings(profile, backend, path, config, named)
    return runs.run(workflow, path, settings, run_id, options)


def resume(
    run_id: str | None = None,
    profile: str | None = None,
    *,
    backend: ComputeBackend | None = None,
    journal: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    budget_core_hours: float | None = None,
    options: runs.Options | None = None,
) -> WorkflowResult:
    """Return the results of a run after going on with it from the journal alone.

    Args:
        run_id: The run; by default the newest.
        profile: Another profile than the run had.
        backend: Another backend than the run had.
        journal: As for `run_workflow`.
        config: As for `run_workflow`.
        budget_core_hours: As for `run_workflow`; by default the run keeps the budget that it had.
        options: What to retry or cancel, and how to go on.

    Raises:
        UnknownName: There is no such run.
        MatterStackError, journal.JournalError, KeyboardInterrupt: As for `run_workflow`.
    """
    path = find_journal(journal)

    def settings(recorded: Mapping[str, Any], others: Mapping[str, Any]) -> Settings:
        if profile is not None or backend is not None:
            return chosen_settings(profile, backend, path, config, others)
        from matterstack.config.profiles import open_backend  # only where it is needed

        more = {name: Settings(open_backend(one), one) for name, one in others.items()}
        return Settings(open_backend(recorded), recorded, more)

    chosen = options or runs.Options()
    if budget_core_hours is not None:
        chosen = replace(chosen, budget=budget_core_hours)
    return runs.resume(run_id, path, settings, chosen)


def chosen_settings(
    profile: str | None,
    backend: ComputeBackend | None,
    journal: Path,
    config: str | os.PathLike[str] | None,
    named: Collection[str] = (),
) -> Settings:
    """Return the backends to use, and what the journal remembers of them; ``named``: profiles that tasks name."""
    main = None
    if backend is not None:
        main = Settings(backend, {"name": type(backend).__name__, **backend.settings()})
        if not named:
            return main
    from matterstack.config.profiles import settings, settings_for  # only where profiles are used

    profiles = visible_profiles(journal, config)
    main = main or settings(profiles.choose(profile))
    main.others = settings_for(profiles, sorted(set(named) - {main.profile["name"]}))
    return main


def visible_profiles(journal: Path, config: str | os.PathLike[str] | None) -> Profiles:
    """Return the profiles to choose from; the built-in one has its results beside the journal's directory."""
    from matterstack.config.profiles import Profiles  # only where profiles are used

    home = journal.parent.parent if journal.parts[-2:] == JOURNAL.parts else None
    return Profiles(Path(config) if config else None, home)
