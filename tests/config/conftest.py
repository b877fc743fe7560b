import pytest


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project with an empty home beside it."""
    path = tmp_path / "project"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return path
