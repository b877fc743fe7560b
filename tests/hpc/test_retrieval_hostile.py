"""A cluster that sends whatever it likes: nothing is written outside, and nothing that its hash does not vouch for."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pytest
from file_place import Place, apart, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matterstack.errors import TransportError
from matterstack.runtime.backends.hpc.receiving import Receiver, is_inside
from matterstack.runtime.backends.hpc.retrieval import Wanted, retrieve
from matterstack.runtime.backends.hpc.tar import DamagedTarError, TarReader, TarStream, gathered
from matterstack.runtime.transports.local import LocalTransport

A, B = "run/a/1", "run/b/1"
BLOCK = 512
QUIET = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.pax_headers = len(data), kind, link, pax
    form = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    return info.tobuf(form, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + bytes(2 * BLOCK)


def with_size(raw: bytes, block: int = 0) -> bytes:
    """Return a header with another size field, and the right checksum."""
    head = bytearray(block_of(member(f"{A}/x", b"1")))
    head[124:136] = raw
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(block)


def block_of(data: bytes) -> bytes:
    return data[:BLOCK]


class Sending:
    """A real workspace on a cluster whose tar sends what it is told to."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = Place(tmp_path, monkeypatch)
        self.here, self._file = tmp_path / "here", tmp_path / "stream"
        self.place.command("tar", f'cat >/dev/null; cat "{self._file}"')
        self.place.attempt(A, {"x": "of a", "y": "y of a"})
        self.place.attempt(B, {"x": "of b"})
        (self.here / B).mkdir(parents=True)
        (self.here / B / "x").write_text("evidence")

    def retrieve(self, stream: bytes, names: Iterable[str] = ("x", "y")) -> dict[str, str]:
        self._file.write_bytes(stream)
        wanted = [Wanted(A, tuple(names), (), self.here / A, logs=False)]
        return retrieve(LocalTransport(), str(self.place.root), wanted)


@pytest.fixture
def sending(tmp_path, monkeypatch):
    made = Sending(tmp_path, monkeypatch)
    before = {path for path in tmp_path.rglob("*") if made.here / A not in path.parents}
    yield made
    after = {path for path in tmp_path.rglob("*") if made.here / A not in (path, *path.parents)}
    assert after - before <= {tmp_path / "stream", made.here / "run", made.here / "run/a"}
    assert (made.here / B / "x").read_text() == "evidence"


GOOD = [member(f"{A}/x", b"of a"), member(f"{A}/y", b"y of a")]


def test_what_is_asked_for_is_taken(sending):
    assert sending.retrieve(archive(*GOOD)) == {}
    assert tree(sending.here / A) == {"x": b"of a", "y": b"y of a"}


OUTSIDE = [
    *("/etc/passwd", "../x", f"{A}/../../b/1/x", f"{A}/d/../../../b/1/x", f"{A}/..", f"{A}/.", A, f"{A}/", "run", ""),
    *(f"/{A}/x", f"./{A}/x", f"{A}//x", f"{A}/./x", f"{B}/x", "run/a/2/x", f"{A}/none", f"{A}/.matterstack/exit"),
    *(f"{A}/x/", f"{A}/x/y", f"{A}/{'x' * 256}", f"{A}/\udcff", f"{A}/a\nb", "C:\\x", f"{A}\\x"),
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("pax", [False, True], ids=["gnu", "pax"])
def test_what_nobody_asked_for_is_not_written(sending, name, pax):
    bad = member(f"{A}/x", b"bad", path=name) if pax else member(name, b"bad")
    assert sending.retrieve(archive(bad, *GOOD)) == {}
    assert tree(sending.here / A) == {"x": b"of a", "y": b"y of a"}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_lies_outside_stays_there_even_when_it_is_asked_for(sending, name):
    full = f"{A}/{name}"
    with contextlib.suppress(TransportError):
        sending.retrieve(archive(member(full, b"bad"), *GOOD), ["x", "y", name])
    assert set(tree(sending.here / A)) <= {"x", "y"}


@pytest.mark.parametrize(
    "kind",
    [
        *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE),
        *(tarfile.GNUTYPE_SPARSE, b"V", b"M", b"Z"),
    ],
)
def test_only_regular_files_are_made(sending, kind):
    link = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    problems = sending.retrieve(archive(member(f"{A}/x", kind=kind, link=link), GOOD[1]))
    assert "'x'" in problems[A]
    assert tree(sending.here / A) == {"y": b"y of a"}
    # A link first, and then a file "through" it.
    door = member(f"{A}/x", kind=tarfile.SYMTYPE, link=str(sending.here / B / "x"))
    assert sending.retrieve(archive(door, *GOOD)) == {}
    assert tree(sending.here / A) == {"x": b"of a", "y": b"y of a"}


@pytest.mark.parametrize(
    "members",
    [
        [member(f"{A}/x", b"evil"), GOOD[1]],
        [member(f"{A}/x", b"of a and more"), GOOD[1]],
        [member(f"{A}/x", b""), GOOD[1]],
        [GOOD[0], member(f"{A}/x", b"evil"), GOOD[1]],
        [GOOD[1]],
    ],
    ids=["other", "longer", "empty", "twice", "missing"],
)
def test_what_its_hash_does_not_vouch_for_is_not_taken(sending, members):
    problems = sending.retrieve(archive(*members))
    assert problems == {A: "'x' changed while it was retrieved"}
    assert tree(sending.here / A) == {"y": b"y of a"}


NUMBERS = [
    *(b"77777777777\0", b"777777777777", b"\x80" + b"\0" * 3 + b"\xff" * 8, b"\xff" * 12, b"\xff" + b"\0" * 11),
    *(b"-0000000001\0", b"00000000009\0", b"abcdefghijk\0", b"\0" * 12, b" " * 12, b"\x80" + b"\0" * 11),
]
STREAMS = [
    *(b"", b"\0", b"\0" * BLOCK, b"x" * BLOCK, b"x" * 5000, b"\xff" * BLOCK, GOOD[0], GOOD[0][:600]),
    *(with_size(raw) for raw in NUMBERS),
    *(with_size(raw, 4 * BLOCK) for raw in NUMBERS),
    *(member("././@LongLink", b"x" * size, b"L") for size in (1, 65_536, 65_537, 200_000)),
    *(member("pax", data, b"x") for data in (b"x", b"9999 path=a\n", b"0 path=a\n", b"12 nonsense\n", b"-5 a=b\n")),
    *(
        member("pax", b"%d size=%s\n" % (9 + len(n), n), b"x") + GOOD[0]
        for n in (b"-1", b"1e9", b"9" * 30, b"\xc2\xb2")
    ),
    member("././@LongLink", b"a" * 100, b"L")[:-BLOCK],
    member("pax", b"", b"x"),
]


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_that_makes_no_sense_is_told_and_leaves_nothing(sending, stream):
    for end in (b"", bytes(2 * BLOCK)):
        try:
            problems = sending.retrieve(stream + end)
        except TransportError as error:
            assert "damaged" in str(error) or "not come whole" in str(error)  # noqa: PT017  # either may be
        else:
            assert problems or stream in (GOOD[0], b"")
        assert set(tree(sending.here / A).items()) <= {("x", b"of a")}


def long_one() -> bytes:
    return archive(*GOOD, member(f"{A}/{'l' * 200}", b"long" * 300), member(f"{A}/d/e", b""))


def take(stream: bytes, target: Path, sizes: Iterable[int] = ()) -> tuple[set[str], dict[str, str]]:
    """Return what a receiver makes of a stream that comes in pieces."""
    asked = {f"{A}/x": b"of a", f"{A}/y": b"y of a", f"{A}/{'l' * 200}": b"long" * 300, f"{A}/d/e": b""}
    receiver = Receiver({A: target}, asked)
    try:
        at = 0
        for size in sizes:
            receiver.feed(stream[at : at + size])
            at += size
        receiver.feed(stream[at:])
        if not receiver.whole:
            raise DamagedTarError("cut")
        return receiver.finish({name: sha256(data).hexdigest() for name, data in asked.items()}), receiver.problems
    finally:
        receiver.clear()


LONG = {"x": b"of a", "y": b"y of a", "l" * 200: b"long" * 300, "d/e": b""}


def test_a_stream_cut_at_any_block_leaves_nothing(tmp_path):
    stream = long_one()
    for cut in range(0, len(stream) - 2 * BLOCK + 1, BLOCK // 4):
        with pytest.raises(DamagedTarError):
            take(stream[:cut], tmp_path / "here")
        assert tree(tmp_path) == {}
    take(stream, tmp_path / "here")
    assert tree(tmp_path / "here") == LONG


@QUIET
@given(st.lists(st.integers(1, 2000), max_size=30))
def test_pieces_may_have_any_size(tmp_path_factory, sizes):
    target = tmp_path_factory.mktemp("pieces") / "here"
    assert take(long_one(), target, sizes) == ({f"{A}/{name}" for name in LONG}, {})
    assert tree(target) == LONG


@QUIET
@given(st.lists(st.tuples(st.integers(0, len(long_one()) - 1), st.binary(min_size=1, max_size=40)), max_size=6))
def test_a_damaged_stream_never_gives_a_wrong_file(tmp_path_factory, changes):
    base = tmp_path_factory.mktemp("damaged")
    stream = bytearray(long_one())
    for at, data in changes:
        stream[at : at + len(data)] = data
    here: set[str] = set()
    with contextlib.suppress(DamagedTarError):
        here, problems = take(bytes(stream), base / "here")
        assert problems or len(here) == len(LONG)
    found = tree(base)
    assert set(found.items()) <= {(f"here/{name}", data) for name, data in LONG.items()}
    assert {f"here/{name[len(A) + 1 :]}" for name in here} <= set(found)


names = st.one_of(
    st.sampled_from([*OUTSIDE, f"{A}/x", f"{A}/y"]),
    st.lists(st.sampled_from(["..", ".", "", "run", "a", "1", "b", "x", "y", ".matterstack"])).map("/".join),
    st.text(max_size=300),
)
kinds = st.sampled_from([bytes([byte]) for byte in b"\x00012345678LKxgSDVMAZ"])


@QUIET
@given(st.lists(st.tuples(names, st.binary(max_size=600), kinds, names), max_size=8), st.binary(max_size=600))
def test_no_archive_gets_out(tmp_path_factory, members, rest):
    base = tmp_path_factory.mktemp("archives")
    stream = bytearray()
    for name, data, kind, link in members:
        with contextlib.suppress(ValueError):
            stream += member(name.replace("\0", ""), data, kind, link.replace("\0", ""))
    with contextlib.suppress(DamagedTarError):
        take(bytes(stream) + rest + bytes(1024), base / "here")
    assert set(tree(base).items()) <= {(f"here/{name}", data) for name, data in LONG.items()}


@QUIET
@given(names)
def test_only_names_inside_are_inside(name):
    if is_inside(name):
        path = os.path.normpath(os.path.join("/here", name))
        assert path == f"/here/{name}"
        assert not path.startswith("/here/.matterstack/")


# ---- our own tar, beside Python's -------------------------------------------------------------------------


sizes = st.sampled_from([0, 1, 511, 512, 513, 1024])
plain = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=150)


@QUIET
@given(st.lists(st.tuples(st.lists(plain, min_size=1, max_size=3).map("/".join), sizes), max_size=6))
def test_what_we_write_pythons_tar_reads_and_so_do_we(found):
    tar = TarStream()
    sized = dict(found)
    files = {f"top/{name}": os.urandom(sized[name]) for name in apart(list(sized))}
    pieces = [tar.directories(name) + tar.file(name, data, 0o640) for name, data in files.items()]
    stream = b"".join(gathered([*pieces, tar.end()]))
    with tarfile.open(fileobj=io.BytesIO(stream), errorlevel=2, encoding="utf-8") as opened:
        members = opened.getmembers()
        assert {m.name: opened.extractfile(m).read() for m in members if m.isfile()} == files
        assert {m.mode for m in members if m.isfile()} <= {0o640}
        assert {m.mode for m in members if m.isdir()} <= {0o700}
        assert len({m.name for m in members}) == len(members)
    read: dict[str, bytes] = {}

    def begin(entry):
        taken = read.setdefault(entry.name.rstrip("/"), b"") if entry.regular else None
        if taken is None:
            return None

        def more(piece):
            read[entry.name] += bytes(piece)

        return more

    reader = TarReader(begin)
    reader.feed(stream)
    assert reader.ended
    assert read == files


def test_sizes_and_names_of_every_length_are_written(tmp_path):
    tar = TarStream()
    for size in (8**11 - 1, 8**11, 2**40):
        head = tar.head("big", size)
        assert tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "strict").size == size
    for length in (99, 100, 101, 255, 4000):
        for letter in ("n", "é"):
            stream = tar.file(letter * length, b"1") + tar.end()
            with tarfile.open(fileobj=io.BytesIO(stream)) as opened:
                assert opened.getnames() == [letter * length]


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
@pytest.mark.parametrize("size", [0, 65_537, 2**40])
def test_an_absurd_header_is_not_waited_for(kind, size):
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, size
    with pytest.raises(DamagedTarError, match="absurd"):
        TarReader(lambda _entry: None).feed(info.tobuf(tarfile.GNU_FORMAT))
