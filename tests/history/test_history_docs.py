"""The page about the history: what it shows is what happens."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from matterstack.history import rows
from matterstack.history.past import Past
from matterstack.runtime.opening import open_journal
from matterstack.runtime.views import VIEWS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/history.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(place, *words):
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HOME": str(place),
    }
    return subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    place = tmp_path_factory.mktemp("project")
    (place / "wf.yaml").write_text(blocks("yaml")[0])
    done = run(place, sys.executable, "-m", "matterstack.cli.main", "run", "wf.yaml")
    assert done.returncode == 1, done.stderr  # one task fails on purpose
    return place


def test_the_python_session_prints_what_the_page_says(project):
    code = blocks("python")[0]
    done = run(project, sys.executable, "-c", code)
    assert done.stderr == ""
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)  # (.*)", code)


@pytest.mark.skipif(not importlib.util.find_spec("pandas"), reason="pandas is not installed")
def test_the_session_with_pandas_works(project):
    done = run(project, sys.executable, "-c", blocks("python")[1])
    assert "mean" in done.stdout, done.stderr


def test_the_session_of_sqlite_utils_works(project):
    lines = [line for line in "\n".join(blocks("sh")).splitlines() if line.startswith("sqlite-utils")]
    assert len(lines) >= 5
    for line in lines:
        done = run(project, sys.executable, "-m", *shlex.split(line.replace("sqlite-utils", "sqlite_utils", 1)))
        assert done.returncode == 0, done.stderr
        assert (
            "scan" in done.stdout
            or "bands" in done.stdout
            or "TaskCompleted" in done.stdout
            or "history_" in done.stdout
        )


def test_the_query_of_the_page_works(project):
    with sqlite3.connect(f"file:{project}/.matterstack/journal.db?mode=ro", uri=True) as connection:
        ((profile, attempts, *_),) = connection.execute(blocks("sql")[0]).fetchall()
    assert (profile, attempts) == ("", 4)


def test_every_view_is_documented_with_its_columns(project):
    with open_journal(project / ".matterstack/journal.db", create=False, read_only=True) as journal:
        columns = {view: [name for (name,) in journal.query("SELECT name FROM pragma_table_info(?)", (view,))]
                   for view in VIEWS}  # fmt: skip
    documented = dict(re.findall(r"^\| `(history_\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert set(documented) == set(VIEWS)
    for view, text in documented.items():
        named = re.findall(r"`(\w+)`", text)
        assert columns[view] == (columns["history_tasks"][:18] + named[1:] if view == "history_attempts" else named)


def test_every_question_is_documented():
    questions = {name for name in vars(Past) if not name.startswith("_")} - {"close"}
    table = dict(re.findall(r"^\| `(\w+)\(.*?\)` \| `?(\w+)", PAGE, re.MULTILINE))
    assert set(table) == questions
    assert all(hasattr(rows, kind) for kind in set(table.values()) - {"columns"})
