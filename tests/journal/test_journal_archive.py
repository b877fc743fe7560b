"""What leaves the journal is complete and can be opened."""

from __future__ import annotations

import json
import sqlite3

import pytest
from journal_samples import Colours, output, painted, python

from journal import Journal, JournalUnavailable, NewEvent


def test_an_export_is_one_json_object_per_line(journal):
    journal.append("a", [NewEvent("Painted", 'quo"te\n', b'{"a":\n [1,\r2]}'), painted("ü")], at=1_700_000_000_000_001)
    journal.append("b", [painted("z")])

    first, second = map(json.loads, journal.export("a"))

    event = next(journal.read("a"))
    assert first == {
        "position": 1,
        "stream": "a",
        "version": 1,
        "subject": 'quo"te\n',
        "type": "Painted",
        "time": "2023-11-14T22:13:20.000001Z",
        "data": {"a": [1, 2]},
        "hash": event.hash.hex(),
    }
    assert second["subject"] == "ü"
    lines = list(journal.export())
    assert len(lines) == 3
    assert all("\n" not in line and "\r" not in line for line in lines)


def test_a_backup_taken_while_another_process_writes_is_whole(journal, path, tmp_path):
    script = """
        import sys
        from journal import Journal
        from journal_samples import painted
        with Journal.open(sys.argv[1]) as journal:
            print("ready", flush=True)
            for n in range(200):
                journal.append("a", [painted("x")] * 3)
    """
    journal.append("b", [painted("x") for _ in range(2000)])
    writer = python(script, path)
    writer.stdout.readline()
    for n in range(5):
        journal.backup(tmp_path / "copies" / f"{n}.db")
    output(writer)
    for n in range(5):
        with Journal.open(tmp_path / "copies" / f"{n}.db", read_only=True) as copy:
            assert copy.id == journal.id
            assert copy.head("a").version % 3 == 0
            assert copy.verify().ok


def test_a_backup_is_one_file_and_a_working_journal(path, tmp_path):
    with Journal.open(path, projections=[Colours()]) as journal:
        journal.append("a", [painted("x")])
        journal.backup(tmp_path / "copies" / "one.db")
    assert [p.name for p in (tmp_path / "copies").iterdir()] == ["one.db"]
    with Journal.open(tmp_path / "copies" / "one.db", projections=[Colours()]) as copy:
        assert copy.append("a", [painted("y")], expected_version=1) == 2
        assert copy.verify().ok


def test_a_backup_overwrites_nothing(journal, path, tmp_path):
    other = tmp_path / "thesis.txt"
    other.write_text("mine")
    for destination in (other, path):
        with pytest.raises(JournalUnavailable, match="exists already"):
            journal.backup(destination)
    assert other.read_text() == "mine"


def test_an_interrupted_backup_does_not_stop_the_next(journal, tmp_path):
    (tmp_path / "copy.db.part").write_bytes(b"half")
    journal.append("a", [painted("x")])
    journal.backup(tmp_path / "copy.db")
    assert sqlite3.connect(tmp_path / "copy.db").execute("SELECT count(*) FROM events").fetchone() == (1,)
