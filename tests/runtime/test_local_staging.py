"""Input files: what a task finds in its directory, and what happens when they cannot be put there."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
from campaigns import check_journal, states
from watching import ended

from matterstack import Task, Workflow, run_workflow
from matterstack.errors import MatterStackError, SpecError, SubmitRefusedError


def staged(backend, files, command="true"):
    """Return the directory of a finished task with these files."""
    job_id = backend.submit(Task(command, "a", files=files))
    assert ended(backend, job_id).state == "COMPLETED", backend.get_logs(job_id)
    return backend.workdir(job_id)


def test_text_and_paths_arrive_whole(local, tmp_path):
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)) * 5000)
    files = {"text": "a\nb", "empty": "", "deep/er/name": "deep", "dé 'ß\"$x": "ünï", "bin": binary, "-dash": "d"}
    where = staged(local(), files)
    assert {name: (where / name).read_bytes() for name in files} == {
        "text": b"a\nb",
        "empty": b"",
        "deep/er/name": b"deep",
        "dé 'ß\"$x": "ünï".encode(),
        "bin": binary.read_bytes(),
        "-dash": b"d",
    }
    assert not [path for path in where.rglob("*") if path.name.endswith(".part")]


def test_line_ends_of_text_are_kept(local):
    assert (staged(local(), {"f": "a\r\nb\rc\n"}) / "f").read_bytes() == b"a\r\nb\rc\n"


def test_the_executable_bit_of_a_path_is_kept(local, tmp_path):
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o750)
    backend = local()
    where = staged(backend, {"script.sh": script}, "./script.sh")
    assert (where / "stdout.txt").read_text() == "ran\n"


def test_names_that_look_like_parts_of_others_do_not_hurt_each_other(local):
    files = {"a.part": "two", "a": "one", "b": "three", "b.part": "four"}
    where = staged(local(), files)
    assert {name: (where / name).read_text() for name in files} == files


def test_a_read_only_input_is_staged_and_staged_again(local, tmp_path):
    source = tmp_path / "source"
    source.write_text("x")
    source.chmod(0o400)
    assert (staged(local(), {"f": source}) / "f").read_text() == "x"


def test_the_input_is_copied_so_a_task_that_writes_it_leaves_the_original(local, tmp_path):
    source = tmp_path / "source"
    source.write_text("mine")
    staged(local(), {"f": source}, "echo theirs >f")
    assert source.read_text() == "mine"


def test_a_missing_input_is_refused_by_name(local, tmp_path):
    with pytest.raises(SpecError, match=r"none.*does not exist"):
        local().submit(Task("true", "a", files={"f": tmp_path / "none"}))
    with pytest.raises(SpecError, match="is a directory"):
        local().submit(Task("true", "a", files={"f": tmp_path}))


IMPOSSIBLE = [
    {"a": "file", "a/b": "below it"},
    {"a/b": "below", "a": "file"},
    {"./stdout.txt": "mine"},
    {"stderr.txt/x": "mine"},
    {"./.matterstack.record": "exit 0 end\n"},
    {"x/": "slash"},
    {"x/.": "dot"},
]


@pytest.mark.parametrize("files", IMPOSSIBLE, ids=[" and ".join(files) for files in IMPOSSIBLE])
def test_files_that_cannot_be_made_fail_their_task_and_no_other(local, tmp_path, files):
    try:
        bad = Task("true", "bad", files=files)
    except SpecError:
        return
    workflow = Workflow("run", [bad, Task("true", "good"), Task("true", "better")])
    path = tmp_path / "journal.db"
    result = run_workflow(workflow, backend=local(), journal=path, progress=_no_trouble)
    assert states(result) in (
        {"bad": "SUBMIT_REFUSED", "good": "COMPLETED", "better": "COMPLETED"},
        {"bad": "COMPLETED", "good": "COMPLETED", "better": "COMPLETED"},
    )
    check_journal(path)


def _no_trouble(progress):
    assert not progress.trouble, progress.trouble


def test_an_input_that_becomes_unreadable_fails_its_task_and_no_other(local, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.write_text("x")
    copy = shutil.copy

    def refuse(src, dst):
        if src == source:
            raise PermissionError(errno.EACCES, "Permission denied", str(source))
        return copy(src, dst)

    monkeypatch.setattr("shutil.copy", refuse)
    tasks = [Task("true", "bad", files={"f": source}), Task("true", "good")]
    result = run_workflow(Workflow("run", tasks), backend=local(), journal=tmp_path / "j.db", progress=_no_trouble)
    assert states(result) == {"bad": "SUBMIT_REFUSED", "good": "COMPLETED"}
    assert str(source) in result["bad"].detail


def test_text_that_is_no_text_is_refused_before_anything_is_recorded(local, tmp_path):
    for fields in ({"command": "echo \udc80"}, {"env": {"X": "\udcff"}}, {"files": {"f": "\ud800"}}):
        with pytest.raises(MatterStackError, match="bad"):
            run_workflow(
                Workflow("run", [Task(**{"command": "true", "task_id": "bad", **fields})]),
                backend=local(),
                journal=tmp_path / "j.db",
            )
        with pytest.raises(MatterStackError, match="bad"):
            local().submit(Task(**{"command": "true", "task_id": "bad", **fields}))


def test_submit_alone_refuses_outputs_of_other_tasks(local):
    with pytest.raises(SubmitRefusedError, match="run_workflow"):
        local().submit(Task("true", "b", files={"f": Task("true", "a").output("x")}))


def test_what_the_user_puts_beside_a_record_is_left_alone(local):
    where = staged(local(), {"stdout.txt.old": "x", "record": "y"})
    assert sorted(os.listdir(where)) == [".matterstack.record", "record", "stderr.txt", "stdout.txt", "stdout.txt.old"]
    assert (where / "record").read_text() == "y"
