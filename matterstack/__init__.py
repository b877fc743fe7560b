"""MatterStack: an event-sourced runtime for computational campaigns.

What it offers is imported when first used, so that ``import matterstack`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matterstack.api import resume, run_workflow
    from matterstack.core.workflow import OutputRef, Task, Workflow
    from matterstack.errors import MatterStackError
    from matterstack.runtime.backends.base import ComputeBackend, JobStatus
    from matterstack.runtime.result import TaskResult, WorkflowResult

__version__ = "0.1.0"

__all__ = [
    "ComputeBackend",
    "JobStatus",
    "MatterStackError",
    "OutputRef",
    "Task",
    "TaskResult",
    "Workflow",
    "WorkflowResult",
    "__version__",
    "resume",
    "run_workflow",
]

_HOMES = {
    "ComputeBackend": "matterstack.runtime.backends.base",
    "JobStatus": "matterstack.runtime.backends.base",
    "MatterStackError": "matterstack.errors",
    "OutputRef": "matterstack.core.workflow",
    "Task": "matterstack.core.workflow",
    "TaskResult": "matterstack.runtime.result",
    "Workflow": "matterstack.core.workflow",
    "WorkflowResult": "matterstack.runtime.result",
    "resume": "matterstack.api",
    "run_workflow": "matterstack.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
