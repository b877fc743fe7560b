from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def own_directory(monkeypatch, tmp_path):
    """Tests do not depend on where they are started."""
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o022)
    yield
    os.umask(before)
