from __future__ import annotations

import pytest
from provenance_run import make


@pytest.fixture
def journal_path(tmp_path):
    path = tmp_path / "journal.db"
    make(path)
    return path
