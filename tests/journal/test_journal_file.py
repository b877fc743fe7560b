"""The file: what is created, what is refused, and what the refusal says."""

# ruff: noqa: PT012, PT031  # a group is a block

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import pytest
from journal_samples import Colours, output, painted, python

from journal import (
    Journal,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    NewerSchema,
    NotAJournal,
    connection,
    filesystem,
    schema,
)

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def master(database: sqlite3.Connection) -> list[tuple[str, ...]]:
    return database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid").fetchall()


def test_a_new_file_equals_what_the_migrations_make():
    short, migrated = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
    schema.create(short)
    schema.migrate(migrated)

    assert master(short) == master(migrated)
    for table in ("_sqlite_migrations", "meta"):
        sql = f"SELECT * FROM {table}"
        fixed = [row[:-1] for row in short.execute(sql)]
        assert fixed == [row[:-1] for row in migrated.execute(sql)]
    for pragma in ("application_id", "user_version"):
        assert short.execute(f"PRAGMA {pragma}").fetchone() == migrated.execute(f"PRAGMA {pragma}").fetchone()


def test_an_older_file_is_migrated_and_keeps_its_events(path, monkeypatch):
    with Journal.open(path) as journal:
        journal.append("a", [painted("x")])
        identity = journal.id
    step = ("notes", ("CREATE TABLE notes (position INTEGER PRIMARY KEY, note TEXT)",))
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, step))

    with pytest.raises(JournalUnavailable, match="open it once for writing"):
        Journal.open(path, read_only=True)
    with Journal.open(path) as journal:
        assert journal.id == identity
        assert journal.query("SELECT name FROM _sqlite_migrations") == [("events",), ("notes",)]
        assert journal.query("SELECT count(*) FROM notes") == [(0,)]
        assert journal.append("a", [painted("x")], expected_version=1) == 2
        assert journal.verify().ok


def test_a_failed_migration_leaves_the_file_as_it_was(path, monkeypatch):
    Journal.open(path).close()
    bad = ("bad", ("CREATE TABLE notes (n)", "CREATE TABLE notes (n)"))
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", (*schema.STEPS, bad))
        with pytest.raises(JournalError, match="already exists"):
            Journal.open(path)
    with Journal.open(path) as journal:
        assert journal.query("SELECT name FROM _sqlite_migrations") == [("events",)]
        assert journal.query("SELECT count(*) FROM sqlite_master WHERE name = 'notes'") == [(0,)]


def test_opening_does_not_import_what_is_slow(path):
    script = """
        import sys
        from journal import Journal
        for _ in range(2):
            with Journal.open(sys.argv[1]) as journal:
                list(journal.read("a"))
        slow = ("sqlite_utils", "msgspec", "pathlib", "dataclasses", "logging", "json", "inspect", "asyncio")
        print([name for name in slow if name in sys.modules])
    """
    assert output(python(script, path)) == "[]"


def test_the_file_is_set_up_for_durability(journal):
    pragmas = {
        name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in (
            "journal_mode",
            "synchronous",
            "foreign_keys",
            "busy_timeout",
            "application_id",
            "user_version",
        )
    }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
        "application_id": 0x4A524E4C,
        "user_version": 1,
    }


def test_the_identity_is_made_once(path):
    with Journal.open(path) as journal:
        identity = journal.id
    with Journal.open(path) as journal:
        assert journal.id == identity
    assert len(identity) == 32
    with Journal.open(path.with_name("other.db")) as other:
        assert other.id != identity


@pytest.mark.parametrize("statement", ["UPDATE events SET at = 0", "DELETE FROM events"])
def test_sqlite_itself_refuses_to_change_or_delete_events(journal, path, statement):
    journal.append("a", [painted("x")])
    with sqlite3.connect(path) as raw, pytest.raises(sqlite3.IntegrityError, match="events are never"):
        raw.execute(statement)


def test_missing_directories_are_created(tmp_path):
    with Journal.open(tmp_path / "a" / "b" / "events.db") as journal:
        assert journal.append("a", [painted("x")]) == 1


@pytest.mark.parametrize("name", ["a b", "%20", "what?mode=ro", "a#b", "ü", "new\nline", ":memory:", "'; --"])
def test_a_path_means_itself_whatever_it_is_called(tmp_path, name):
    path = tmp_path / name
    with Journal.open(path) as journal:
        journal.append("a", [painted("x")])
    assert path.is_file()
    with Journal.open(os.fsencode(path).decode(), read_only=True) as journal:
        assert journal.position() == 1


def test_a_relative_path_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Journal.open("events.db") as journal:
        monkeypatch.chdir("/")
        journal.append("a", [painted("x")])
        assert journal.path == str(tmp_path / "events.db")
        assert journal.verify().ok


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(JournalUnavailable, match="is a directory"):
        Journal.open(tmp_path)


def test_a_missing_file_is_not_made_unasked(path):
    for how in ({"create": False}, {"read_only": True}):
        with pytest.raises(JournalUnavailable, match="no journal here"):
            Journal.open(path, **how)
    assert not path.exists()


def test_a_file_where_a_directory_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(JournalUnavailable, match=r"Not a directory|File exists"):
        Journal.open(tmp_path / "file" / "events.db")


def test_a_file_that_is_not_sqlite_is_left_as_it_is(path):
    path.write_bytes(b"my thesis " * 1000)
    for how in ({}, {"read_only": True}):
        with pytest.raises(NotAJournal, match="not an SQLite file"):
            Journal.open(path, **how)
    assert path.read_bytes() == b"my thesis " * 1000


def test_an_sqlite_file_of_something_else_is_left_as_it_is(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = path.read_bytes()
    for how in ({}, {"read_only": True}):
        with pytest.raises(NotAJournal, match="not a journal"):
            Journal.open(path, **how)
    assert path.read_bytes() == before


def test_a_newer_file_is_left_as_it_is(path):
    Journal.open(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    for how in ({}, {"read_only": True}):
        with pytest.raises(NewerSchema, match="update this program"):
            Journal.open(path, **how)


def test_an_empty_file_becomes_a_journal(path):
    path.touch()
    with Journal.open(path) as journal:
        assert journal.append("a", [painted("x")]) == 1


def test_a_damaged_file_says_so(path):
    with Journal.open(path) as journal:
        journal.append("a", [painted(f"x{n}") for n in range(2000)])
    damaged = bytearray(path.read_bytes())
    for page in range(1, len(damaged) // 4096):
        damaged[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(damaged)
    with pytest.raises(JournalCorrupt, match="damaged"), Journal.open(path) as journal:
        list(journal.read("a"))


def test_a_locked_file_is_reported_and_usable_afterwards(path, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.01)
    with Journal.open(path) as journal:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalUnavailable, match=r"kept it locked.*Nothing was recorded"):
            journal.append("a", [painted("x")])
        other.execute("ROLLBACK")
        other.close()
        assert journal.append("a", [painted("x")], expected_version=0) == 1


def test_a_full_disk_records_nothing_and_loses_nothing(path):
    with Journal.open(path, projections=[Colours()]) as journal:
        journal.append("a", [painted("x")])
        pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
        journal._connection.execute(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(JournalUnavailable, match=r"full.*Nothing was recorded"), journal.group():
            for n in range(300):
                journal.append("b", [painted(f"new{n}", "c" * 500)])

        assert journal.position() == 1
        assert journal.query("SELECT count(*) FROM colours_now") == [(1,)]
        journal._connection.execute("PRAGMA max_page_count = 1000000")
        assert journal.append("b", [painted("new1")], expected_version=0) == 1
        assert journal.verify().ok


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@root_only
def test_a_really_full_disk_keeps_what_was_acknowledged(small_disk):
    path = small_disk / "events.db"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(300_000))
    acknowledged = 0
    with Journal.open(path, projections=[Colours()]) as journal:
        with pytest.raises(JournalUnavailable, match=r"full|failed"):
            while True:
                acknowledged = journal.append("a", [painted(f"x{acknowledged + n}", "c" * 300) for n in range(20)])
        assert acknowledged > 0
        assert journal.head("a").version == acknowledged
        filler.unlink()
        assert journal.append("a", [painted("x")], expected_version=acknowledged) == acknowledged + 1
        assert journal.verify().ok


@root_only
def test_a_disk_too_full_for_a_new_journal_is_reported(small_disk):
    (small_disk / "filler").write_bytes(bytes(1_048_576 - 8192))
    with pytest.raises(JournalUnavailable, match=r"full|failed"):
        Journal.open(small_disk / "events.db")
    (small_disk / "filler").unlink()
    with Journal.open(small_disk / "events.db") as journal:
        assert journal.append("a", [painted("x")]) == 1


@pytest.fixture
def guarded():
    """A directory that the user nobody can look into but not write to, with a journal of one event."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    with Journal.open(directory / "events.db") as journal:
        journal.append("a", [painted("x")])
    directory.chmod(0o555)
    yield directory / "events.db"
    directory.chmod(0o755)
    shutil.rmtree(directory)


def as_nobody(function) -> str:
    """Return what a function says when another user calls it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            answer = str(function())
        except BaseException as error:  # noqa: BLE001
            answer = f"{type(error).__name__}: {error}"
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answers:
        text = answers.read()
    os.waitpid(child, 0)
    return text


@root_only
def test_a_read_only_file_or_directory_is_named_when_opening(guarded):
    assert as_nobody(lambda: Journal.open(guarded)).startswith("JournalUnavailable")
    assert "read-only for this user" in as_nobody(lambda: Journal.open(guarded))
    guarded.chmod(0o666)
    assert "its directory is read-only" in as_nobody(lambda: Journal.open(guarded))
    assert "its directory is read-only" in as_nobody(lambda: Journal.open(guarded.with_name("new.db")))
    assert "Permission denied" in as_nobody(lambda: Journal.open("/root/a/b/c.db"))


@root_only
def test_a_journal_in_a_read_only_directory_can_be_read(guarded):
    def read() -> list[str]:
        with Journal.open(guarded, read_only=True) as journal:
            return [*(e.subject for e in journal.read("a")), journal.verify().ok]

    assert as_nobody(read) == "['x', True]"


def test_two_processes_may_create_the_same_journal_at_once(tmp_path):
    script = """
        import sys
        from journal import Journal
        for n in range(60):
            with Journal.open(f"{sys.argv[1]}/{n}.db") as journal:
                journal.append("a", [])
                print(journal.id)
    """
    processes = [python(script, tmp_path) for _ in range(3)]
    identities = [output(process).split() for process in processes]
    assert identities[0] == identities[1] == identities[2]


MOUNTS = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw shared:2 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / /home/local rw - xfs /dev/vdb rw
32 22 0:42 / /my\040disk rw - fuse.sshfs host:/ rw
33 22 0:43 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw,flock
34 22 0:44 / /homework rw - ext4 /dev/vdc rw
35 22 0:45 / /over rw - ext4 /dev/vdc rw
36 35 0:46 / /over rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/events.db", "nfs4"),
        ("/home/local/events.db", None),
        ("/homework/events.db", None),
        ("/my disk/events.db", "fuse.sshfs"),
        ("/scratch/a/b.db", "lustre"),
        ("/over/b.db", "cifs"),
        ("/events.db", None),
    ],
)
def test_network_file_systems_are_known_by_their_mount(tmp_path, path, kind):
    (tmp_path / "mounts").write_text(MOUNTS.lstrip())
    assert filesystem.network_type(path, str(tmp_path / "mounts")) == kind


def test_without_a_table_of_mounts_a_disk_counts_as_local(tmp_path):
    assert filesystem.network_type("/x", str(tmp_path / "missing")) is None


def test_on_a_network_file_system_a_rollback_journal_is_used_with_one_warning(path, monkeypatch):
    monkeypatch.setattr(filesystem, "network_type", lambda _: "nfs4")
    with pytest.warns(UserWarning, match="network file system") as caught, Journal.open(path) as journal:
        journal.append("a", [painted("x")])
        assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal.verify().ok
    assert len(caught) == 1


def test_a_journal_moved_to_a_network_file_system_leaves_wal(journal, path, monkeypatch):
    journal.append("a", [painted("x")])
    journal.close()
    monkeypatch.setattr(filesystem, "network_type", lambda _: "lustre")
    with pytest.warns(UserWarning, match="lustre"), Journal.open(path) as moved:
        assert moved._connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert moved.position() == 1


def test_where_locks_do_not_work_a_journal_is_refused(path, monkeypatch):
    monkeypatch.setattr(filesystem, "network_type", lambda _: "nfs")
    monkeypatch.setattr(filesystem, "locks_work", lambda _: False)
    with pytest.raises(JournalUnavailable, match="locks do not work"):
        Journal.open(path)


def test_the_lock_probe_asks_another_process(tmp_path, monkeypatch):
    assert filesystem.locks_work(str(tmp_path))
    blind = "print('granted')"
    monkeypatch.setattr(filesystem, "_PROBE", blind)
    assert not filesystem.locks_work(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
