"""Staging with real shells and a real tar: what an attempt brings lies where it belongs, or nothing may start."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import pytest
from file_place import (
    NAMES,
    SHELLS,
    Counting,
    Cut,
    Heard,
    Meddling,
    Place,
    apart,
    fill,
    mounted,
    names,
    resize,
    tree,
    unmount,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matterstack.core.spec import FileDigest
from matterstack.core.workflow import file_name_problem
from matterstack.errors import AccessError, BackendUnavailable
from matterstack.runtime.backends.hpc.staging import LARGE, Inputs, Upstream, stage
from matterstack.runtime.staging import digest

UNPACK = "tar -x"


@pytest.fixture(params=SHELLS)
def place(request, tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch, request.param)


def brings(directory, files=(), **more):
    return Inputs(directory, dict(files), {"command": b"true", **more.pop("own", {})}, **more)


def content(place, name):
    return (place.root / name).read_text()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def in_store(place):
    return tree(place.root / ".matterstack/store") if (place.root / ".matterstack/store").exists() else {}


# ---- what lies where ------------------------------------------------------------------------------------


def test_everything_lies_where_it_belongs_and_for_nobody_else(place, tmp_path):
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "data").write_bytes(b"\0\xff")
    one = brings(
        "run/a/1",
        {"in/text": "é\n", "run.sh": tmp_path / "run.sh", "data": tmp_path / "data", "empty": ""},
        own={"env": b"set -- A=1\n"},
        secret={"secrets": b"export KEY=opensesame\n"},
    )
    before = time.time()
    assert stage(place.remote(), [one], {".matterstack/submissions/T/job.sh": b"#!/bin/sh\n"}) == {}
    assert tree(place.root) == {
        "run/a/1/in/text": "é\n".encode(),
        "run/a/1/run.sh": b"#!/bin/sh\n",
        "run/a/1/data": b"\0\xff",
        "run/a/1/empty": b"",
        "run/a/1/.matterstack/command": b"true",
        "run/a/1/.matterstack/env": b"set -- A=1\n",
        "run/a/1/.matterstack/secrets": b"export KEY=opensesame\n",
        ".matterstack/submissions/T/job.sh": b"#!/bin/sh\n",
    }
    modes = {str(p.relative_to(place.root)): mode(p) for p in place.root.rglob("*")}
    assert {name for name, found in modes.items() if found == 0o700} == {
        name for name in modes if (place.root / name).is_dir() or name.endswith("run.sh")
    }
    assert set(modes.values()) == {0o700, 0o600}
    # Purgers of scratch file systems remove old files: what was staged just now must not look old.
    assert all(p.stat().st_mtime >= before - 5 for p in place.root.rglob("*"))


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_hostile_names_are_names(place, tmp_path, shared):
    assert [name for name in NAMES if file_name_problem(name)] == []
    files = {name: "shared" if shared else f"of {name}" for name in NAMES}
    assert stage(place.remote(), [brings("run/a/1", files), brings("run/b/1", files)], {}) == {}
    for task in ("a", "b"):
        expected = {name: data.encode() for name, data in files.items()}
        assert tree(place.root / f"run/{task}/1") == {**expected, ".matterstack/command": b"true"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "work space's"]
    assert sorted(p.name for p in place.root.iterdir()) == [".matterstack", "run"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, st.sampled_from(["", "same", "x" * 600]), max_size=6), st.lists(names, max_size=3))
def test_any_names_and_contents_arrive(tmp_path_factory, monkeypatch, files, passed):
    with monkeypatch.context() as patch:
        place = Place(tmp_path_factory.mktemp("any"), patch)
        files = {name: files[name] for name in apart(list(files))}
        passed = apart(passed)
        place.attempt("up/u/1", {name: f"passed {name}" for name in passed})
        ups = {f"up{n}/{name}": Upstream("up/u/1", name) for n, name in enumerate(passed)}
        ups = {name: up for name, up in ups.items() if not file_name_problem(name)}
        assert stage(place.remote(), [brings("run/a/1", {**files, **ups}), brings("run/b/1", files)], {}) == {}
        expected = {".matterstack/command": b"true", **{name: data.encode() for name, data in files.items()}}
        assert tree(place.root / "run/b/1") == expected
        expected |= {name: f"passed {up.path}".encode() for name, up in ups.items()}
        assert tree(place.root / "run/a/1") == expected


@pytest.mark.parametrize("run", ["new", "stage", "store", "-".join("ab"), "a.b", "x" * 128])
def test_runs_may_be_called_anything(place, run):
    big = "b" * (LARGE + 1)
    inputs = [brings(f"{run}/{run}/1", {"new/new": "1", "big": big}), brings(f"{run}/t/1", {"new/new": "1"})]
    assert stage(place.remote(), inputs, {}) == {}
    assert content(place, f"{run}/{run}/1/new/new") == content(place, f"{run}/t/1/new/new") == "1"
    assert content(place, f"{run}/{run}/1/big") == big


def test_nothing_to_stage_is_nothing_wrong(place):
    assert stage(place.remote(), [], {}) == {}


def test_what_is_there_is_left_as_it_was_set_up(place):
    """A user may share a run with the group, or keep it on another disk."""
    elsewhere = place.root.parent / "other disk"
    elsewhere.mkdir()
    (place.root / "run").mkdir(parents=True)
    (place.root / "run").chmod(0o750)
    (place.root / "far").symlink_to(elsewhere)
    assert stage(place.remote(), [brings("run/a/1"), brings("far/a/1", {"x": "1"})], {}) == {}
    assert mode(place.root / "run") == 0o750
    assert (place.root / "far").is_symlink()
    assert (elsewhere / "a/1/x").read_text() == "1"


# ---- what is sent -----------------------------------------------------------------------------------------


def test_shared_content_is_sent_once_whatever_it_is_called(place):
    text = [os.urandom(2000).hex() for _ in range(9)]
    inputs = [
        brings(f"run/t{i}/1", {**{f"in{k} of {i}": text[k] for k in range(9)}, "own": f"{i}"}) for i in range(300)
    ]
    counting = Counting()
    assert stage(place.remote(counting), inputs, {}) == {}
    assert counting.commands == 1
    assert counting.bytes < 9 * 4512 + 300 * 10 * 512
    for i in (0, 199, 200, 299):
        assert [content(place, f"run/t{i}/1/in{k} of {i}") for k in range(9)] == text
        assert content(place, f"run/t{i}/1/own") == f"{i}"
    assert set(in_store(place)) == {f"{d[:2]}/{d}" for d in (sha256(one.encode()).hexdigest() for one in text)}


def test_copies_are_independent(place):
    big = "b" * (LARGE + 1)
    files = {"same": "s", "big": big}
    assert stage(place.remote(), [brings("run/a/1", files), brings("run/b/1", files)], {}) == {}
    for name in files:
        (place.root / "run/a/1" / name).write_text("the task wrote this")
    assert content(place, "run/b/1/same") == "s"
    assert content(place, "run/b/1/big") == big
    assert stage(place.remote(), [brings("run/c/1", files), brings("run/d/1", files)], {}) == {}
    assert (content(place, "run/c/1/same"), content(place, "run/c/1/big")) == ("s", big)


def test_large_content_is_asked_for_and_sent_once_for_all_time(place, tmp_path):
    (tmp_path / "big").write_bytes(os.urandom(LARGE + 1))
    (tmp_path / "big").chmod(0o700)
    for task in ("a", "b", "c"):
        counting = Counting()
        assert stage(place.remote(counting), [brings(f"run/{task}/1", {"big": tmp_path / "big"})], {}) == {}
        assert counting.commands == 2
        assert (counting.bytes > LARGE) == (task == "a")
        assert (place.root / f"run/{task}/1/big").read_bytes() == (tmp_path / "big").read_bytes()
        assert mode(place.root / f"run/{task}/1/big") == 0o700


def test_the_same_content_may_be_a_program_here_and_data_there(place, tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).write_text("same")
    (tmp_path / "x").chmod(0o755)
    files = {"x": tmp_path / "x", "y": tmp_path / "y", "z": "same"}
    assert stage(place.remote(), [brings("run/a/1", files), brings("run/b/1", files)], {}) == {}
    for task in ("a", "b"):
        assert [mode(place.root / f"run/{task}/1" / n) for n in "xyz"] == [0o700, 0o600, 0o600]


@pytest.mark.parametrize("damage", ["cut", "other", "gone"])
def test_a_damaged_store_is_seen_and_mended(place, tmp_path, damage):
    (tmp_path / "big").write_bytes(os.urandom(LARGE + 1))
    assert stage(place.remote(), [brings("run/a/1", {"big": tmp_path / "big"})], {}) == {}
    (stored,) = (place.root / ".matterstack/store").rglob("??*/*")

    def harm():
        if damage == "gone":
            stored.unlink()
        else:
            stored.write_bytes(b"" if damage == "cut" else os.urandom(LARGE + 1))

    again = [brings("run/b/1", {"big": tmp_path / "big"})]
    with pytest.raises(BackendUnavailable, match="sent again"):
        stage(place.remote(Meddling(UNPACK, harm)), again, {})
    assert stage(place.remote(), again, {}) == {}
    assert (place.root / "run/b/1/big").read_bytes() == (tmp_path / "big").read_bytes()


def test_secrets_lie_in_their_attempts_and_nowhere_else(place):
    inputs = [
        brings(f"run/{t}/1", {"same": "s"}, secret={"secrets": b"export K=opensesame\n" * 9000}) for t in ("a", "b")
    ]
    counting = Counting()
    assert stage(place.remote(counting), inputs, {}) == {}
    assert {n for n, data in tree(place.root).items() if b"opensesame" in data} == {
        f"run/{t}/1/.matterstack/secrets" for t in ("a", "b")
    }
    assert mode(place.root / "run/a/1/.matterstack/secrets") == 0o600
    assert not any("opensesame" in script for script in counting.scripts)


# ---- what cannot start -----------------------------------------------------------------------------------


def expect(path, **other):
    found = digest("t", path)
    return {str(path): FileDigest(**{n: other.get(n, getattr(found, n)) for n in found.__struct_fields__})}


def test_one_that_cannot_start_keeps_nobody_else_back(place, tmp_path):
    for name in ("same", "changed"):
        (tmp_path / name).write_text(name)
    pinned = expect(tmp_path / "changed")
    (tmp_path / "changed").write_text("something else")
    (tmp_path / "directory").mkdir()
    shared = {"same": tmp_path / "same"}
    inputs = [
        brings("run/gone/1", {**shared, "x": tmp_path / "none"}),
        brings("run/changed/1", {**shared, "x": tmp_path / "changed"}, digests=pinned),
        brings("run/directory/1", {"x": tmp_path / "directory", **shared}),
        brings("run/good/1", shared),
    ]
    problems = stage(place.remote(), inputs, {})
    assert set(problems) == {"run/gone/1", "run/changed/1", "run/directory/1"}
    assert "does not exist" in problems["run/gone/1"]
    assert "has changed since the run recorded it" in problems["run/changed/1"]
    assert "is a directory" in problems["run/directory/1"]
    assert all("The task was not started" in why for why in problems.values())
    assert set(tree(place.root)) == {"run/good/1/same", "run/good/1/.matterstack/command"}


@pytest.mark.parametrize("size", [10, LARGE + 10], ids=["small", "large"])
@pytest.mark.parametrize("what", ["other", "shorter", "gone"])
def test_an_input_that_changes_while_it_is_sent_starts_nothing(place, tmp_path, size, what):
    source = tmp_path / "source"
    source.write_bytes(b"a" * size)
    before = source.stat()
    pinned = expect(source)

    def change():
        source.unlink()
        if what != "gone":
            source.write_bytes(b"b" * (size if what == "other" else size - 5))
            os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))

    inputs = [
        brings("run/a/1", {"x": source}, digests=pinned),
        brings("run/b/1", {"x": source, "y": "y"}, digests=pinned),
        brings("run/c/1", {"y": "y"}),
    ]
    problems = stage(place.remote(Meddling(UNPACK, change)), inputs, {})
    assert set(problems) == {"run/a/1", "run/b/1"}
    assert all("changed since" in why for why in problems.values())
    assert content(place, "run/c/1/y") == "y"
    assert not any(data[:1] in (b"a", b"b") for data in in_store(place).values())


# ---- outputs of others ------------------------------------------------------------------------------------


def test_outputs_of_others_are_copied_on_the_cluster(place):
    up = place.attempt("run/up/2", {"out/energy": "-1.5", "tool": "#!/bin/sh\n", "frozen": "f"})
    (up / "tool").chmod(0o755)
    (up / "frozen").chmod(0o400)
    (up / "latest").symlink_to("out/energy")
    (up / "there").symlink_to("out")
    files = {
        "e": Upstream("run/up/2", "out/energy"),
        "d/l": Upstream("run/up/2", "latest"),
        "m": Upstream("run/up/2", "there/energy"),
        "tool": Upstream("run/up/2", "tool"),
        "frozen": Upstream("run/up/2", "frozen"),
    }
    counting = Counting()
    for _ in range(2):  # again, over what the first time left
        assert stage(place.remote(counting), [brings("run/a/1", files)], {}) == {}
        assert [content(place, f"run/a/1/{name}") for name in files] == ["-1.5"] * 3 + ["#!/bin/sh\n", "f"]
        assert os.access(place.root / "run/a/1/tool", os.X_OK)
        assert not (place.root / "run/a/1/d/l").is_symlink()
    assert counting.bytes < 2 * 20 * 512


def test_a_workspace_behind_a_link_passes_outputs(place, tmp_path):
    (tmp_path / "real").mkdir()
    place.root.symlink_to(tmp_path / "real")
    up = place.attempt("run/up/1", {"out": "1"})
    (up / "link").symlink_to("out")
    files = {"x": Upstream("run/up/1", "out"), "y": Upstream("run/up/1", "link")}
    assert stage(place.remote(), [brings("run/a/1", files)], {}) == {}
    assert content(place, "run/a/1/x") == content(place, "run/a/1/y") == "1"


def test_outputs_that_are_not_there_or_lie_elsewhere_start_nothing(place, tmp_path):
    (tmp_path / "private").write_text("private")
    place.attempt("run/other/1", {"out": "of another"})
    up = place.attempt("run/up/1", {"out": "1", "d/x": ""})
    (up / "away").symlink_to(tmp_path / "private")
    (up / "beside").symlink_to("../../other/1/out")
    (up / "door").symlink_to("../../other/1")
    (up / "dangling").symlink_to("nothing")
    (up / "round").symlink_to("round")
    os.mkfifo(up / "fifo")
    told = {
        "none": "was not written",
        "d": "was not written",
        "fifo": "was not written",
        "dangling": "was not written",
        "round": "was not written",
        "away": "is a link out of that task's directory",
        "beside": "is a link out of that task's directory",
        "door/out": "is a link out of that task's directory",
    }
    inputs = [
        brings(f"run/t{n}/1", {"first": Upstream("run/up/1", "out"), "x": Upstream("run/up/1", name)})
        for n, name in enumerate(told)
    ]
    inputs += [brings("run/lost/1", {"x": Upstream("run/never/1", "out")}), brings("run/good/1", {"x": "1"})]
    problems = stage(place.remote(), inputs, {})
    assert set(problems) == {one.directory for one in inputs} - {"run/good/1"}
    for n, (name, why) in enumerate(told.items()):
        found = problems[f"run/t{n}/1"]
        assert f"{name!r} of task 'up', which {why}" in found
        assert "'out' of" not in found
    assert "'out' of task 'never'" in problems["run/lost/1"]
    assert content(place, "run/good/1/x") == "1"
    assert not any(
        b"private" in data or b"another" in data for name, data in tree(place.root).items() if "run/t" in name
    )


# ---- again, and what has started --------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["claim", "claim.0"])
def test_what_has_started_is_left_alone(place, tmp_path, claim):
    (tmp_path / "big").write_bytes(b"b" * (LARGE + 1))
    (tmp_path / "big").chmod(0o700)
    place.attempt("run/up/1", {"out": "of up"})
    files = {"same": "s", "own": "own", "big": tmp_path / "big", "up": Upstream("run/up/1", "out")}
    inputs = [brings("run/a/1", files, secret={"secrets": b"s"}), brings("run/b/1", {**files, "run/a/1/x": "deep"})]
    assert stage(place.remote(), inputs, {}) == {}
    started = place.root / "run/a/1"
    (started / ".matterstack" / claim).write_text("claimed")
    (started / ".matterstack/secrets").unlink()
    for name in ("same", "own", "big", "up"):
        (started / name).write_text("the task's")
        (started / name).chmod(0o640)
    (started / ".matterstack/command").write_text("the task's")
    before = {p: p.stat().st_ino for p in started.rglob("*")}
    left = tree(started)
    for path in (place.root / "run/b/1").rglob("*"):
        if path.is_file():
            path.write_text("half")
    assert stage(place.remote(), inputs, {}) == {}
    assert tree(started) == left
    assert {p: p.stat().st_ino for p in started.rglob("*")} == before
    assert {mode(started / name) for name in ("same", "own", "big", "up")} == {0o640}
    assert content(place, "run/b/1/same") == "s"
    assert content(place, "run/b/1/up") == "of up"
    assert content(place, "run/b/1/run/a/1/x") == "deep"
    assert (place.root / "run/b/1/big").stat().st_size == LARGE + 1


def test_a_stream_cut_anywhere_is_no_success_and_is_staged_again(place, tmp_path):
    (tmp_path / "big").write_bytes(b"b" * (LARGE + 1))
    files = {"same": "s", "own": "own", "big": tmp_path / "big"}
    inputs = [brings("run/a/1", files), brings("run/b/1", {**files, "own": "other"})]
    whole = Counting()
    place.remote().ask("say hello")
    first = place.root.with_name("first")
    remote = place.remote(whole)
    remote.root = str(first)
    assert stage(remote, inputs, {}) == {}
    head = len(b"run/a/1\nrun/b/1\n\n")
    cuts = [0, 5, head, *range(head + 512, head + 9 * 512, 512), *range(head + 9000, whole.bytes - 1024, 8 * 512 + 1)]
    cuts += range(whole.bytes - 12 * 512, whole.bytes - 2 * 512, 512)  # between files: tar itself sees nothing wrong
    for cut in cuts:
        with pytest.raises(BackendUnavailable):
            stage(place.remote(Cut(sent=cut)), inputs, {})
    assert stage(place.remote(), inputs, {}) == {}
    assert tree(place.root) == tree(first)


def test_what_interrupted_stagings_left_is_removed_when_it_is_old(place):
    place.remote().ask("say hello")
    for name, age_s in (("new.old", 3 * 86400), ("new.young", 60)):
        place.attempt(f".matterstack/{name}", {"content": "x"})
        then = time.time() - age_s
        os.utime(place.root / ".matterstack" / name, (then, then))
    assert stage(place.remote(), [brings("run/a/1", {"x": "1"})], {}) == {}
    assert sorted(p.name for p in (place.root / ".matterstack").iterdir()) == ["new.young"]


# ---- trouble on the cluster -------------------------------------------------------------------------------


@pytest.fixture
def small(place):
    mounted(place.root, "300k")
    yield place
    unmount(place.root)


@pytest.mark.parametrize("files", [{"x": "x" * 400_000}, {"x": "x" * 40_000}, {"x": "x" * 70_000}])
def test_a_full_disk_stages_nothing_and_says_so(small, files):
    inputs = [brings(f"run/t{i}/1", files) for i in range(9)]
    for _ in range(2):
        with pytest.raises(BackendUnavailable, match="No space left on device"):
            stage(small.remote(), inputs, {})
    resize(small.root, "9m")
    assert stage(small.remote(), inputs, {}) == {}
    assert all(content(small, f"run/t{i}/1/x") == files["x"] for i in range(9))


def test_a_disk_full_from_the_start_stages_nothing(small):
    small.remote().ask("say hello")
    fill(small.root)
    with pytest.raises(BackendUnavailable, match="No space left on device"):
        stage(small.remote(), [brings("run/a/1", {"x": "1" * 9000})], {})


def test_a_place_that_cannot_be_written_is_told(place):
    place.root.mkdir()
    (place.root / "run").write_text("a file of somebody")
    (place.root / "far").symlink_to("nothing")
    for run in ("run", "far"):
        with pytest.raises(BackendUnavailable, match=f"{run} is in the way"):
            stage(place.remote(), [brings(f"{run}/a/1", {"x": "1"})], {})
    assert content(place, "run") == "a file of somebody"
    assert (place.root / "far").is_symlink()
    place.root.rename(place.root.with_name("away"))
    place.root.write_text("")
    with pytest.raises(AccessError, match="workspace_root"):
        stage(place.remote(), [brings("run/a/1", {"x": "1"})], {})


@pytest.mark.parametrize("command", ["tar", "sha256sum", "tee", "cp", "mv", "chmod"])
@pytest.mark.parametrize("end", ["echo 'tool: trouble' >&2; exit 1", "kill -9 $PPID"], ids=["fails", "killed"])
def test_a_tool_that_fails_is_no_success(place, tmp_path, command, end):
    (tmp_path / "big").write_bytes(b"b" * (LARGE + 1))
    (tmp_path / "big").chmod(0o700)
    place.command(command, end)
    inputs = [brings(f"run/{t}/1", {"same": "s", "big": tmp_path / "big"}) for t in ("a", "b")]
    with pytest.raises(BackendUnavailable, match="trouble" if "exit" in end else None):
        stage(place.remote(), inputs, {})
    (place.bin / command).unlink()
    assert stage(place.remote(), inputs, {}) == {}
    assert content(place, "run/b/1/same") == "s"


def test_noise_of_the_login_shell_is_no_answer(place):
    class Noisy(Counting):
        def run(self, script, **more):
            return super().run(f"echo staged; echo 'ms-0 staged'; echo noise >&2\n{script}", **more)

    assert stage(place.remote(Noisy()), [brings("run/a/1", {"x": "1"})], {}) == {}
    place.command("tar", "cat >/dev/null; exit 2")
    with pytest.raises(BackendUnavailable):
        stage(place.remote(Noisy()), [brings("run/a/1", {"x": "1"})], {})


def test_few_processes_are_started_whatever_the_number_of_files(place):
    """A process for each file would make thousands; here are a few for each distinct content."""
    log = place.bin.parent / "started"
    for command in ("tar", "sha256sum", "tee", "cp", "mv", "chmod", "mkdir", "readlink"):
        place.command(command, f'echo {command} >>"{log}"; exec "$real" "$@"')
    inputs = [brings(f"run/t{i}/1", {**{f"in{k}": f"{k}" for k in range(9)}, "own": f"own {i}"}) for i in range(100)]
    assert stage(place.remote(), inputs, {}) == {}
    assert len(log.read_text().split()) < 60
    assert subprocess.run(["ls", place.root / "run/t99/1"], capture_output=True, check=True).stdout.count(b"\n") == 10


@pytest.mark.parametrize("command", ["tee", "cp", "sha256sum"])
def test_long_work_on_the_cluster_is_heard_of(place, tmp_path, command):
    """Whoever hears nothing for two minutes gives up; copying and hashing may take hours."""
    place.hurry(tmp_path / "slept")
    place.command(command, f'{place.wait(tmp_path / "slept/3")}; exec "$real" "$@"')
    heard = Heard()
    inputs = [brings(f"run/{t}/1", {"same": "s", "big": "b" * (LARGE + 1)}) for t in ("a", "b")]
    assert stage(place.remote(heard), inputs, {}) == {}
    assert heard.out.count(b" alive\n") >= 2
    assert content(place, "run/b/1/same") == "s"
