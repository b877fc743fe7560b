from __future__ import annotations

import pytest

from journal import Journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.db"


@pytest.fixture
def journal(path):
    with Journal.open(path) as opened:
        yield opened
