import json
import subprocess
import sys

import pytest
from cli_project import ROOT

from matterstack import __version__
from matterstack.cli.main import main

COMMANDS = ["run", "resume", "status", "history", "logs", "cancel", "retry", "profiles", "verify", "backup", "clean"]
HEAVY = ["rich", "yaml", "sqlite_utils", "transitions", "msgspec", "sqlite3", "asyncio", "journal"]


def loaded_by(code):
    """Return which heavy modules a fresh interpreter has loaded after ``code``."""
    text = f"import sys, json\n{code}\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("    ") and line.split()[0] in COMMANDS] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: matterstack {command}" in text
    assert "--journal PATH" in text


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["logs", "demo"], ["status", "--fast"]])
def test_a_wrong_command_line_ends_with_2_and_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: matterstack" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"matterstack {__version__}\n"


def test_the_package_can_be_run_without_its_script():
    command = [sys.executable, "-m", "matterstack", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"matterstack {__version__}\n"


def test_help_loads_nothing_that_takes_time():
    code = "from matterstack.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert loaded_by(code) == []


def test_importing_the_package_loads_nothing_that_takes_time():
    assert loaded_by("import matterstack") == []


def test_making_a_workflow_loads_no_more_than_it_needs():
    assert loaded_by("from matterstack import Task, Workflow\nWorkflow('w', [Task('true', 'a')])") == ["msgspec"]


def test_an_error_that_is_not_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("matterstack.cli.showing.status", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["status"])
