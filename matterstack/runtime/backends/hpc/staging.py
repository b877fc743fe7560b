"""Inputs as one tar stream for any number of attempts, each content that many share sent once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import Final

from msgspec import Struct

from matterstack.core.spec import Digests
from matterstack.errors import BackendUnavailable, SpecError
from matterstack.runtime import staging
from matterstack.runtime.backends.hpc.layout import META, STORE
from matterstack.runtime.backends.hpc.remote import Part, Remote
from matterstack.runtime.backends.hpc.tar import PRIVATE, TarStream

LARGE: Final = 1 << 16  # bytes; of what is larger, the store is asked first whether it has it
_AT_ONCE: Final = 200  # files that one `tee` writes; a process may have 1,024 open
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


class _Content(Struct):
    """One distinct content and where it goes: pairs of attempt and name."""

    source: bytes | Path
    size: int
    executable: bool
    places: list[str]


# Reads: directories, a line each, up to an empty one; then a tar stream. What has a claim has started: it is left be.
_EXTRACT: Final = """
skip=.matterstack/stage.$$; new=.matterstack/new.$$; rm -rf "$skip" "$new"; mkdir "$new" || exit
trap 'rm -rf "$skip" "$new"' EXIT
true >"$skip" || exit
while read -r dir && [ -n "$dir" ]; do
  for claim in "$dir/.matterstack"/claim*; do [ ! -f "$claim" ] || { echo "$dir" >>"$skip"; say started "$dir"; }; done
done
tar -x -f - -X "$skip" --transform "s,^new/,$new/," 2>"$skip.err"; code=$?
say tar $code; cat "$skip.err"; rm -f "$skip.err"; [ $code = 0 ] || exit
keep() {
  [ -f "$new/$1" ] || return 0
  if [ "$(sha256sum <"$new/$1")" = "$1  -" ] && mkdir -p "$2" && mv -f "$new/$1" "$2/$1"; then return; fi
  say damaged "$1"; exit
}
put() {
  content=$1; shift
  tee -- "$@" <"$content" >/dev/null || { say full; exit; }
}
bring() {
  from=$(readlink -f -- "$1/$2") && case $from in "$PWD/$1"/*) [ -f "$from" ] ;; *) false ;; esac ||
    { say missing "$3"; return; }
  mkdir -p -- "$(dirname -- "$4")" && cp -- "$from" "$4" || { say full; exit; }
}
"""


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
    problems: dict[str, str] = {}
    contents: dict[str, _Content] = {}
    for one in inputs:
        try:
            for name, source in one.files.items():
                if not isinstance(source, Upstream):
                    _collect(contents, one, name, source)
        except (OSError, SpecError) as error:
            problems[one.directory] = f"{error}. The task was not started; mend that, then `matterstack retry`."
    going = [one for one in inputs if one.directory not in problems]
    stored = {digest: c for digest, c in contents.items() if len(c.places) > 1 or c.size > LARGE}
    have = _in_store(remote, [digest for digest, content in stored.items() if content.size > LARGE])
    script = [_EXTRACT]
    for digest, content in stored.items():
        script += _placing(digest, content)
    script += _bringing(going)
    lines = [*(one.directory for one in going), ""]
    stream = _stream(going, shared, contents, stored, have)
    parts = remote.ask("\n".join(script), lines, payload=stream)
    return problems | _problems(remote, parts, going)


def _collect(contents: dict[str, _Content], one: Inputs, name: str, source: str | Path) -> None:
    """Put a file to the others of the same content.

    Raises:
        SpecError, OSError: It is gone, or is not what the run recorded.
    """
    if isinstance(source, str):
        data: bytes | Path = source.encode()
        digest, size, executable = sha256(source.encode()).hexdigest(), len(data), False  # type: ignore[arg-type]  # bytes
    else:
        expected = one.digests.get(str(source))
        found = staging.digest(one.directory.split("/")[1], source, expected)
        if expected is not None and found.sha256 != expected.sha256:
            raise SpecError(
                one.directory.split("/")[1],
                "files",
                f"input file {str(source)!r} has changed since the run recorded it; run the workflow again to use it",
            )
        data, digest, size = source, found.sha256, found.size
        executable = bool(source.stat().st_mode & 0o100)
    key = f"{digest}{'x' if executable else ''}"
    content = contents.setdefault(key, _Content(data, size, executable, []))
    content.places.append(f"{one.directory}/{name}")


def _in_store(remote: Remote, digests: Sequence[str]) -> set[str]:
    if not digests:
        return set()
    script = f'while read -r one; do [ ! -f "{STORE}/${{one%"${{one#??}}"}}/$one" ] || say have "$one"; done'
    return {part.words[1] for part in remote.ask(script, sorted({d[:64] for d in digests})) if part.words[0] == "have"}


def _shelf(digest: str) -> str:
    return f"{STORE}/{digest[:2]}"


def _placing(key: str, content: _Content) -> Iterator[str]:
    """Yield the commands that put a stored content into its places."""
    digest = key[:64]
    yield f"keep {digest} {_shelf(digest)}"
    for at in range(0, len(content.places), _AT_ONCE):
        places = " ".join(map(quote, content.places[at : at + _AT_ONCE]))
        yield f"put {_shelf(digest)}/{digest} {places}"
        if content.executable:
            yield f"chmod u+x -- {places}"


def _bringing(inputs: Iterable[Inputs]) -> Iterator[str]:
    for one in inputs:
        for name, source in one.files.items():
            if isinstance(source, Upstream):
                target = quote(f"{one.directory}/{name}")
                yield f"bring {quote(source.directory)} {quote(source.path)} {one.directory} {target}"


def _stream(
    inputs: Sequence[Inputs],
    shared: Mapping[str, bytes],
    contents: Mapping[str, _Content],
    stored: Mapping[str, _Content],
    have: set[str],
) -> Iterator[bytes]:
    """Yield the tar stream: contents for the store, directories, and what goes straight to its place."""
    tar = TarStream()
    sent: set[str] = set()
    for key, content in stored.items():
        if key[:64] not in have and key[:64] not in sent:
            sent.add(key[:64])
            yield from tar.file(f"new/{key[:64]}", content.source, content.size)
    for name, data in shared.items():
        yield from tar.directories(name)
        yield from tar.file(name, data, len(data))
    for one in inputs:
        for name in one.files:
            yield from tar.directories(f"{one.directory}/{name}")
        for own in (one.own, one.secret):
            for name, data in own.items():
                place = f"{one.directory}/{META}/{name}"
                yield from tar.directories(place)
                yield from tar.file(place, data, len(data))
    going = {one.directory for one in inputs}
    for key, content in contents.items():
        if key not in stored and "/".join(content.places[0].split("/", 3)[:3]) in going:
            mode = PRIVATE | (0o100 if content.executable else 0)
            yield from tar.file(content.places[0], content.source, content.size, mode)
    yield tar.end()


def _problems(remote: Remote, parts: Sequence[Part], inputs: Sequence[Inputs]) -> dict[str, str]:
    problems: dict[str, str] = {}
    for part in parts:
        match part.words:
            case ["tar", code] if code != "0":
                raise BackendUnavailable(remote.transport.name, "stage files", part.text.strip()[-500:] or "tar failed")
            case ["full"]:
                raise BackendUnavailable(remote.transport.name, "stage files", "they could not be written; disk full?")
            case ["damaged", digest]:
                raise BackendUnavailable(remote.transport.name, "stage files", f"content {digest} arrived damaged")
            case ["missing", directory]:
                names = [
                    f"{s.path!r} of task {s.directory.split('/')[1]!r}"
                    for one in inputs
                    if one.directory == directory
                    for s in one.files.values()
                    if isinstance(s, Upstream)
                ]
                problems[directory] = (
                    f"it takes {', '.join(names)}, of which at least one was not written, or was removed since. The "
                    "task was not started; mend the command that should write it, or run the workflow with --rerun."
                )
    return problems
