"""What a referee may ask: is this the journal of the paper, and are these the files of the journal?"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3

import pytest

from journal import NewEvent
from matterstack.core import events as ev
from matterstack.runtime.opening import open_journal


@pytest.fixture
def proved(project):
    """A finished run of two tasks, one of which declares outputs."""
    project.workflow(
        (
            "one",
            "echo 42 > energy; mkdir d; echo x > d/x.log; echo no > scratch; ln -s energy link",
            {
                "outputs": ["energy", "d/*", "link", "never"],
            },
        ),
        ("two", "true"),
    )
    project.ms("run", "wf.yaml")
    project.out = project.path / "results/demo/one/1"
    return project


def journal_of(project):
    return project.path / ".matterstack/journal.db"


def altered(project, *statements):
    connection = sqlite3.connect(journal_of(project))
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_head_is_printed_alone_and_is_the_hash_of_the_last_event(proved):
    head = proved.ms("verify", "--head").stdout.strip()
    with open_journal(journal_of(proved)) as journal:
        end = journal.head("demo")
    assert head == f"ms1:demo:{end.version}:{end.hash.hex()}"
    assert proved.json("verify", "demo", "--head")["head"] == head
    assert f"{end.version} events" in proved.ms("verify", "--expect", head).stdout


def test_a_longer_journal_still_has_the_head(proved):
    head = proved.ms("verify", "--head").stdout.strip()
    proved.ms("run", "wf.yaml", "--rerun", "two")
    assert re.search(
        r"begins with the \d+ events of the head, and has \d+ more", proved.ms("verify", "--expect", head).stdout
    )
    assert proved.ms("verify", "--head").stdout.strip() != head


def test_a_shorter_journal_does_not_have_the_head(proved):
    shutil.copy(journal_of(proved), proved.path / "before.db")
    proved.ms("run", "wf.yaml", "--rerun", "two")
    head = proved.ms("verify", "--head").stdout.strip()
    done = proved.ms("verify", "--expect", head, "--journal", "before.db", code=1)
    assert "but the head is event" in done.stdout


def test_a_forged_journal_whose_hashes_are_right_does_not_have_the_head(proved):
    head = proved.ms("verify", "--head").stdout.strip()
    with open_journal(journal_of(proved)) as old, open_journal(proved.path / "forged.db") as new:
        for event in old.read("demo"):
            data = event.data.replace(b'"exit_code":0', b'"exit_code":0').replace(b"energy", b"Energy")
            new.append("demo", [NewEvent(event.type, event.subject, data)], at=event.at)
    assert proved.json("verify", "--journal", "forged.db")["ok"]
    done = proved.ms("verify", "--journal", "forged.db", "--expect", head, code=1)
    assert "or another before it" in done.stdout
    assert not proved.json("verify", "--journal", "forged.db", "--expect", head, code=1)["expected"]["ok"]


def test_a_changed_journal_has_no_head(proved):
    head = proved.ms("verify", "--head").stdout.strip()
    altered(proved, "UPDATE events SET data = replace(data, 'energy', 'Energy') WHERE data LIKE '%energy%'")
    for arguments in (["--head"], ["--expect", head], ["--files"]):
        done = proved.ms("verify", *arguments, code=1)
        assert "hash does not match" in done.stdout
        assert "ms1:" not in done.stdout


def test_a_head_of_another_run_or_of_no_form_is_refused(proved):
    head = proved.ms("verify", "--head").stdout.strip()
    assert "is not in this journal" in proved.ms("verify", "--expect", head.replace("demo", "dem"), code=1).stdout
    for wrong in ("", "ms1:demo:3", head[:-1], head.replace("ms1", "ms2"), head.replace(":demo:", ":demo:0")):
        if wrong:
            assert "Nothing was compared" in proved.fails("verify", "--expect", wrong)


def test_a_run_records_who_started_it_and_what_its_tasks_left(proved):
    with open_journal(journal_of(proved)) as journal:
        events = {(e.type, e.subject): ev.decode(e.type, e.data) for e in journal.read("demo")}
        kinds = [e.type for e in journal.read("demo")]
    files = events["FilesRecorded", "demo/one"].files
    assert set(files) == {"energy", "d/x.log"}
    assert files["energy"] == ev.FileSum(hashlib.sha256(b"42\n").hexdigest(), 3)
    assert ("FilesRecorded", "demo/two") not in events
    assert events["RunStarted", "demo"].user
    assert kinds[-2:] == ["FilesRecorded", "RunStopped"]
    assert "2 outputs of 1 attempt, 0.0 MB: as recorded" in proved.ms("verify", "--files").stdout


@pytest.mark.parametrize(
    ("change", "name", "what"),
    [
        (lambda out: (out / "energy").write_text("43\n"), "energy", "changed"),
        (lambda out: (out / "energy").write_text("4"), "energy", "changed"),
        (lambda out: (out / "d/x.log").unlink(), "d/x.log", "missing"),
        (lambda out: ((out / "energy").unlink(), (out / "energy").symlink_to("scratch")), "energy", "missing"),
    ],
)
def test_an_output_that_is_not_as_recorded_is_named(proved, change, name, what):
    change(proved.out)
    done = proved.ms("verify", "--files", code=1)
    assert f"one, attempt 1: {name}: {what}" in done.stdout
    found = proved.json("verify", "demo", "--files", code=1)
    assert found["files"]["findings"] == [{"task": "one", "attempt": 1, "name": name, "what": what}]


def test_a_directory_that_is_gone_is_so_many_missing_files(proved):
    shutil.rmtree(proved.path / "results")
    assert "2 not as recorded" in proved.ms("verify", "--files", code=1).stdout


def test_what_is_not_recorded_is_said_and_can_be_recorded_once(proved):
    with open_journal(journal_of(proved)) as old, open_journal(proved.path / "old.db") as new:
        for event in old.read("demo"):
            if event.type != "FilesRecorded":
                new.append("demo", [NewEvent(event.type, event.subject, event.data)], at=event.at)
    done = proved.ms("verify", "--files", "--journal", "old.db")
    assert "nothing is recorded yet of the outputs of 1 completed task, such as 'one'" in done.stdout
    assert proved.json("verify", "--record-files", "--journal", "old.db")["recorded"] == 1
    assert proved.json("verify", "--record-files", "--journal", "old.db")["recorded"] == 0
    assert proved.json("verify", "--files", "--journal", "old.db")["files"]["files"] == 2


def test_a_name_that_is_no_utf8_is_recorded_and_found_again(project):
    project.workflow(
        (
            "one",
            r"""printf x > "$(printf 'a\377b')"; : > 'weird
name'""",
            {"outputs": ["*"]},
        )
    )
    project.ms("run", "wf.yaml")
    found = project.json("verify", "--files")["files"]
    assert found["findings"] == []
    (project.path / "results/demo/one/1").joinpath("a\udcffb").unlink()
    (finding,) = project.json("verify", "--files", code=1)["files"]["findings"]
    assert finding["name"] == "a\\xffb"


def test_export_writes_one_record_an_attempt(proved):
    assert proved.ms("export").stdout == "demo.jsonl\n"
    records = [json.loads(line) for line in (proved.path / "demo.jsonl").read_text().splitlines()]
    assert {(one["task"], one["attempt"]) for one in records} == {("one", 1), ("two", 1)}
    assert proved.ms("export", "demo", "-o", "-").stdout == (proved.path / "demo.jsonl").read_text()
    assert proved.ms("export", "--format", "csv", "-o", "-").stdout.startswith("run,task,attempt,")


def test_export_overwrites_nothing_and_leaves_no_half(proved):
    proved.write("demo.csv", "mine")
    assert "Nothing was written" in proved.fails("export", "--format", "csv")
    assert (proved.path / "demo.csv").read_text() == "mine"
    assert "Nothing was written" in proved.fails("export", "--format", "rocrate", "-o", "-")
    assert "no run" in proved.fails("export", "dem")
    proved.fails("export", "-o", "no/such/place.jsonl")
    assert sorted(path.name for path in proved.path.glob(".*")) == [".matterstack"]


def test_export_of_a_crate(proved):
    pytest.importorskip("rocrate")
    assert proved.ms("export", "--format", "rocrate").stdout == "demo.crate\n"
    assert (proved.path / "demo.crate/ro-crate-metadata.json").is_file()
    assert "exists" in proved.fails("export", "--format", "rocrate")
