"""Workflows from files: Python or YAML."""

from __future__ import annotations

from pathlib import Path

from matterstack.core.workflow import Workflow
from matterstack.errors import ConfigError


def load_workflow(path: Path) -> Workflow:
    """Return the workflow of a file; without a name of its own it is called as the file.

    Args:
        path: ``*.py`` that defines ``workflow`` (a Workflow), or ``*.yaml``/``*.yml`` with ``tasks``.

    Raises:
        ConfigError: The file cannot be read, or has no workflow, or one that makes no sense.
    """
    if path.suffix in (".yaml", ".yml"):
        from matterstack.config.yaml_workflow import read_yaml_workflow  # yaml takes 20 ms

        workflow = read_yaml_workflow(path)
    elif path.suffix == ".py":
        workflow = _from_python(path)
    else:
        raise ConfigError(f"{path}: a workflow is a .py, .yaml or .yml file. Nothing was started.")
    workflow.name = workflow.name or path.stem
    return workflow


def _from_python(path: Path) -> Workflow:
    from matterstack.config.python_file import read_python  # imports runpy only for Python files

    names = read_python(path)
    found = names.get("workflow")
    if isinstance(found, Workflow):
        return found
    others = {id(value): value for value in names.values() if isinstance(value, Workflow)}
    if len(others) == 1:
        return next(iter(others.values()))
    what = "several workflows, none of them" if others else "no workflow"
    raise ConfigError(
        f"{path}: defines {what} named 'workflow'. Nothing was started; add `workflow = Workflow(…)` at the top level."
    )
