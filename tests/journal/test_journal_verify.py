"""Every change made behind the journal's back is found and named."""

from __future__ import annotations

import shutil
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_samples import Colours, painted

from journal import Journal, JournalCorrupt, NewEvent
from journal.event import event_hash

COLUMNS = {
    "events": ["position", "stream", "version", "subject", "type", "at", "data", "hash"],
    "streams": ["id", "name", "version", "position", "hash"],
    "subjects": ["id", "name"],
    "types": ["id", "name"],
}
CELLS = [(table, column) for table, columns in COLUMNS.items() for column in columns]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "events.db"
    with Journal.open(path, projections=[Colours()]) as journal:
        for n in range(4):
            journal.append("a", [painted("x", f"c{n}"), NewEvent("Sold", "y")], at=n)
            journal.append("b", [painted("z", f"c{n}")], at=n)
    return path


@pytest.fixture
def altered(original, path):
    """A function that executes statements behind the journal's back and returns what verify finds."""

    def alter(*statements):
        shutil.copy(original, path)
        raw = sqlite3.connect(path)
        for name in ("updated", "deleted"):
            raw.execute(f"DROP TRIGGER events_are_not_{name}")
        for statement in statements:
            raw.execute(statement)
        raw.commit()
        raw.close()
        with Journal.open(path, read_only=True) as journal:
            return journal.verify()

    return alter


def test_an_untouched_journal_is_good(original):
    with Journal.open(original, projections=[Colours()]) as journal:
        report = journal.verify()
    assert report.ok
    assert (report.events, report.streams, report.last_good) == (12, 2, {"a": 8, "b": 4})


def test_a_changed_event_is_named_and_what_stood_before_it_is_trusted(altered):
    report = altered('UPDATE events SET data = \'{"colour":"gold"}\' WHERE position = 7')
    assert [(p.position, p.stream, p.version) for p in report.problems] == [(7, "a", 5)]
    assert "hash does not match" in report.problems[0].what
    assert report.last_good == {"a": 4, "b": 4}
    assert not report.ok


@pytest.mark.parametrize(("table", "column"), CELLS)
@pytest.mark.parametrize("row", ["first", "last"])
def test_a_change_of_any_column_is_found_and_named(altered, table, column, row):
    order = "" if row == "first" else "DESC"
    key = "position" if table == "events" else "id"
    value = f"{column} || 'x'" if column in ("name", "data", "hash") else f"{column} + 1000"
    report = altered(
        f"UPDATE {table} SET {column} = {value} "
        f"WHERE {key} = (SELECT {key} FROM {table} ORDER BY {key} {order} LIMIT 1)"
    )
    assert not report.ok
    assert all(problem.position or problem.stream for problem in report.problems)
    if table == "events" and column not in ("position", "stream"):
        assert report.problems[0].position == (1 if row == "first" else 12)


@settings(deadline=None, max_examples=150)
@given(
    cell=st.sampled_from(CELLS),
    row=st.integers(0, 11),
    value=st.integers(-(2**40), 2**40) | st.text(max_size=4) | st.binary(min_size=30, max_size=34) | st.floats(),
)
def test_any_other_value_in_any_cell_is_found(original, tmp_path_factory, cell, row, value):
    table, column = cell
    path = tmp_path_factory.mktemp("cell") / "events.db"
    shutil.copy(original, path)
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER events_are_not_updated")
    rowid = row % raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0] + 1
    read = f"SELECT {column} FROM {table} WHERE rowid = {rowid}"
    before = raw.execute(read).fetchone()
    try:
        raw.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = {rowid}", (value,))
    except sqlite3.Error:
        return  # the table itself refuses this value
    if raw.execute(read).fetchone() == before:
        return
    raw.commit()
    raw.close()
    with Journal.open(path, read_only=True) as journal:
        assert not journal.verify().ok
    shutil.rmtree(path.parent)


def test_a_removed_tail_is_found_by_the_head(altered):
    report = altered("DELETE FROM events WHERE position >= 10 AND stream = 1", "DELETE FROM events WHERE position > 11")
    assert {(p.stream, p.version) for p in report.problems} == {("a", 6), ("b", 3)}
    assert "later ones were removed" in report.problems[0].what


def test_an_append_after_a_removed_tail_is_refused(original, altered, path):
    altered("DELETE FROM events WHERE position = 12")
    with Journal.open(path) as journal:
        with pytest.raises(JournalCorrupt, match="Nothing was recorded"):
            journal.append("b", [painted("z")])
        assert journal.append("a", [painted("z")]) == 9


def test_a_gap_in_the_middle_is_found(altered):
    report = altered("DELETE FROM events WHERE position = 5")
    assert report.problems[0].position == 6
    assert "positions 5 to 5 are missing" in report.problems[0].what
    assert report.last_good["a"] == 3


def test_two_swapped_events_are_found(altered):
    report = altered(
        "UPDATE events SET version = -1 WHERE position = 4",
        "UPDATE events SET version = 3 WHERE position = 5",
        "UPDATE events SET version = 4 WHERE position = 4",
    )
    assert (report.problems[0].position, report.last_good["a"]) == (4, 2)


def test_a_version_that_was_left_out_is_found_though_its_hash_is_right(original, altered):
    with Journal.open(original, read_only=True) as journal:
        *_, before, last = journal.read("a")
    forged = event_hash(last._replace(version=9), before.hash).hex()
    report = altered(
        f"UPDATE events SET version = 9, hash = x'{forged}' WHERE position = {last.position}",
        f"UPDATE streams SET version = 9, hash = x'{forged}' WHERE name = 'a'",
    )
    assert [p.what for p in report.problems] == ["version 8 was expected here, not 9"]
    assert report.last_good["a"] == 7


def test_a_dangling_key_is_named(altered):
    report = altered("DELETE FROM subjects WHERE name = 'y'")
    assert (report.problems[0].position, report.problems[0].what) == (2, "its subject is an unknown key")


def test_a_projection_that_differs_is_named(original, path):
    for statement in (
        "UPDATE colours_now SET colour = 'gold'",
        "DELETE FROM colours_seen",
        "DROP TABLE colours_now",
    ):
        shutil.copy(original, path)
        raw = sqlite3.connect(path)
        raw.execute(statement)
        raw.commit()
        raw.close()
        with Journal.open(path, projections=[Colours()]) as journal:
            report = journal.verify()
            assert journal.verify(projections=False).ok
        assert len(report.problems) == 1
        assert "projection colours, table colours_" in report.problems[0].what


def test_a_damaged_page_is_reported_with_what_is_good_before_it(path):
    with Journal.open(path) as journal:
        journal.append("a", [painted(f"x{n}") for n in range(3000)])
    found = 0
    intact = path.read_bytes()
    for page in range(8, len(intact) // 4096, 9):
        damaged = bytearray(intact)
        damaged[page * 4096 : page * 4096 + 64] = bytes(64)
        path.write_bytes(damaged)
        with Journal.open(path, read_only=True) as journal:
            report = journal.verify()
        assert not report.ok
        assert report.last_good.get("a", 0) <= 3000
        found += 1
    assert found > 10


def test_verification_sees_one_moment_while_others_write(journal):
    journal.append("a", [painted("x") for _ in range(500)])
    with journal.group():
        journal.append("a", [painted("x") for _ in range(5000)])
        assert journal.verify().events == 500
    assert journal.verify().events == 5500
