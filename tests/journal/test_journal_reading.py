"""What can be asked of a journal."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from journal_samples import Colours, output, painted, python

from journal import Journal, JournalError, JournalUnavailable, NewEvent


@pytest.fixture
def filled(journal):
    for n in range(3):
        journal.append("a", [painted("x", f"c{n}"), NewEvent("Sold", "y")])
        journal.append("b", [painted("x", f"d{n}")])
    return journal


def test_reading_a_stream_begins_after_a_version_and_ends_at_a_limit(filled):
    assert [e.version for e in filled.read("a", after_version=2, limit=3)] == [3, 4, 5]
    assert list(filled.read("a", after_version=6)) == []
    assert list(filled.read("a", limit=0)) == []
    assert list(filled.read("unknown")) == []


def test_a_subject_is_read_over_all_streams_or_in_one(filled):
    assert [e.position for e in filled.read_subject("x")] == [1, 3, 4, 6, 7, 9]
    assert [e.position for e in filled.read_subject("x", stream="b")] == [3, 6, 9]
    assert [e.position for e in filled.read_subject("x", stream="a", after_position=1)] == [4, 7]
    assert list(filled.read_subject("unknown")) == []


def test_all_events_are_read_by_position_and_by_type(filled):
    assert [e.position for e in filled.read_all(after_position=6)] == [7, 8, 9]
    assert [e.position for e in filled.read_all(types=["Sold"], limit=2)] == [2, 5]
    assert list(filled.read_all(types=[])) == []
    assert len(list(filled.read_all(types=["Sold", "Painted", "Unknown"]))) == 9


@pytest.mark.parametrize("limit", [None, 999, 1000, 1001, 2500])
def test_readers_cross_their_chunks_without_loss(journal, limit):
    journal.append("a", [painted("x") for _ in range(2345)])
    expected = list(range(1, min(limit or 2345, 2345) + 1))
    assert [e.version for e in journal.read("a", limit=limit)] == expected
    assert [e.position for e in journal.read_all(limit=limit)] == expected
    assert len(list(journal.read_subject("x"))) == 2345


def test_a_subject_is_found_by_an_index(journal):
    for condition in ("subject = 1 AND stream = 1", "subject = 1"):
        plan = journal.query(f"EXPLAIN QUERY PLAN SELECT * FROM events WHERE {condition} ORDER BY position")
        assert "events_by_subject" in plan[0][3]


def test_only_commits_of_others_count_as_changes(journal, path):
    assert not journal.changed()
    journal.append("a", [painted("x")])
    assert not journal.changed()
    with Journal.open(path) as other:
        other.append("a", [painted("x")])
    assert journal.changed()
    assert not journal.changed()


def test_a_query_gives_plain_tuples(filled):
    assert filled.query("SELECT count(*) FROM events WHERE version > ?", (4,)) == [(2,)]
    assert filled.query("WITH n AS (SELECT 1) SELECT * FROM n") == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM leases",
        "WITH n AS (SELECT 1) INSERT INTO types (name) SELECT 'x'",
        "COMMIT",
        "",
        "SELECT nothing",
    ],
)
def test_a_query_that_writes_or_makes_no_sense_is_refused(filled, sql):
    with pytest.raises(JournalError):
        filled.query(sql)
    filled.append("a", [painted("x")])


def test_the_log_shows_names_times_and_hashes(journal):
    journal.append("a", [painted("x")], at=1_700_000_000_000_042)
    event = next(journal.read("a"))
    assert journal.query("SELECT * FROM event_log") == [
        (1, "a", 1, "x", "Painted", "2023-11-14T22:13:20.000042Z", '{"colour":"red"}', event.hash.hex())
    ]


def test_sqlite_utils_can_read_but_not_write(filled):
    database = filled.sqlite_utils()
    assert database["types"].count == 2
    with pytest.raises(sqlite3.OperationalError):
        database["types"].insert({"name": "x"})
    database.close()


def test_following_yields_what_is_there_and_ends_when_told(filled):
    assert [e.position for e in filled.follow(after_position=4, stop=lambda: True)] == [5, 6, 7, 8, 9]
    assert [e.position for e in filled.follow(stream="b", after_position=3, stop=lambda: True)] == [6, 9]
    assert list(filled.follow(stream="unknown", stop=lambda: True)) == []


def test_following_sees_what_another_process_appends(journal, path):
    journal.append("a", [painted("x")])
    script = """
        import sys
        from journal import Journal
        with Journal.open(sys.argv[1], read_only=True) as journal:
            print("ready", flush=True)
            for event in journal.follow(stream="a", poll_s=0.005):
                print(event.subject, flush=True)
                if event.subject == "end":
                    break
    """
    follower = python(script, path)
    assert follower.stdout.readline() == "ready\n"
    assert follower.stdout.readline() == "x\n"
    journal.append("b", [painted("elsewhere")])
    journal.append("a", [painted("y"), painted("end")])
    assert output(follower).split() == ["y", "end"]


def test_a_reader_in_another_thread_follows(journal):
    found = []
    done = threading.Event()

    def follow() -> None:
        found.extend(e.subject for e in journal.follow(poll_s=0.001, stop=done.is_set))

    follower = threading.Thread(target=follow)
    follower.start()
    for n in range(20):
        journal.append("a", [painted(str(n))])
    done.set()
    follower.join()
    assert found == [str(n) for n in range(20)]


def test_a_slow_reader_does_not_keep_the_log_from_being_emptied(journal, path):
    journal.append("a", [painted("x") for _ in range(3000)])
    reader = journal.read("a")
    next(reader)
    journal.checkpoint()
    assert path.with_name("events.db-wal").stat().st_size == 0


def test_a_closed_journal_says_so(path):
    journal = Journal.open(path)
    journal.close()
    journal.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        journal.append("a", [painted("x")])
    with pytest.raises(JournalUnavailable, match="closed"):
        journal.position()


def test_a_read_only_journal_reads_and_refuses_to_write(filled, path):
    with Journal.open(path, read_only=True) as reader:
        assert reader.id == filled.id
        assert len(list(reader.read("a"))) == 6
        with pytest.raises(JournalUnavailable, match="read-only"):
            reader.append("a", [painted("x")])


def test_a_read_only_journal_refuses_projections_that_would_have_to_be_built(filled, path):
    with pytest.raises(JournalUnavailable, match="open it once for writing"):
        Journal.open(path, read_only=True, projections=[Colours()])
