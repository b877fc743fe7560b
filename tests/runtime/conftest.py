from __future__ import annotations

import os

import pytest

from matterstack.runtime.backends.local import LocalBackend


@pytest.fixture
def root(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def local(root):
    """Makes LocalBackends on one workspace, and closes them at the end."""
    made = []

    def make(slots=2, **options):
        made.append(LocalBackend(root, max_concurrent_tasks=slots, **options))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    """Tests do not depend on where they are started, and leave temporary files in their own directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("BASH_ENV", "ENV"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)
