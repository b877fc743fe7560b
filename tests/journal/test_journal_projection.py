"""Projections are what the events say, whoever appended them, and whatever failed."""

# ruff: noqa: PT012  # a group is a block

from __future__ import annotations

import sqlite3

import pytest
from journal_samples import Colours, painted

from journal import Journal, JournalError, JournalUnavailable


def now(journal) -> list[tuple[str, str]]:
    return journal.query("SELECT subject, colour FROM colours_now ORDER BY subject")


@pytest.fixture
def colours():
    return Colours()


@pytest.fixture
def journal(path, colours):
    with Journal.open(path, projections=[colours]) as opened:
        yield opened


def test_tables_follow_each_append(journal, colours):
    journal.append("a", [painted("x", "red"), painted("y", "blue")])
    journal.append("b", [painted("x", "green")])
    assert now(journal) == [("x", "green"), ("y", "blue")]
    assert colours.applied == [[1, 2], [3]]


def test_a_group_is_folded_at_its_end_or_before_a_read(journal, colours):
    with journal.group():
        journal.append("a", [painted("x", "red")])
        journal.append("b", [painted("x", "green")])
        assert colours.applied == []
        assert now(journal) == [("x", "green")]
        journal.append("a", [painted("x", "blue")])
    assert colours.applied == [[1, 2], [3]]
    assert now(journal) == [("x", "blue")]


def test_a_projection_that_fails_keeps_its_events_out(path):
    class Broken(Colours):
        def apply(self, connection, events):
            super().apply(connection, events)
            if any(e.subject == "bad" for e in events):
                raise ZeroDivisionError
            if any(e.subject == "worse" for e in events):
                connection.execute("INSERT INTO nowhere VALUES (1)")

    with Journal.open(path, projections=[Broken()]) as journal:
        journal.append("a", [painted("x", "red")])
        with pytest.raises(ZeroDivisionError):
            journal.append("a", [painted("bad")])
        with pytest.raises(JournalError, match=r"no such table: nowhere.*Nothing was recorded"):
            journal.append("a", [painted("worse")])
        assert now(journal) == [("x", "red")]
        assert journal.append("a", [painted("y", "red")], expected_version=1) == 2
        assert journal.verify().ok


def test_a_failure_found_by_a_read_within_a_group_undoes_the_group(path, colours):
    def fail(connection, events):
        raise ZeroDivisionError

    with Journal.open(path, projections=[colours]) as journal:
        colours.apply = fail
        with pytest.raises(JournalError, match="Nothing of the group"), journal.group():
            journal.append("a", [painted("x")])
            with pytest.raises(ZeroDivisionError):
                journal.position()
        assert journal.position() == 0


def test_a_rollback_takes_the_tables_back(journal):
    with pytest.raises(KeyError), journal.group():
        journal.append("a", [painted("x")])
        assert now(journal) == [("x", "red")]
        raise KeyError
    assert now(journal) == []


def test_a_projection_opened_later_is_built_from_the_events(path):
    with Journal.open(path) as plain:
        plain.append("a", [painted(f"x{n % 7}", f"c{n}") for n in range(2500)])
    with Journal.open(path, projections=[Colours()]) as journal:
        assert journal.query("SELECT n FROM colours_seen") == [(2500,)]
        assert journal.verify().ok


def test_events_of_a_writer_without_the_projection_are_caught_up(journal, path, colours):
    journal.append("a", [painted("x", "red")])
    with Journal.open(path) as plain:
        plain.append("a", [painted("x", "green"), painted("y", "green")])
    journal.append("a", [painted("x", "blue")])
    assert now(journal) == [("x", "blue"), ("y", "green")]
    with Journal.open(path) as plain:
        plain.append("a", [painted("z", "black")])
    with Journal.open(path, projections=[Colours()]) as again:
        assert ("z", "black") in now(again)
        assert again.verify().ok
    assert colours.applied == [[1], [2, 3], [4]]


def test_two_writers_with_the_projection_fold_each_event_once(journal, path):
    with Journal.open(path, projections=[Colours()]) as other:
        for n in range(10):
            (journal, other)[n % 2].append("a", [painted("x")])
    assert journal.query("SELECT n FROM colours_seen") == [(10,)]


def test_a_new_version_is_rebuilt_with_its_own_tables(journal, path):
    journal.append("a", [painted("x", "red"), painted("x", "blue")])

    class Second:
        name = "colours"
        version = 2
        schema = "CREATE TABLE colour_counts (colour TEXT PRIMARY KEY, n INTEGER)"

        def apply(self, connection, events):
            for event in events:
                connection.execute(
                    "INSERT INTO colour_counts VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1",
                    (event.json()["colour"],),
                )

    with Journal.open(path, projections=[Second()]) as second:
        assert second.query("SELECT * FROM colour_counts ORDER BY colour") == [("blue", 1), ("red", 1)]
        with pytest.raises(JournalError, match="no such table"):
            now(second)
        assert second.verify().ok
        with pytest.raises(JournalUnavailable, match="rebuilt by another version"):
            journal.append("a", [painted("y")])
        assert second.append("a", [painted("z", "red")], expected_version=2) == 3


def test_rebuilding_mends_a_table_that_was_changed_by_hand(journal, path):
    journal.append("a", [painted("x", "red")])
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE colours_now SET colour = 'gold'")
    raw.close()
    assert not journal.verify().ok
    journal.rebuild("colours")
    assert now(journal) == [("x", "red")]
    assert journal.verify().ok
    journal.rebuild()
    with pytest.raises(KeyError):
        journal.rebuild("unknown")


def test_a_view_may_belong_to_a_projection(path):
    class Viewed(Colours):
        schema = Colours.schema + "CREATE VIEW reds AS SELECT * FROM colours_now WHERE colour = 'red';"

    with Journal.open(path, projections=[Viewed()]) as journal:
        journal.append("a", [painted("x")])
        journal.rebuild()
        assert journal.query("SELECT subject FROM reds") == [("x",)]


@pytest.mark.parametrize(
    "schema", ["", "-- nothing", "CREATE TABLE IF NOT EXISTS events (x)", "CREATE TABLE events (x)"]
)
def test_a_projection_without_tables_of_its_own_is_refused(path, schema):
    projection = Colours()
    projection.schema = schema
    with pytest.raises(JournalError):
        Journal.open(path, projections=[projection])
    Journal.open(path).close()


def test_two_projections_of_one_name_are_refused(path):
    with pytest.raises(ValueError, match="same name"):
        Journal.open(path, projections=[Colours(), Colours()])
