"""What the documentation shows is what happens: every example is run, and what it prints is compared."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from matterstack import Task
from matterstack.core.machine import Reason, State

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SAVED = re.compile(r"as `([\w./]+)`[^`]*?:\n\n```\w+\n(.*?)```", re.DOTALL)


@pytest.fixture
def shell(tmp_path):
    """Run shell commands in an empty directory, where ``matterstack`` is the program under test."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/matterstack"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m matterstack.cli.main "$@"\n')
    program.chmod(0o755)
    here = tmp_path / "here"
    here.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    env |= {"PATH": f"{program.parent}:{env['PATH']}", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "LC_ALL": "C"}

    def run(command, **options):
        words = ["bash", "-c", command] if isinstance(command, str) else command
        return subprocess.run(
            words, cwd=here, env=env, capture_output=True, text=True, timeout=110, check=False, **options
        )

    run.path = here
    return run


def save_files(page, shell):
    for name, text in SAVED.findall(page.read_text()):
        (shell.path / name).write_text(text)


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def looks_like(expected):
    """Return a pattern for what a page shows; … stands for anything within a line."""
    return re.compile("[^\n]*".join(re.escape(part) for part in expected.strip().split("…")))


def promised(code):
    """Return what the comments behind the calls of print say, as one text."""
    return " ".join(re.findall(r"print\(.*\)  # (.*)", code))


def run_python(shell, code):
    done = shell([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_what_is_generated_is_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/lib/docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", ["quickstart.md", "profiles.md"])
def test_every_command_prints_what_the_page_shows(shell, page):
    save_files(DOCS / page, shell)
    (shell.path / "scan.yaml").write_text("tasks: [{task_id: a, command: 'true'}]\n")
    text = "".join(blocks(DOCS / page, "console"))
    shown = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    assert shown
    for step in shown:
        command, _, expected = step.partition("\n")
        done = shell(command)
        assert "Traceback" not in done.stderr
        printed = (done.stdout or done.stderr) if done.returncode == 2 else done.stdout
        assert looks_like(expected).fullmatch(printed.strip()), f"$ {command}\n{printed}{done.stderr}"


def test_the_example_of_the_readme_runs(shell):
    (code,) = blocks(ROOT / "README.md", "python")
    assert len(code.splitlines()) <= 24
    (shell.path / "volumes.py").write_text(code)
    done = shell([sys.executable, "volumes.py"])
    assert done.stdout.split() == ["COMPLETED", "1.00", "0"], done.stderr
    again = shell("matterstack run volumes.py")
    assert again.stdout == "volumes: 4 of 4 tasks COMPLETED\n"
    assert not (shell.path / "results/volumes/best/2").exists()


def test_the_quickstart_in_python(shell):
    save_files(DOCS / "quickstart.md", shell)
    assert shell("matterstack run scan.py && sed -i s/3.70/3.65/ scan.py && matterstack run scan.py").returncode == 0
    code = blocks(DOCS / "quickstart.md", "python")[-1]
    assert run_python(shell, code) == promised(code)


@pytest.mark.parametrize("number", [0, 1], ids=["LocalBackend alone", "a backend of your own"])
def test_the_examples_of_the_concepts_run(shell, number):
    code = blocks(DOCS / "concepts.md", "python")[number]
    assert run_python(shell, code) == promised(code)


def test_the_python_profiles_of_the_page_work(shell):
    (shell.path / "config").mkdir()
    (shell.path / "config/profiles.py").write_text(blocks(DOCS / "profiles.md", "python")[0])
    (shell.path / "w.yaml").write_text("tasks: [{task_id: a, command: 'true'}]\n")
    assert shell("matterstack run w.yaml").returncode == 0
    assert shell("matterstack run w.yaml --run all --profile all").returncode == 0
    assert shell("matterstack resume all").returncode == 0
    assert shell("matterstack resume w").returncode == 0


def test_the_queries_by_hand_work(shell):
    import sqlite3

    save_files(DOCS / "quickstart.md", shell)
    assert shell("matterstack run scan.py").returncode == 0
    queries = re.findall(r'^sqlite3 \.matterstack/journal\.db "(.*)"$', (DOCS / "journal.md").read_text(), re.MULTILINE)
    assert len(queries) >= 3
    database = sqlite3.connect(shell.path / ".matterstack/journal.db")
    for query in queries:
        assert database.execute(query).fetchall(), query
    database.close()


def test_every_state_and_reason_is_explained():
    text = (DOCS / "states.md").read_text()
    assert all(f"**{state}.**" in text for state in State)
    rows = " ".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))
    assert all(re.search(rf"\b{reason}\b", rows) for reason in Reason)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_lead_to_headings(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        text = (page.parent / target if target else page).read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], anchor


def test_the_yaml_of_the_workflows_page_runs(shell):
    (shell.path / "scan.yaml").write_text(blocks(DOCS / "workflows.md", "yaml")[0])
    assert shell("matterstack run scan.yaml").stdout == "scan: 2 of 2 tasks COMPLETED\n"
    assert (shell.path / "results/scan/dos/1/lines").read_text().strip() == "2"


def test_every_field_of_a_task_is_explained():
    page = (DOCS / "workflows.md").read_text()
    missing = [field.name for field in msgspec.structs.fields(Task) if f"`{field.name}`" not in page]
    assert not missing
