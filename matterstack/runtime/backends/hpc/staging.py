"""Inputs as one tar stream for any number of attempts, each content that many share sent once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import Final

from msgspec import Struct

from matterstack.core.spec import Digests, FileDigest
from matterstack.errors import BackendUnavailable, SpecError
from matterstack.runtime import staging
from matterstack.runtime.backends.hpc.keepalive import STOP, keep_alive
from matterstack.runtime.backends.hpc.layout import META, STORE
from matterstack.runtime.backends.hpc.remote import Part, Remote
from matterstack.runtime.backends.hpc.staging_script import CONTENTS, UNPACK, UPSTREAM
from matterstack.runtime.backends.hpc.tar import PRIVATE, TarStream, gathered

LARGE: Final = 1 << 16  # bytes; of what is larger, the store is asked first whether it has it
_AT_ONCE: Final = 200  # files that one `tee` writes; a process may have 1,024 open
_PIECE: Final = 1 << 20
_WORDS_MAX: Final = 500
_NO_DIGESTS: Final[Digests] = {}


class Upstream(Struct, frozen=True):
    """A file that another attempt on the cluster wrote; ``directory`` is relative to the workspace."""

    directory: str
    path: str


class Inputs(Struct, frozen=True):
    """What an attempt brings.

    ``directory``: relative to the workspace. ``files``: by name in it: text, a file of this machine, or another
    attempt's. ``own``: files of ours below its ``.matterstack``; ``secret``: the same, never shared. ``digests``:
    the expected content of files of this machine.
    """

    directory: str
    files: Mapping[str, str | Path | Upstream]
    own: Mapping[str, bytes]
    secret: Mapping[str, bytes] = {}
    digests: Digests = _NO_DIGESTS

    @property
    def task(self) -> str:
        """The task's id."""
        return self.directory.split("/")[1]


class _Content(Struct, frozen=True):
    """One distinct content of one mode, and the names of its places."""

    digest: str
    source: bytes | Path
    size: int
    executable: bool
    places: list[str]

    @property
    def large(self) -> bool:
        return self.size > LARGE

    @property
    def stored(self) -> bool:
        """Whether it goes into the store; what is small and of one place only goes right there."""
        return self.large or len(self.places) > 1

    @property
    def shelf(self) -> str:
        return f"{STORE}/{self.digest[:2]}"


class _Changed(Exception):
    """A file of this machine is not what it was a moment ago."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__()


def stage(remote: Remote, inputs: Sequence[Inputs], shared: Mapping[str, bytes]) -> dict[str, str]:
    """Return, by attempt directory, why an attempt cannot start, after putting everything else in place.

    Args:
        remote: The workspace.
        inputs: What each attempt brings; one that has started already is left as it is.
        shared: Further files by their names relative to the workspace.

    Raises:
        BackendUnavailable: The host could not be reached, or has no space left; nothing may be submitted.
        AccessError: See `Remote.ask`.
    """
    going, contents, problems = _collect(inputs)
    stored = [content for content in contents if content.stored]
    had = _in_store(remote, {content.digest for content in stored if content.large})
    fresh = {content.digest: content for content in stored if content.digest not in had}
    script = [f"new={META}/new.{os.urandom(8).hex()}", UNPACK, CONTENTS, *_shelving(fresh, had)]
    for content in stored:
        script += _placing(content)
    script += [UPSTREAM, *_bringing(going)]
    pieces = _stream(going, shared, [content for content in contents if not content.stored], fresh)
    lines = [*(one.directory for one in going), ""]
    try:
        # In a shell of its own, which fails at any line and leaves the answer whole.
        whole = "\n".join([keep_alive("say alive"), "(", *script, "say staged", ")", STOP])
        parts = remote.ask(whole, lines, payload=gathered(pieces))
    except _Changed as changed:
        hit = [one for one in going if changed.path in one.files.values()]
        problems |= {one.directory: _refusal(_changed(one, changed.path)) for one in hit}
        return problems | stage(remote, [one for one in going if one not in hit], shared)
    if not any(part.words == ["staged"] for part in parts):
        words = "".join(part.text for part in parts).strip()[:_WORDS_MAX]
        raise BackendUnavailable(remote.transport.name, "stage files", words or "the command that does it was ended")
    return problems | _missing(parts, going)


# ---- what there is --------------------------------------------------------------------------------------


def _collect(inputs: Sequence[Inputs]) -> tuple[list[Inputs], list[_Content], dict[str, str]]:
    """Return which attempts go, the distinct contents they bring, and why the others do not go."""
    going: list[Inputs] = []
    contents: dict[tuple[str, bool], _Content] = {}
    problems: dict[str, str] = {}
    known: dict[Path, FileDigest] = {}
    for one in inputs:
        try:
            found = [_content(one, name, s, known) for name, s in one.files.items() if not isinstance(s, Upstream)]
        except (OSError, SpecError) as error:
            problems[one.directory] = _refusal(error)
            continue
        going.append(one)
        for content in found:
            same = contents.setdefault((content.digest, content.executable), content)
            if same is not content:
                same.places.extend(content.places)
    return going, list(contents.values()), problems


def _content(one: Inputs, name: str, source: str | Path, known: dict[Path, FileDigest]) -> _Content:
    """Return an attempt's input.

    Raises:
        SpecError, OSError: It is gone, or is not what the run recorded.
    """
    place = [f"{one.directory}/{name}"]
    if isinstance(source, str):
        data = source.encode()
        return _Content(sha256(data).hexdigest(), data, len(data), executable=False, places=place)
    expected = one.digests.get(str(source))
    known[source] = found = staging.digest(one.task, source, known.get(source, expected))
    if expected is not None and found.sha256 != expected.sha256:
        raise _changed(one, source)
    executable = bool(source.stat().st_mode & 0o100)
    return _Content(found.sha256, source, found.size, executable, place)


def _changed(one: Inputs, source: Path) -> SpecError:
    problem = f"input file {str(source)!r} has changed since the run recorded it; run the workflow again to use it"
    return SpecError(one.task, "files", problem)


def _refusal(error: Exception) -> str:
    return f"{error}. The task was not started; mend that, then `matterstack retry`."


def _in_store(remote: Remote, digests: set[str]) -> set[str]:
    if not digests:
        return set()
    script = f'while read -r one; do [ ! -f "{STORE}/${{one%"${{one#??}}"}}/$one" ] || say have "$one"; done'
    return {part.words[1] for part in remote.ask(script, sorted(digests)) if part.words[0] == "have"}


# ---- what the cluster is told to do with it -------------------------------------------------------------


def _shelving(fresh: Mapping[str, _Content], had: set[str]) -> Iterator[str]:
    """Yield the commands that check all stored contents and put new ones into the store."""
    if had:
        yield f"had {' '.join(f'{STORE}/{digest[:2]}/{digest}' for digest in sorted(had))}"
    if fresh:
        yield " ".join(["fresh", *(f'"$new"/{digest}' for digest in fresh)])
    shelves: dict[str, list[str]] = {}
    for content in fresh.values():
        shelves.setdefault(content.shelf, []).append(f'"$new"/{content.digest}')
    for shelf, names in shelves.items():
        yield f"shelve {shelf} {' '.join(names)}"


def _placing(content: _Content) -> Iterator[str]:
    """Yield the commands that put a stored content into its places."""
    how = f"{'x' if content.executable else ''}{'cp' if content.large else 'tee'}"
    for at in range(0, len(content.places), _AT_ONCE):
        places = " ".join(map(quote, content.places[at : at + _AT_ONCE]))
        yield f"put {how} {content.shelf}/{content.digest} {places}"


def _bringing(inputs: Iterable[Inputs]) -> Iterator[str]:
    for one in inputs:
        for number, (name, source) in enumerate(one.files.items()):
            if isinstance(source, Upstream):
                place = quote(f"{one.directory}/{name}")
                yield f"bring {source.directory} {quote(source.path)} {one.directory} {number} {place}"


def _missing(parts: Sequence[Part], inputs: Sequence[Inputs]) -> dict[str, str]:
    """Return by attempt directory which outputs of others it lacks."""
    going = {one.directory: one for one in inputs}
    lacking: dict[str, list[str]] = {}
    for part in parts:
        match part.words:
            case [("missing" | "outside" | "unreadable") as what, directory, number]:
                source = list(going[directory].files.values())[int(number)]
                assert isinstance(source, Upstream), source
                name = f"{source.path!r} of task {source.directory.split('/')[1]!r}"
                lacking.setdefault(directory, []).append(f"{name}, which {_LACKS[what]}")
    return {
        directory: f"it takes {'; '.join(names)}. The task was not started; mend the command that should write it, "
        "or run the workflow with --rerun."
        for directory, names in lacking.items()
    }


_LACKS: Final = {
    "missing": "was not written, is no file, or was removed since",
    "outside": "is a link out of that task's directory",
    "unreadable": "cannot be read on the cluster",
}


# ---- what is sent ---------------------------------------------------------------------------------------


def _stream(
    inputs: Sequence[Inputs],
    shared: Mapping[str, bytes],
    direct: Sequence[_Content],
    fresh: Mapping[str, _Content],
) -> Iterator[bytes]:
    """Yield the tar stream: contents for the store, directories, and what goes straight to its place.

    Raises:
        _Changed: A file changed since it was looked at.
    """
    tar = TarStream()
    for digest, content in fresh.items():
        yield from _sent(tar, content, f"{META}/new/{digest}", PRIVATE)
    for name, data in shared.items():
        yield tar.directories(name) + tar.file(name, data)
    for one in inputs:
        for name in one.files:
            yield tar.directories(f"{one.directory}/{name}")
        for own in (one.own, one.secret):
            for name, data in own.items():
                place = f"{one.directory}/{META}/{name}"
                yield tar.directories(place) + tar.file(place, data)
    for content in direct:
        yield from _sent(tar, content, content.places[0], PRIVATE | (0o100 if content.executable else 0))
    yield tar.file(f"{META}/new/end", b"") + tar.end()


def _sent(tar: TarStream, content: _Content, name: str, mode: int) -> Iterator[bytes]:
    if isinstance(content.source, bytes):
        yield tar.file(name, content.source, mode)
        return
    yield tar.head(name, content.size, mode)
    left, found = content.size, sha256()
    try:
        with content.source.open("rb") as opened:
            while left and (piece := opened.read(min(left, _PIECE))):
                found.update(piece)
                left -= len(piece)
                yield piece
    except OSError as error:
        raise _Changed(content.source) from error
    if left or found.hexdigest() != content.digest:
        raise _Changed(content.source)
    yield tar.padding(content.size)
