"""The rules of the house, read off the source: who imports whom, one door per dependency, small modules."""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("journal", "matterstack")

# What each layer may import beside itself. A name stands for the module and everything below it.
MAY_IMPORT = {
    "journal": (),
    "matterstack.errors": (),
    "matterstack.core": ("matterstack.errors",),
    "matterstack.runtime": ("matterstack.errors", "matterstack.core", "journal"),
    "matterstack.history": ("matterstack.errors", "matterstack.core", "matterstack.runtime"),
    "matterstack.config": ("matterstack.errors", "matterstack.core", "matterstack.runtime"),
    "matterstack.report": ("matterstack.errors", "matterstack.core", "matterstack.runtime", "matterstack.history"),
    "matterstack.provenance": ("matterstack.errors", "matterstack.core", "matterstack.runtime", "matterstack.history"),
    "matterstack.api": (
        "matterstack.errors",
        "matterstack.core",
        "matterstack.runtime",
        "matterstack.history",
        "matterstack.config",
    ),
    "matterstack.cli": (
        "matterstack.api",
        "matterstack.errors",
        "matterstack.core",
        "matterstack.runtime",
        "matterstack.history",
        "matterstack.config",
        "matterstack.report",
        "matterstack.provenance",
    ),
    "matterstack.__main__": ("matterstack.cli",),
}
# The front door re-exports from every layer, each name when it is asked for; only its version is free to all.
EXEMPT = ("matterstack",)
VERSION = "matterstack.__version__"

# The only places where a third-party package may be imported; one that is not here may be nowhere.
DOORS = {
    "msgspec": "matterstack",
    "pandas": "matterstack.history.rows",
    "paramiko": "matterstack.runtime.transports.ssh",
    "rich": "matterstack.cli",
    "rocrate": "matterstack.provenance.crate",
    "sqlite_utils": "journal",
    "transitions": "matterstack.core.machine",
    "yaml": "matterstack.config",
}

# What would let the world into the core: a clock, chance, files, processes, the network, logs.
WORLD = {
    *("asyncio", "glob", "io", "logging", "multiprocessing", "os", "random", "secrets", "select", "shutil"),
    *("signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib", "uuid"),
}
WORLDLY_CALLS = {
    *("exists", "input", "iterdir", "mkdir", "now", "open", "print", "read_bytes", "read_text", "stat"),
    *("today", "unlink", "utcnow", "write_bytes", "write_text"),
}

LINES_MAX = 400
LINES_MEDIAN = 120


def module_name(path: PurePath) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def imports(path: PurePath, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything imported, also inside functions and by ``import_module``."""
    package = path.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            yield node.lineno, computed_name(node.args[0]) if node.args else "<computed>"


def computed_name(name: ast.expr) -> str:
    """Return the part that is known of a name given to ``import_module``."""
    if isinstance(name, ast.JoinedStr) and name.values:
        name = name.values[0]
    return str(name.value).rstrip(".") if isinstance(name, ast.Constant) else "<computed>"


def called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def layer_of(module: str) -> str | None:
    return next((name for name in MAY_IMPORT if within(module, name)), None)


def import_problem(module: str, layer: str, target: str) -> str | None:
    """Return why ``module`` of ``layer`` may not import ``target``, or None."""
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names:
        worldly = within(module, "matterstack.core") and top in WORLD
        return f"imports {top}, which lets the world into the core" if worldly else None
    if top in PACKAGES:
        allowed = any(within(target, name) for name in (layer, *MAY_IMPORT[layer], VERSION))
        return None if allowed else f"imports {target}, which {layer} may not"
    if top not in DOORS:
        return f"imports {top}, which has no door; give it one in DOORS"
    return None if within(module, DOORS[top]) else f"imports {top}, whose only door is {DOORS[top]}"


def problems(path: PurePath, source: str) -> list[str]:
    """Return every breach of the rules in one module, as ``path:line: what``."""
    module = module_name(path)
    lines = source.count("\n")
    found = [(LINES_MAX, f"has {lines} lines; {LINES_MAX} are the limit")] if lines > LINES_MAX else []
    layer = layer_of(module)
    if layer is None:
        found += [] if module in EXEMPT else [(1, "belongs to no layer; give it one in MAY_IMPORT")]
    else:
        tree = ast.parse(source)
        found += [(line, why) for line, name in imports(path, tree) if (why := import_problem(module, layer, name))]
        if within(module, "matterstack.core"):
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            found += [(c.lineno, f"calls {called(c)}()") for c in calls if called(c) in WORLDLY_CALLS]
    return [f"{path}:{line}: {why}" for line, why in found]


def sources() -> dict[PurePath, str]:
    files = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return {file.relative_to(ROOT): file.read_text() for file in files}


def test_every_module_keeps_the_rules() -> None:
    found = [problem for path, source in sources().items() for problem in problems(path, source)]
    assert not found, "\n".join(["", *found])


def test_modules_are_small() -> None:
    lengths = [source.count("\n") for source in sources().values() if source.strip()]
    assert statistics.median(lengths) <= LINES_MEDIAN


def test_every_layer_is_there() -> None:
    modules = {module_name(path) for path in sources()}
    for layer in MAY_IMPORT:
        assert layer in modules or layer == "matterstack.__main__"


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("matterstack/core/a.py", "import journal", "imports journal, which matterstack.core may not"),
        ("matterstack/core/a.py", "from journal import Journal", "imports journal.Journal"),
        (
            "matterstack/core/a.py",
            "from matterstack.runtime import engine",
            "imports matterstack.runtime.engine",
        ),
        ("matterstack/core/a.py", "from ..runtime import engine", "imports matterstack.runtime.engine"),
        ("matterstack/core/__init__.py", "from ..runtime import run", "imports matterstack.runtime.run"),
        (
            "matterstack/core/a.py",
            "def f():\n    from matterstack import cli",
            "a.py:2: imports matterstack.cli",
        ),
        ("matterstack/core/a.py", "import_module('matterstack.cli.main')", "imports matterstack.cli.main"),
        ("matterstack/core/a.py", "import_module(f'journal.{name}')", "imports journal"),
        ("matterstack/core/a.py", "importlib.import_module(name)", "imports <computed>"),
        ("matterstack/core/a.py", "import time", "imports time, which lets the world into the core"),
        ("matterstack/core/a.py", "from os import path", "imports os"),
        ("matterstack/core/a.py", "import logging.handlers", "imports logging"),
        ("matterstack/core/a.py", "from datetime import datetime\ndatetime.now()", "a.py:2: calls now()"),
        ("matterstack/core/a.py", "text = open('f')", "calls open()"),
        ("matterstack/core/a.py", "import transitions", "whose only door is matterstack.core.machine"),
        ("matterstack/errors.py", "from matterstack.core import events", "which matterstack.errors may not"),
        (
            "matterstack/runtime/run.py",
            "from matterstack.cli import main",
            "which matterstack.runtime may not",
        ),
        (
            "matterstack/runtime/run.py",
            "from matterstack.config import load",
            "which matterstack.runtime may not",
        ),
        ("matterstack/runtime/run.py", "from matterstack import Task", "imports matterstack.Task"),
        ("matterstack/runtime/run.py", "import paramiko", "only door is matterstack.runtime.transports.ssh"),
        ("matterstack/runtime/run.py", "import sqlite_utils", "whose only door is journal"),
        ("matterstack/runtime/run.py", "import yaml", "whose only door is matterstack.config"),
        ("matterstack/history/past.py", "from rich.table import Table", "whose only door is matterstack.cli"),
        ("matterstack/history/past.py", "import journal", "which matterstack.history may not"),
        ("matterstack/history/past.py", "import matterstack.config", "which matterstack.history may not"),
        ("matterstack/history/past.py", "import requests", "imports requests, which has no door"),
        ("matterstack/report/data.py", "import matterstack.config", "which matterstack.report may not"),
        ("matterstack/new.py", "import json", "belongs to no layer"),
        ("journal/store.py", "from matterstack.errors import MatterStackError", "which journal may not"),
        ("journal/store.py", "import msgspec", "whose only door is matterstack"),
        ("journal/store.py", "x = 1\n" * 401, "has 401 lines"),
    ],
)
def test_a_breach_is_found(path: str, source: str, expected: str) -> None:
    found = problems(PurePath(path), source)
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("matterstack/core/machine.py", "from transitions import Machine"),
        ("matterstack/core/attempt.py", "from matterstack.core.events import X\nfrom .. import errors"),
        ("matterstack/core/workflow.py", "from pathlib import Path\nimport re\nimport msgspec"),
        ("matterstack/runtime/engine.py", "import os, time\nfrom journal import Journal"),
        ("matterstack/runtime/transports/ssh.py", "def connect():\n    import paramiko"),
        ("matterstack/config/profiles.py", "import yaml\nfrom matterstack.runtime.backends import base"),
        ("matterstack/cli/main.py", "from matterstack import __version__, history\nimport rich.live"),
        ("matterstack/cli/main.py", "import_module(f'matterstack.cli.{name}')"),
        ("matterstack/runtime/run.py", "from matterstack import __version__"),
        ("matterstack/__init__.py", "from matterstack.runtime.run import run_workflow"),
        ("journal/schema.py", "import sqlite3, sqlite_utils\nfrom journal.errors import JournalError"),
    ],
)
def test_what_is_allowed_is_not_reported(path: str, source: str) -> None:
    assert problems(PurePath(path), source) == []
