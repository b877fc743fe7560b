"""Retrieval with real shells and tools: what comes back is whole and checked, and lies where it belongs."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from shlex import quote

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

from matterstack.errors import TransportError
from matterstack.runtime.backends.hpc.retrieval import Wanted, fetch_file, read_range, retrieve
from matterstack.runtime.transports.local import LocalTransport

NO_OPENSSL = "exit 1"


@pytest.fixture(params=SHELLS)
def place(request, tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch, request.param)


@pytest.fixture(params=["openssl", "sha256sum"])
def hashing(request, place):
    if request.param == "sha256sum":
        place.command("openssl", NO_OPENSSL)


@pytest.fixture
def here(tmp_path):
    return tmp_path / "here"


def bring(place, *wanted, transport=None, **more):
    return retrieve(transport or LocalTransport(), str(place.root), wanted, **more)


def want(here, directory="run/a/1", include: tuple[str, ...] | None = None, exclude=(), *, logs=True):
    return Wanted(directory, include, exclude, here / directory, logs=logs)


FILES = {
    "stdout.txt": "out\n",
    "stderr.txt": "err\n",
    "in.dat": "input",
    "e.json": "-1",
    "d/e.json": "-2",
    "d/e/f.json": "-3",
    "d/x1": "1",
    "d/x2": "2",
    "a*b": "star",
    "axb": "no star",
    ".hidden": "h",
    ".matterstack/exit": "ours",
}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), ""),
        (("e.json", "none"), (), "e.json"),
        (("*.json",), (), "e.json d/e.json d/e/f.json"),
        (("**/*.json",), (), "d/e.json d/e/f.json"),
        (("d/*",), ("*.json",), "d/x1 d/x2"),
        (("d/x?",), (), "d/x1 d/x2"),
        (("d/x[!1]",), (), "d/x2"),
        (("a*b",), (), "a*b axb"),
        (("a[*]b",), (), "a*b"),
        (("d",), (), ""),
        (("nothing*",), (), ""),
        ((".matterstack/exit", ".hidden"), (), ".hidden"),
        ((".*",), (), ".hidden"),
        (None, ("d/*", "in.dat"), "e.json a*b axb .hidden"),
        (None, (), "in.dat e.json d/e.json d/e/f.json d/x1 d/x2 a*b axb .hidden"),
    ],
)
def test_globs_take_what_they_say_and_logs_come_along(place, here, include, exclude, expected):
    place.attempt("run/a/1", FILES)
    assert bring(place, want(here, include=include, exclude=exclude)) == {}
    found = tree(here / "run/a/1")
    assert found == {name: FILES[name].encode() for name in [*expected.split(), "stdout.txt", "stderr.txt"]}
    assert bring(place, want(here / "no logs", include=include, exclude=exclude, logs=False)) == {}
    assert sorted(tree(here / "no logs/run/a/1")) == sorted(
        [*expected.split(), *(["stdout.txt", "stderr.txt"] if include is None else [])]
    )


@pytest.mark.usefixtures("hashing")
def test_many_attempts_come_in_one_command_or_two(place, here):
    for i in range(60):
        place.attempt(f"run/t{i}/1", {"stdout.txt": f"{i}\n", "out": f"result {i}", "other": "x"})
    for include, commands in ((("out",), 1), (("o*t",), 2)):
        counting = Counting()
        target = here / str(commands)
        wanted = [want(target, f"run/t{i}/1", include) for i in range(60)]
        assert bring(place, *wanted, transport=counting) == {}
        assert counting.commands == commands
        assert tree(target) == {
            name: data.encode()
            for i in range(60)
            for name, data in ((f"run/t{i}/1/stdout.txt", f"{i}\n"), (f"run/t{i}/1/out", f"result {i}"))
        }


@pytest.mark.usefixtures("hashing")
@pytest.mark.parametrize("include", [None, tuple(n for n in NAMES if not set(n) & set("*?["))], ids=["all", "plain"])
def test_hostile_names_are_names(place, here, tmp_path, include):
    files = {name: f"of {name}" for name in NAMES}
    place.attempt("run/a/1", files)
    assert bring(place, want(here, include=include)) == {}
    assert tree(here / "run/a/1") == {n: d.encode() for n, d in files.items() if include is None or n in include}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "here", "work space's"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names, max_size=6), st.sampled_from([0, 1, 511, 512, 513, 70_000]))
def test_any_names_and_sizes_come_back(tmp_path_factory, monkeypatch, found, size):
    with monkeypatch.context() as patch:
        tmp_path = tmp_path_factory.mktemp("any")
        place = Place(tmp_path, patch)
        files = {name: os.urandom(size) for name in apart(found)}
        place.attempt("run/a/1", files)
        assert bring(place, want(tmp_path / "here")) == {}
        assert tree(tmp_path / "here/run/a/1") == files
        for name, content in files.items():
            fetch_file(LocalTransport(), str(place.root), "run/a/1", name, tmp_path / "one")
            assert (tmp_path / "one" / name).read_bytes() == content
            assert read_range(LocalTransport(), str(place.root), "run/a/1", name, 3) == content[3:]


def test_names_that_are_no_text_come_back(place, here):
    name = os.fsdecode(b"caf\xe9 \xff\xfe")
    place.attempt("run/a/1", {name: "latin"})
    assert bring(place, want(here)) == {}
    assert tree(here / "run/a/1") == {name: b"latin"}


def test_more_names_than_a_command_takes_as_arguments(place, here):
    files = {f"{'n' * 200}{i:05}": b"%d" % i for i in range(1200)}
    place.attempt("run/a/1", files)
    assert bring(place, want(here)) == {}
    assert tree(here / "run/a/1") == files


# ---- what is not there, and what is no file ---------------------------------------------------------------


def test_what_is_not_there_is_no_problem_and_no_file(place, here):
    place.attempt("run/a/1", {"stdout.txt": ""})
    wanted = [want(here, "run/a/1", ("none",)), want(here, "run/gone/1", ("x",)), want(here, "run/lost/1")]
    assert bring(place, *wanted) == {}
    assert tree(here) == {"run/a/1/stdout.txt": b""}
    assert bring(place) == {}


@pytest.mark.parametrize("include", [("x",), None])
def test_a_workspace_that_is_gone_is_told(place, here, include):
    with pytest.raises(TransportError, match="exit code 90"):
        bring(place, want(here, include=include))


@pytest.mark.parametrize("include", [("f", "hard", "link", "away", "door/x", "d", "fifo", "dev"), None, ("*",)])
def test_links_and_devices_stay_and_hard_links_become_copies(place, here, tmp_path, include):
    (tmp_path / "private").mkdir()
    (tmp_path / "private/x").write_text("private")
    where = place.attempt("run/a/1", {"f": "1", "d/x": "2"})
    os.link(where / "f", where / "hard")
    (where / "link").symlink_to("f")
    (where / "away").symlink_to(tmp_path / "private/x")
    (where / "door").symlink_to(tmp_path / "private")
    os.mkfifo(where / "fifo")
    notes: dict[str, str] = {}
    assert bring(place, want(here, include=include), note=lambda directory, what: notes.update({what: directory})) == {}
    found = tree(here / "run/a/1")
    expected = {"f": b"1", "hard": b"1"} | ({"d/x": b"2"} if include is None or "*" in include else {})
    assert found == expected
    assert not (here / "run/a/1/f").samefile(here / "run/a/1/hard")
    assert set(notes.values()) == {"run/a/1"}
    told = " ".join(notes)
    assert all(f"'{name}'" in told for name in ("link", "away"))
    assert ("'door/x'" if include == ("f", "hard", "link", "away", "door/x", "d", "fifo", "dev") else "'door'") in told


def test_an_attempt_moved_to_another_disk_comes_back(place, here, tmp_path):
    moved = place.attempt("run/a/1", {"d/x": "1", "stdout.txt": "o"})
    moved.rename(tmp_path / "moved")
    moved.symlink_to(tmp_path / "moved")
    for include in (None, ("d/x",)):
        assert bring(place, want(here, include=include)) == {}
        assert tree(here / "run/a/1") == {"d/x": b"1", "stdout.txt": b"o"}
        (here / "run/a/1/d/x").unlink()


# ---- what goes wrong on the way ---------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["echo more >>", "echo b >", "rm -f"])
def test_a_file_that_changes_while_it_is_sent_is_told_and_the_rest_is_here(place, here, tmp_path, change):
    """Sent first, then changed, then hashed."""
    where = place.attempt("run/a/1", {"stdout.txt": "o", "x": "a\n"})
    place.attempt("run/b/1", {"x": "b\n"})
    place.command("openssl", NO_OPENSSL)
    sent = tmp_path / "sent"
    place.command("tar", f'"$real" "$@"; code=$?; {change} {quote(f"{where}/x")}; true >{quote(str(sent))}; exit $code')
    place.command("sha256sum", f'{place.wait(sent)}; exec "$real" "$@"')
    problems = bring(place, want(here, include=("x",)), want(here, "run/b/1", ("x",)))
    assert set(problems) == {"run/a/1"}
    assert "'x'" in problems["run/a/1"] or "x: No such file" in problems["run/a/1"]
    assert tree(here) == {"run/a/1/stdout.txt": b"o", "run/b/1/x": b"b\n"}
    for command in ("tar", "sha256sum", "openssl"):
        (place.bin / command).unlink()
    assert bring(place, want(here, include=("x",))) == {}
    assert tree(here / "run/a/1").get("x") == {"echo more >>": b"a\nmore\n", "echo b >": b"b\n"}.get(change)


@pytest.mark.parametrize("words", ["sha256sum: run/a/1/x: Permission denied", "sha256sum: 'run/a/1/x': Stale handle"])
def test_a_file_that_cannot_be_read_is_told(place, here, words):
    """As sha256sum says it; the tests may run as root, who can read everything."""
    place.attempt("run/a/1", {"x": "1"})
    place.attempt("run/b/1", {"x": "2"})
    place.command("openssl", NO_OPENSSL)
    place.command("sha256sum", f'echo "{words}" >&2; "$real" -- run/b/1/x /dev/null; exit 1')
    place.command("tar", '[ "$1" = -c ] && printf "run/b/1/x\\0" | "$real" "$@"; exit 2')
    problems = bring(place, want(here, include=("x",), logs=False), want(here, "run/b/1", ("x",), logs=False))
    assert set(problems) == {"run/a/1"}
    assert words.rpartition(": ")[2] in problems["run/a/1"]
    assert tree(here) == {"run/b/1/x": b"2"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
@pytest.mark.usefixtures("hashing")
def test_what_may_not_be_read_is_told(place, here):
    where = place.attempt("run/a/1", {"x": "1", "d/y": "2"})
    (where / "x").chmod(0)
    (where / "d").chmod(0)
    assert "Permission denied" in bring(place, want(here, include=("x",)))["run/a/1"]
    assert "Permission denied" in bring(place, want(here, include=("d/*",)))["run/a/1"]
    (where / "d").chmod(0o700)


@pytest.mark.parametrize(
    ("quoted", "name"),
    [
        (r"'run/a/1/a'$'\n''b'", "a\nb"),
        (r"'run/a/1/c'$'\001\033''[31m'", "c\x01\x1b[31m"),
        (r"'run/a/1/'$'\303\251'", "é"),
        (r"'run/a/1/a\nb'", "a\\nb"),
        ('"run/a/1/it\'s"', "it's"),
        ("run/a/1/a: b", "a: b"),
        ("run/a/1/\x1b[31m", "\x1b[31m"),
    ],
)
def test_a_name_in_a_message_is_the_files_own_and_obeyed_by_no_terminal(place, here, quoted, name):
    """As sha256sum and openssl quote them."""
    place.attempt("run/a/1", {name: "1"})
    denied = quote(f"sha256sum: {quoted}: Permission denied")
    place.command("openssl", NO_OPENSSL)
    place.command("sha256sum", f"printf '%s\\n' {denied} >&2; \"$real\" -- /dev/null")
    place.command("tar", '[ "$1" = -c ] || exec "$real" "$@"; cat >/dev/null; "$real" -c -T /dev/null')
    problems = bring(place, want(here, include=(name,), logs=False))
    assert problems == {"run/a/1": f"{name!r} cannot be read: Permission denied"}
    assert problems["run/a/1"].isprintable()


@pytest.mark.parametrize(("quoted", "name"), [(r"'run/a/1/d\nd'", "d\nd"), (r"'run/a/1/it\'s'", "it's")])
def test_a_directory_s_name_in_a_message_is_its_own(place, here, quoted, name):
    """As find quotes them."""
    place.attempt("run/a/1", {"x": "1"})
    denied = quote(f"find: {quoted}: Permission denied")
    place.command("find", f'"$real" "$@"; printf \'%s\\n\' {denied} >&2; exit 1')
    assert bring(place, want(here)) == {"run/a/1": f"{name!r} cannot be read: Permission denied"}


def test_a_link_with_line_breaks_in_its_name_is_noted_by_it(place, here):
    (place.attempt("run/a/1", {"x": "1"}) / "l\nm").symlink_to("x")
    notes: list[str] = []
    assert bring(place, want(here, include=("l\nm", "x"), logs=False), note=lambda _, what: notes.append(what)) == {}
    assert notes == ["'l\\nm' is a link, or behind one"]


def test_of_many_files_with_problems_some_are_named(place, here):
    names = [f"x{i}" for i in range(9)]
    where = place.attempt("run/a/1", dict.fromkeys(names, "new"))
    for name in names:
        (here / "run/a/1" / name).mkdir(parents=True)
    assert where.is_dir()
    problem = bring(place, want(here))["run/a/1"]
    assert problem.count("cannot be written here") == 3
    assert problem.endswith("; and 6 more")


def test_a_directory_that_cannot_be_listed_is_told(place, here):
    for task in ("a", "b"):
        place.attempt(f"run/{task}/1", {"x": "1"})
    denied = "find: 'run/a/1/d': Permission denied"
    place.command("find", f'"$real" "$@"; case $2 in run/a/1) echo "{denied}" >&2; exit 1 ;; esac')
    problems = bring(place, want(here), want(here, "run/b/1"))
    assert set(problems) == {"run/a/1"}
    assert "Permission denied" in problems["run/a/1"]
    assert tree(here) == {"run/a/1/x": b"1", "run/b/1/x": b"1"}


def test_a_stream_cut_anywhere_leaves_nothing_and_is_taken_again(place, here):
    place.attempt("run/a/1", {"stdout.txt": "o" * 700, "d/x": "1" * 3000, "e": ""})
    (here / "run/a/1").mkdir(parents=True)
    (here / "run/a/1/stdout.txt").write_text("of an earlier time")
    for taken in [*range(0, 7 * 512, 512), 1, 100, 513, 1700, 4000]:
        with pytest.raises(TransportError):
            bring(place, want(here, include=("d/x", "e")), transport=Cut(taken=taken))
        found = tree(here)
        assert found == {"run/a/1/stdout.txt": b"of an earlier time"}
    assert bring(place, want(here, include=("d/x", "e"))) == {}
    assert tree(here / "run/a/1") == {"stdout.txt": b"o" * 700, "d/x": b"1" * 3000, "e": b""}


def test_long_hashing_on_the_cluster_is_heard_of(place, here, tmp_path):
    place.attempt("run/a/1", {"x": "1"})
    place.hurry(tmp_path / "slept")
    place.command("openssl", NO_OPENSSL)
    place.command("sha256sum", f'{place.wait(tmp_path / "slept/3")}; exec "$real" "$@"')
    heard = Heard()
    assert bring(place, want(here, include=("x",)), transport=heard) == {}
    assert len(heard.out) % 512 >= 2, "more came than tar's blocks"
    assert tree(here / "run/a/1") == {"x": b"1"}


@pytest.mark.parametrize("command", ["tar", "xargs", "find"])
def test_a_missing_tool_is_told(place, here, command):
    place.attempt("run/a/1", {"x": "1"})
    place.command(command, "exit 127")
    if command == "find":
        assert set(bring(place, want(here))) == {"run/a/1"}
    else:
        with pytest.raises(TransportError, match="whole"):
            bring(place, want(here, include=None if command == "xargs" else ("x",)))
        with pytest.raises(TransportError, match="whole"):
            bring(place, want(here, include=("x",)))
    assert tree(here) == {}


@pytest.mark.parametrize("nth", [2, 3, 4])
def test_a_tool_that_is_killed_is_told(place, here, tmp_path, nth):
    """One of the xargs: of names to hash, of names to send, of the hashes. The first of all only makes notes."""
    place.attempt("run/a/1", {"x": "1"})
    place.command("openssl", NO_OPENSSL)
    taken = f"mkdir {quote(str(tmp_path))}/run.$i 2>/dev/null"
    count = f"n=0; for i in 1 2 3 4; do if {taken}; then n=$i; break; fi; done"
    place.command("xargs", f'{count}; [ $n != {nth} ] || kill -9 $$; exec "$real" "$@"')
    with contextlib.suppress(TransportError):
        assert set(bring(place, want(here, include=("x",)))) == {"run/a/1"}
    assert tree(here) == {}
    assert bring(place, want(here, include=("x",))) == {}
    assert tree(here) == {"run/a/1/x": b"1"}


def test_noise_does_not_matter(place, here):
    class Noisy(LocalTransport):
        def run(self, script, **more):
            return super().run(f"printf 'Last login: never' >&2\n{script}", **more)

    place.attempt("run/a/1", {"x": "1"})
    assert bring(place, want(here), transport=Noisy()) == {}
    assert tree(here / "run/a/1") == {"x": b"1"}


# ---- full disks -------------------------------------------------------------------------------------------


def test_results_come_back_from_a_full_disk(place, here):
    mounted(place.root, "300k")
    try:
        place.attempt("run/a/1", {"stdout.txt": "out of space\n", "x": "1"})
        fill(place.root)
        assert bring(place, want(here, include=("x",))) == {}
        assert bring(place, want(here / "all")) == {}
    finally:
        unmount(place.root)
    assert tree(here / "run/a/1") == {"stdout.txt": b"out of space\n", "x": b"1"}
    assert set(tree(here / "all/run/a/1")) == {"stdout.txt", "x"}


@pytest.mark.parametrize("full", ["200k", "9m,nr_inodes=6"], ids=["bytes", "inodes"])
def test_a_full_disk_here_leaves_nothing_half(place, here, full):
    files = {"stdout.txt": "o", "big": "x" * 500_000, "other": "1"}
    place.attempt("run/a/1", files)
    mounted(here, full)
    try:
        with pytest.raises(OSError, match="No space left") as raised:
            bring(place, want(here))
        assert raised.value.errno == errno.ENOSPC
        assert tree(here) == {}
        resize(here, "9m,nr_inodes=99")
        assert bring(place, want(here)) == {}
        assert tree(here / "run/a/1") == {name: data.encode() for name, data in files.items()}
    finally:
        unmount(here)


# ---- what lies here already -------------------------------------------------------------------------------


def test_it_is_done_again_over_what_is_there_and_leaves_nothing_of_its_own(place, here):
    where = place.attempt("run/a/1", {"stdout.txt": "first", "d/x": "1"})
    assert bring(place, want(here)) == {}
    (where / "stdout.txt").write_text("second")
    (here / "run/a/1/mine").write_text("of the user")
    assert bring(place, want(here)) == {}
    assert tree(here / "run/a/1") == {"stdout.txt": b"second", "d/x": b"1", "mine": b"of the user"}
    assert not (here / "run/a/1/.matterstack").exists()


def test_what_a_killed_process_left_is_removed_when_it_is_old(place, here):
    place.attempt("run/a/1", {"x": "1"})
    for name, age_s in (("incoming.old", 2 * 86400), ("incoming.young", 60)):
        left = here / "run/a/1/.matterstack" / name
        left.mkdir(parents=True)
        (left / "0.part").write_text("half")
        os.utime(left, (time.time() - age_s,) * 2)
    assert bring(place, want(here)) == {}
    assert set(tree(here / "run/a/1")) == {"x", ".matterstack/incoming.young/0.part"}


def test_long_names_that_begin_alike_are_not_mixed_up(place, here):
    files = {"n" * 250 + str(i): f"{i}" for i in range(5)}
    place.attempt("run/a/1", files)
    assert bring(place, want(here)) == {}
    assert tree(here / "run/a/1") == {name: data.encode() for name, data in files.items()}


def test_two_at_once_do_not_disturb_each_other(place, here):
    """While one is under way, another brings the same file."""
    place.attempt("run/a/1", {"x": "1" * 100_000})
    inner: list[object] = []
    meddling = Meddling("tar -c", lambda: inner.append(bring(place, want(here))))
    assert bring(place, want(here), transport=meddling) == {}
    assert inner == [{}]
    assert tree(here / "run/a/1") == {"x": b"1" * 100_000}


@pytest.mark.parametrize(("there", "name"), [("x/y", "x"), ("x", "x/y"), ("x/y", "x/y/z")])
def test_what_stands_in_the_way_here_is_told_and_kept(place, here, there, name):
    place.attempt("run/a/1", {name: "new", "stdout.txt": "o"})
    place.attempt("run/b/1", {name: "new"})
    (here / "run/a/1" / there).parent.mkdir(parents=True)
    (here / "run/a/1" / there).write_text("old")
    problems = bring(place, want(here), want(here, "run/b/1"))
    assert set(problems) == {"run/a/1"}
    assert f"{name!r} cannot be written here" in problems["run/a/1"]
    assert tree(here) == {
        f"run/a/1/{there}": b"old",
        "run/a/1/stdout.txt": b"o",
        f"run/b/1/{name}": b"new",
    }


def test_a_link_that_lies_here_is_not_followed(place, here, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private/x").write_text("private")
    place.attempt("run/a/1", {"d/x": "1", "x": "2"})
    (here / "run/a/1").mkdir(parents=True)
    (here / "run/a/1/d").symlink_to(tmp_path / "private")
    (here / "run/a/1/x").symlink_to(tmp_path / "private/x")
    assert "would leave" in bring(place, want(here))["run/a/1"]
    assert tree(tmp_path / "private") == {"x": b"private"}
    assert (here / "run/a/1/x").read_text() == "2"
    assert not (here / "run/a/1/x").is_symlink()


def test_a_limit_is_a_limit(place, here):
    place.attempt("run/a/1", {"x": "1" * 600})
    place.attempt("run/b/1", {"x": "1" * 600, "y": "1" * 300})
    problems = bring(place, want(here), want(here, "run/b/1"), limit_bytes=1000)
    assert set(problems) == {"run/b/1"}
    assert "limit" in problems["run/b/1"]
    assert sum(len(data) for data in tree(here).values()) == 900


# ---- one file, and parts of one ---------------------------------------------------------------------------


def test_one_file_is_fetched_and_nothing_else(place, here):
    place.attempt("run/a/1", {"d/a*b": "star", "d/axb": "x", "stdout.txt": "o"})
    fetch_file(LocalTransport(), str(place.root), "run/a/1", "d/a*b", here)
    assert tree(here) == {"d/a*b": b"star"}


@pytest.mark.parametrize(
    "name", ["none", "d", "link", "", "/etc/passwd", "../b/1/x", "d/../x", ".", ".matterstack/exit", "a\0b", "x" * 256]
)
def test_what_cannot_be_fetched_is_told(place, here, tmp_path, name):
    where = place.attempt("run/a/1", {"x": "1", "d/x": "2", ".matterstack/exit": "ours"})
    place.attempt("run/b/1", {"x": "of another"})
    (where / "link").symlink_to(tmp_path)
    with pytest.raises(FileNotFoundError):
        fetch_file(LocalTransport(), str(place.root), "run/a/1", name, here)
    assert tree(here) == {}


def test_a_file_of_an_earlier_time_is_not_taken_for_the_one_that_is_asked_for(place, here):
    where = place.attempt("run/a/1", {"x": "1"})
    fetch_file(LocalTransport(), str(place.root), "run/a/1", "x", here)
    (where / "x").unlink()
    with pytest.raises(FileNotFoundError):
        fetch_file(LocalTransport(), str(place.root), "run/a/1", "x", here)


def test_a_log_is_read_from_anywhere(place):
    place.attempt("run/a/1", {"stdout.txt": b"0123\xff\0end", "a'b\n": "quoted"})

    def read(name, offset):
        return read_range(LocalTransport(), str(place.root), "run/a/1", name, offset)

    assert read("stdout.txt", 0) == b"0123\xff\0end"
    assert read("stdout.txt", 4) == b"\xff\0end"
    assert read("stdout.txt", 9) == read("stdout.txt", 10**12) == read("none", 0) == b""
    assert read("a'b\n", 2) == b"oted"
    assert read_range(LocalTransport(), str(place.root), "run/a/1", "stdout.txt", 2, 4) == b"23\xff\0"
    with pytest.raises(TransportError):
        read_range(LocalTransport(), str(place.root / "none"), "run/a/1", "stdout.txt", 0)
