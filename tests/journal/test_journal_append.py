"""What append promises: all or nothing, in order, at the expected version."""

# ruff: noqa: PT012  # a group is a block

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_samples import output, painted, python

from journal import Head, Journal, JournalError, NewEvent, VersionConflict


def test_events_are_read_back_as_they_were_appended(journal):
    assert journal.append("a", [painted("x"), NewEvent("Sold", "y")], at=1_700_000_000_000_001) == 2

    first, second = journal.read("a")

    assert first[:7] == (1, "a", 1, "x", "Painted", 1_700_000_000_000_001, b'{"colour":"red"}')
    assert first.json() == {"colour": "red"}
    assert second[:7] == (2, "a", 2, "y", "Sold", 1_700_000_000_000_001, b"{}")
    assert first.time == datetime(2023, 11, 14, 22, 13, 20, 1, tzinfo=UTC)


def test_versions_count_the_stream_and_positions_count_the_file(journal):
    journal.append("a", [painted("x")])
    journal.append("b", [painted("x"), painted("y")])
    journal.append("a", [painted("y")])

    assert [(e.stream, e.version, e.position) for e in journal.read_all()] == [
        ("a", 1, 1),
        ("b", 1, 2),
        ("b", 2, 3),
        ("a", 2, 4),
    ]


def test_the_hash_is_the_documented_one(journal):
    journal.append("straße", [NewEvent("Mälzt", "ü", '{"ä":"ö"}'.encode()), painted("x")], at=-5)

    previous = bytes(32)
    for event in journal.read("straße"):
        texts = [event.stream.encode(), event.type.encode(), event.subject.encode(), event.data]
        numbers = struct.pack(">qqIIII", event.version, event.at, *map(len, texts))
        previous = hashlib.sha256(previous + numbers + b"".join(texts)).digest()
        assert event.hash == previous


def test_a_conflict_names_both_versions_and_records_nothing(journal):
    journal.append("a", [painted("x")], expected_version=0)

    with pytest.raises(VersionConflict, match="Nothing was recorded") as caught:
        journal.append("a", [painted("y")], expected_version=0)

    assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("a", 0, 1)
    assert caught.value.path == journal.path
    assert journal.position() == 1
    assert journal.append("a", [painted("y")], expected_version=1) == 2


def test_an_append_of_nothing_checks_the_version_and_makes_no_stream(journal):
    assert journal.append("a", []) == 0
    assert journal.streams() == []
    with pytest.raises(VersionConflict):
        journal.append("a", [], expected_version=1)


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b"{", b'{"a":"\xff"}', "\ud800", b"{}\n"])
def test_data_that_is_no_json_object_in_utf8_is_refused_whole(journal, data):
    with pytest.raises(ValueError):
        journal.append("a", [painted("x"), NewEvent("Painted", "y", data)])

    assert journal.head("a") == Head(0, 0, bytes(32))
    assert list(journal.read_all()) == []


def test_json_text_is_taken_as_well_as_bytes(journal):
    journal.append("a", [NewEvent("Painted", "x", '{"colour":"grün"}')])
    assert next(journal.read("a")).data == '{"colour":"grün"}'.encode()


def test_a_name_that_is_no_unicode_text_is_refused(journal):
    for stream, subject, kind in (("\ud800", "x", "T"), ("s", "\ud800", "T"), ("s", "x", "\ud800")):
        with pytest.raises(ValueError):
            journal.append(stream, [NewEvent(kind, subject)])
    assert journal.position() == 0


def test_the_clock_is_the_one_given(path):
    with Journal.open(path, now=lambda: 42) as journal:
        journal.append("a", [painted("x")])
        assert next(journal.read("a")).at == 42


def test_an_append_larger_than_a_batch_is_one_chain(journal):
    events = [painted(f"x{n % 700}") for n in range(10_000)]
    assert journal.append("a", events, expected_version=0) == 10_000
    assert [e.subject for e in journal.read("a")] == [e.subject for e in events]
    assert journal.verify().ok


def test_the_head_is_the_last_event(journal):
    journal.append("a", [painted("x"), painted("y")])
    *_, last = journal.read("a")
    assert journal.head("a") == Head(2, 2, last.hash)


def test_a_group_is_recorded_whole(journal):
    with journal.group():
        assert journal.append("a", [painted("x")], expected_version=0) == 1
        assert journal.append("b", [painted("x")], expected_version=0) == 1
        assert journal.append("a", [painted("y")], expected_version=1) == 2
    assert [e.stream for e in journal.read_all()] == ["a", "b", "a"]
    assert journal.verify().ok


def test_nobody_else_sees_a_group_before_its_end(journal, path):
    with Journal.open(path) as other:
        with journal.group():
            journal.append("a", [painted("x")])
            assert journal.position() == 1
            assert other.position() == 0
        assert other.position() == 1


def test_a_group_that_raises_leaves_nothing(journal):
    journal.append("a", [painted("x")])

    with pytest.raises(KeyError), journal.group():
        journal.append("a", [painted("y")])
        journal.append("b", [painted("z")])
        raise KeyError

    assert journal.position() == 1
    assert journal.streams() == ["a"]
    assert journal.append("b", [painted("z")], expected_version=0) == 1
    assert journal.verify().ok


def test_a_group_goes_on_after_a_conflict_it_caught(journal):
    with journal.group():
        journal.append("a", [painted("x")])
        with pytest.raises(VersionConflict):
            journal.append("a", [painted("y")], expected_version=7)
        journal.append("b", [painted("z")])
    assert [e.subject for e in journal.read_all()] == ["x", "z"]


def test_a_group_with_a_failed_append_is_not_recorded_even_if_the_error_was_caught(journal):
    with pytest.raises(JournalError, match="Nothing of the group was recorded"), journal.group():
        journal.append("a", [painted("x")])
        with pytest.raises(ValueError):
            journal.append("a", [NewEvent("T", "y", b"no object")])
    assert journal.position() == 0


def test_a_read_within_a_group_sees_its_events(journal):
    with journal.group():
        journal.append("a", [painted("x")])
        assert [e.subject for e in journal.read("a")] == ["x"]
        journal.append("a", [painted("y")])
        assert journal.head("a").version == 2
        assert journal.query("SELECT count(*) FROM events") == [(2,)]


def test_a_group_within_a_group_belongs_to_the_outer_one(journal):
    with pytest.raises(KeyError), journal.group():
        with journal.group():
            journal.append("a", [painted("x")])
        raise KeyError
    assert journal.position() == 0


def test_another_thread_waits_for_a_group(journal):
    seen = []
    reader = threading.Thread(target=lambda: seen.append(journal.position()))
    with journal.group():
        journal.append("a", [painted("x")])
        reader.start()
        reader.join(0.05)
        assert seen == []
        journal.append("a", [painted("y")])
    reader.join()
    assert seen == [2]


def test_threads_appending_at_once_lose_nothing(journal):
    def work(name: str) -> None:
        for n in range(100):
            journal.append(name, [painted(f"{name}{n}")], expected_version=n)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.position() == 400
    assert journal.verify().ok


def test_keys_made_in_a_failed_append_are_not_used_again(journal):
    with pytest.raises(ValueError):
        journal.append("a", [NewEvent("New", "new"), NewEvent("New", "new", b"no object")])
    journal.append("b", [NewEvent("Other", "other")])
    journal.append("a", [NewEvent("New", "new")])
    assert [(e.subject, e.type) for e in journal.read_all()] == [("other", "Other"), ("new", "New")]


def test_appends_of_another_connection_are_continued(journal, path):
    with Journal.open(path) as other:
        for n in range(6):
            writer = (journal, other)[n % 2]
            assert writer.append("a", [painted(f"x{n // 4}")], expected_version=n) == n + 1
    assert journal.verify().ok


def test_of_two_processes_exactly_one_wins_each_version(journal, path):
    script = """
        import sys
        from journal import Journal, VersionConflict
        from journal_samples import painted
        won = []
        with Journal.open(sys.argv[1]) as journal:
            while (version := journal.head("a").version) < 60:
                try:
                    journal.append("a", [painted(sys.argv[2])], expected_version=version)
                    won.append(version + 1)
                except VersionConflict:
                    pass
        print(*won)
    """
    processes = [python(script, path, name) for name in ("x", "y")]
    won = {name: {int(v) for v in output(p).split()} for name, p in zip("xy", processes, strict=True)}

    assert won["x"] | won["y"] == set(range(1, 61))
    assert not won["x"] & won["y"]
    assert {e.version for e in journal.read("a") if e.subject == "x"} == won["x"]
    assert journal.verify().ok


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
new_events = st.builds(NewEvent, names, names, st.just(b"{}") | names.map(lambda s: json.dumps({"k": s}).encode()))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(names, st.lists(new_events, max_size=5), st.booleans()), max_size=8))
def test_any_sequence_of_appends_is_read_back(appends):
    expected: dict[str, list[NewEvent]] = {}
    with tempfile.TemporaryDirectory() as directory, Journal.open(f"{directory}/events.db") as journal:
        for stream, events, reopen in appends:
            version = journal.append(stream, events, expected_version=len(expected.get(stream, [])))
            if events:
                expected.setdefault(stream, []).extend(events)
            assert version == len(expected.get(stream, []))
            if reopen:
                journal.close()
                journal = Journal.open(f"{directory}/events.db")  # noqa: PLW2901
        found = {s: [NewEvent(e.type, e.subject, e.data) for e in journal.read(s)] for s in journal.streams()}
        assert found == expected
        assert journal.verify().ok
        journal.close()
