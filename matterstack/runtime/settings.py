"""A backend of a run with the profile that the journal remembers it by, and the lanes made of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from matterstack.core.budget import BUDGET
from matterstack.core.workflow import OutputRef, Workflow
from matterstack.errors import FilesUnsupported
from matterstack.runtime.backends.base import ComputeBackend
from matterstack.runtime.budget import checked_budget
from matterstack.runtime.worker import BackendWorker
from matterstack.runtime.workers import Lane, Workers


class Settings(Struct):
    """A backend, and the profile that the journal remembers it by; ``others`` by the names that tasks use."""

    backend: ComputeBackend
    profile: Mapping[str, Any]
    others: Mapping[str, Settings] = {}

    def of(self, profile: str) -> Settings:
        """Return the settings for tasks that name ``profile``; none names the run's own."""
        return self.others.get(profile, self)

    def each(self) -> list[Settings]:
        """Return these and the others, the run's own first."""
        return [self, *self.others.values()]

    def with_budget(self, budget: float | None) -> Settings:
        """Return these with this budget instead of their own; None leaves those.

        Raises:
            RunError: It is no budget.
        """
        if budget is None:
            return self
        plain = {name: Settings(one.backend, {**one.profile, BUDGET: None}) for name, one in self.others.items()}
        return Settings(self.backend, {**self.profile, BUDGET: checked_budget(budget)}, plain)


def check_files(workflow: Workflow, settings: Settings) -> None:
    """Refuse tasks that take outputs from a backend that hands out none."""
    for task in workflow:
        for source in task.files.values():
            if isinstance(source, OutputRef):
                kind = type(settings.of(workflow[source.task_id].profile).backend)
                if kind.workdir is ComputeBackend.workdir and kind.retrieve is ComputeBackend.retrieve:
                    raise FilesUnsupported(kind.__name__)


def place_of(profile: Mapping[str, Any]) -> str:
    """Return where a profile's jobs are: a directory, on a host where it is not this one."""
    root, ssh = profile.get("workspace_root") or "", profile.get("ssh")
    return f"{ssh['hostname']}:{root}" if ssh else str(root)


def lanes_of(settings: Settings, wake: threading.Event) -> Workers:
    """Return a lane for each backend."""

    def lane(profile: str, chosen: Settings) -> Lane:
        return Lane(profile, BackendWorker(chosen.backend, wake.set), str(chosen.profile.get("retry") or ""))

    return Workers(lane("", settings), {name: lane(name, chosen) for name, chosen in settings.others.items()})
