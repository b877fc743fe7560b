import os

import pytest
from cli_project import ROOT, Project, end_group
from cli_terminal import Terminal


@pytest.fixture
def project(tmp_path):
    path = tmp_path / "project"
    path.mkdir()
    env = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    made = Project(path, env)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for record in path.glob("results/*/*/*/.matterstack.record"):
        words = record.read_text().split()
        if words[:1] == ["start"] and "exit" not in words:
            end_group(int(words[1]))


@pytest.fixture
def terminal(project):
    made = []

    def open_terminal(*arguments, **options):
        made.append(Terminal(project, *arguments, **options))
        return made[-1]

    yield open_terminal
    for one in made:
        one.close()


@pytest.fixture
def waiting(project):
    """A project whose three tasks wait for the file ``go``, two at a time; two more come after them."""
    wait = "echo waiting; while [ ! -e ../../../../go ]; do sleep 0.02; done"
    first = [(f"t{i}", project.counted(f"t{i}", wait)) for i in range(3)]
    later = [(f"u{i}", project.counted(f"u{i}"), {"dependencies": ["t0", "t1"]}) for i in range(2)]
    project.workflow(*first, *later)
    project.write("matterstack.yaml", "profiles: {local: {backend: local, max_concurrent_tasks: 2, grace_s: 1}}")
    return project
