import os

import pytest
from cli_project import ROOT, Project, end_group


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
