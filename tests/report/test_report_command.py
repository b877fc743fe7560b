"""``report``: where the page goes, and what it does not overwrite."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_journals import RUN

from matterstack.cli.page import report
from matterstack.errors import MatterStackError, UnknownName

ROOT = Path(__file__).parents[2]


def data_of(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


@pytest.fixture
def ask(story, tmp_path, monkeypatch, capsys):
    """Call the command in an empty directory; return what it printed."""
    story.task(0, "a")
    story.attempt("a", at=1)
    story.failed("a", 9)
    story.write()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def command(run=RUN, output=None, journal=str(story.path)):
        assert report(argparse.Namespace(run=run, output=output, journal=journal)) == 0
        return capsys.readouterr().out

    return command


def test_it_is_named_after_the_run_and_written_anew(ask):
    assert ask() == "run.html\n"
    first = Path("run.html").read_text()
    assert data_of(first)["counts"] == [0, 0, 0, 1]
    assert ask() == "run.html\n"
    assert os.listdir() == ["run.html"]


def test_the_newest_run_is_the_default_and_the_output_a_choice(ask):
    Path("pages").mkdir()
    assert ask(run=None, output="pages/mine.html") == "pages/mine.html\n"
    assert data_of(Path("pages/mine.html").read_text())["run"] == RUN
    assert data_of(ask(output="-"))["run"] == RUN


@pytest.mark.parametrize("make", [lambda path: path.write_text("workflow = 1\n"), lambda path: path.mkdir()])
def test_what_is_no_report_is_not_overwritten(ask, make):
    make(Path("precious"))
    with pytest.raises(MatterStackError, match="is no report"):
        ask(output="precious")
    assert os.listdir() == ["precious"]


def test_a_link_is_not_followed_and_not_replaced(ask):
    Path("link").symlink_to("elsewhere")
    with pytest.raises(MatterStackError, match="is no report"):
        ask(output="link")
    assert os.listdir() == ["link"]


def test_what_is_not_there_is_said(ask, tmp_path):
    with pytest.raises(UnknownName, match="nothere"):
        ask(run="nothere")
    with pytest.raises(UnknownName, match="journal"):
        ask(journal=str(tmp_path / "nothing.db"))
    with pytest.raises(OSError, match="No such file"):
        ask(output="absent/run.html")
    assert os.listdir() == []


def test_a_backend_of_a_script_of_its_own_has_no_logs_here(ask):
    ask()
    (failure,) = data_of(Path("run.html").read_text())["failures"]
    assert failure["logs"] == {}


def test_a_real_run_has_its_logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = [
        {"task_id": "good", "command": "echo fine"},
        {"task_id": "bad", "command": "echo started; echo '</script><b>nan</b>' >&2; exit 7"},
        {"task_id": "after", "command": "true", "dependencies": ["bad"]},
    ]
    Path("wf.yaml").write_text(json.dumps({"name": "real", "tasks": tasks}))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    def matterstack(*words):
        command = [sys.executable, "-m", "matterstack.cli.main", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert matterstack("run", "wf.yaml", "-q").returncode == 1
    made = matterstack("report", "--output", "page.html")  # of the newest run
    assert (made.returncode, made.stdout, made.stderr) == (0, "page.html\n", "")
    data = data_of(Path("page.html").read_text())
    (failure,) = data["failures"]
    assert failure["logs"] == {"stderr": ["</script><b>nan</b>"], "stdout": ["started"]}
    assert failure["where"] == str(tmp_path / "results/real/bad/1")
    assert data["edges"] == [[], [], [1]]
