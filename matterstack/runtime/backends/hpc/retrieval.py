"""Results as one tar stream for any number of attempts, checked against what the cluster says of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from shlex import quote
from typing import Final

from msgspec import Struct

from matterstack.errors import TransportError
from matterstack.runtime.backends.base import LOG_BYTES
from matterstack.runtime.backends.hpc.complaints import read_complaint, shown
from matterstack.runtime.backends.hpc.keepalive import STOP, keep_alive
from matterstack.runtime.backends.hpc.receiving import Receiver, contained, in_few_words, is_inside, split
from matterstack.runtime.backends.hpc.tar import DamagedTarError
from matterstack.runtime.transports.base import Reply, Transport

LOGS: Final = ("stdout.txt", "stderr.txt")
_NO_ROOT: Final = 90
_NAMES_AT_ONCE: Final = 200
_LAST: Final = "/dev/null"  # is hashed when all others were
_RECORD_MAX: Final = 1 << 16  # of a name; no file system takes more

# Nothing is written there: results come back also when the quota is used up. `names` says those that are regular files,
# reached without a link; opening a fifo could take for ever. Hashes and tar read side by side, so the disk is read
# once; what is hashed differently than sent was changed meanwhile. Hashes go to standard error, and so does the end.
# Some sha256sum are five times slower than openssl, which on the other hand leaves line breaks in names as they are.
_SEND: Final = r"""
cd -- {root} || exit {no_root}
LC_ALL=C; export LC_ALL
listed() {{
{names}
}}
names() {{
  listed | xargs -0 -r sh -c '
    for one do
      rest=${{one#*/*/*/}}; at=${{one%"/$rest"}}
      while at=$at/${{rest%%/*}}; [ ! -L "$at" ]; do
        case $rest in */*) rest=${{rest#*/}} ;; *) [ ! -f "$one" ] || printf "%s\0" "$one"; break ;; esac
      done
      [ ! -L "$at" ] || printf "%s %s %s\n" "{mark} link" "$one" "{mark}" >&2
    done' sh
}}
hash="sha256sum --"
if [ -z "{odd}" ]; then
  case $(openssl dgst -sha256 -r </dev/null 2>/dev/null) in {empty}*) hash="openssl dgst -sha256 -r" ;; esac
fi
printf '\n' >&2
names >/dev/null
{{ names 2>/dev/null && printf '/dev/null\0'; }} | xargs -0 $hash >&2 & sums=$!
names 2>/dev/null | tar -c -b 64 -f - --format=gnu --hard-dereference --no-recursion --null -T - 2>/dev/null
{alive}
wait $sums; printf '\n%s end\n' {mark} >&2
{stop}
"""
# Records, each ended by NUL: the kind of a file and its name; E and a directory that could not be read; the end.
_LIST: Final = r"""
cd -- {root} || exit {no_root}
LC_ALL=C; export LC_ALL
xargs -0 -r sh -c '
  for one do
    [ ! -d "$one" ] || find -H "$one" -path "$one/.matterstack" -prune -o ! -type d -printf "%y%p\0" ||
      printf "E%s\0" "$one"
  done' sh || exit
printf 'end\0'
"""
_SUM: Final = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)", re.DOTALL)
_EMPTY: Final = hashlib.sha256().hexdigest()
_ESCAPED: Final = re.compile(r"[\\\n\r]")
_ESCAPES: Final = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}


class Wanted(Struct, frozen=True):
    """What to retrieve of an attempt.

    ``directory``: relative to the workspace. ``include``, ``exclude``: globs of names relative to it, where ``*``
    also stands for ``/``; None includes everything. ``target``: where it comes to lie. ``logs``: what it wrote, too.
    """

    directory: str
    include: tuple[str, ...] | None
    exclude: tuple[str, ...]
    target: Path
    logs: bool = True

    @property
    def plain(self) -> bool:
        """Whether the names are known without looking."""
        return self.include is not None and not any(char in name for name in self.include for char in "*?[")

    def takes(self, name: str) -> bool:
        """Return whether a file of this name is wanted."""
        if self.logs and name in LOGS:
            return True
        included = self.include is None or any(fnmatchcase(name, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


Note = Callable[[str, str], None]


def retrieve(
    transport: Transport,
    root: str,
    wanted: Sequence[Wanted],
    *,
    limit_bytes: int | None = None,
    note: Note = lambda _directory, _what: None,
) -> dict[str, str]:
    """Return, by attempt directory, why results could not be retrieved; everything else is here, checked.

    A file that is not there, or whose attempt's directory is not, is no problem.

    Args:
        transport: The way to the cluster.
        root: The workspace there.
        wanted: What to retrieve.
        limit_bytes: Most bytes to take in all; None for any number.
        note: Called with an attempt's directory and what of it stays on the cluster for good: links, devices.

    Raises:
        TransportError, AccessError: The host could not be reached; nothing here was changed.
        OSError: They could not be written here.
    """
    asked: dict[str, None] = {}
    for one in wanted:
        if one.plain:
            names = [*(LOGS if one.logs else ()), *(one.include or ())]
            asked |= dict.fromkeys(f"{one.directory}/{n}" for n in names if is_inside(n) and one.takes(n))
    unknown = [one for one in wanted if not one.plain]
    problems: dict[str, str] = {}
    if unknown:
        found = _Listing({one.directory: one for one in unknown}, note)
        problems = found.read(transport, root)
        asked |= dict.fromkeys(found.names)
    targets = {one.directory: one.target for one in wanted}
    _, trouble = _receive(transport, root, Receiver(targets, asked, limit_bytes), asked, note)
    return {one: "; ".join(filter(None, [problems.get(one), trouble.get(one)])) for one in problems | trouble}


class UnreadableError(TransportError):
    """The host answered, and the file cannot be had: ``problem`` says why."""

    def __init__(self, host: str, problem: str) -> None:
        self.problem = problem
        super().__init__(host, problem, started=True)


def fetch_file(transport: Transport, root: str, directory: str, name: str, target: Path) -> None:
    """Bring one file of an attempt to ``target``, the attempt's directory here.

    Raises:
        FileNotFoundError: The attempt has no such file.
        UnreadableError: It is there, and cannot be read, or written here.
        TransportError, AccessError, OSError: It could not be fetched.
    """
    if contained(target, name) is None:
        raise FileNotFoundError(name)
    asked = [f"{directory}/{name}"]
    here, problems = _receive(transport, root, Receiver({directory: target}, asked), asked, lambda *_: None)
    if problems:
        raise UnreadableError(transport.name, problems[directory])
    if not here:
        raise FileNotFoundError(name)


def read_range(
    transport: Transport, root: str, directory: str, name: str, offset: int, limit_bytes: int = LOG_BYTES
) -> bytes:
    """Return at most so many bytes of a file of an attempt, from byte ``offset`` on; empty where it is not there.

    Raises:
        TransportError, AccessError: The host could not be reached.
    """
    path = quote(f"{directory}/{name}")
    part = f"tail -c +{offset + 1} -- {path} | head -c {limit_bytes}"
    script = f"cd -- {quote(root)} || exit {_NO_ROOT}; [ ! -f {path} ] || {part}; printf end"
    reply = transport.run(script)
    if not reply.stdout.endswith(b"end"):
        raise TransportError(transport.name, f"the answer is not whole ({_words(reply)})", started=True)
    return reply.stdout[: -len(b"end")]


class _Listing:
    """Finds out which files there are, and keeps the names of those that are wanted."""

    def __init__(self, wanted: Mapping[str, Wanted], note: Note) -> None:
        self._wanted, self._note = wanted, note
        self._rest = b""
        self._unread: list[str] = []
        self.names: list[str] = []

    def read(self, transport: Transport, root: str) -> dict[str, str]:
        """Return by attempt directory what could not be listed.

        Raises:
            TransportError, AccessError: The host could not be reached, or the answer is not whole.
        """
        script = _LIST.format(root=quote(root), no_root=_NO_ROOT)
        payload = b"".join(os.fsencode(directory) + b"\0" for directory in self._wanted)
        reply = transport.run(script, payload=[payload], sink=self._feed)
        if reply.code != 0 or self._rest != b"end":
            raise TransportError(transport.name, f"the list of results is not whole ({_words(reply)})", started=True)
        words = list(filter(None, map(read_complaint, reply.stderr.split(b"\n"))))
        found: dict[str, list[str]] = {directory: [] for directory in self._unread}
        for (name, *_), why in words:
            directory, inside = split(name)
            if directory in found:
                found[directory].append(f"{inside!r} cannot be read: {why}")
        vague = f"not all of it can be read ({_words(reply)})"
        return {directory: in_few_words(told) if told else vague for directory, told in found.items()}

    def _feed(self, piece: bytes) -> None:
        *records, rest = (self._rest + piece).split(b"\0")
        for record in records:
            self._take(record[:1], os.fsdecode(record[1:]))
        # The end is kept as it is: whatever follows it spoils it.
        self._rest = b"end" if not rest and records and records[-1] == b"end" else rest

    def _take(self, kind: bytes, path: str) -> None:
        directory, name = split(path)
        wanted = self._wanted.get(directory)
        if wanted is None:
            return
        if kind == b"E":
            self._unread.append(directory)
        elif is_inside(name) and wanted.takes(name):
            if kind == b"f":
                self.names.append(path)
            else:
                self._note(directory, f"{name!r} is no regular file")


def _receive(
    transport: Transport, root: str, receiver: Receiver, names: Iterable[str], note: Note
) -> tuple[set[str], dict[str, str]]:
    """Return the names of the files that are here now, and by directory why others are not."""
    mark = f"ms-{os.urandom(8).hex()}"
    names = list(names)
    if not names:
        return set(), {}
    script = _SEND.format(
        root=quote(root),
        no_root=_NO_ROOT,
        names="\n".join(_printed(names)),
        mark=mark,
        odd="1" if any(_ESCAPED.search(name) for name in names) else "",
        empty=_EMPTY,
        alive=keep_alive("printf '\\0'"),
        stop=STOP,
    )
    try:
        try:
            reply = transport.run(script, sink=receiver.feed)
        except DamagedTarError as error:
            raise TransportError(transport.name, f"results came damaged: {error}", started=True) from error
        answer = _Answer(reply.stderr, mark.encode(), set(names))
        if reply.code != 0 or not receiver.whole or not answer.whole:
            raise TransportError(transport.name, f"results did not come whole ({_words(reply)})", started=True)
        for name in answer.links:
            note(split(name)[0], f"{split(name)[1]!r} is a link, or behind one")
        for name, why in answer.unread.items():
            receiver.fault(name, f"cannot be read: {why}")
        return receiver.finish(answer.sums), receiver.problems
    finally:
        receiver.clear()


def _printed(names: Sequence[str]) -> Iterator[str]:
    """Yield the commands that print the names, each ended by NUL."""
    for at in range(0, len(names), _NAMES_AT_ONCE):
        block = b"".join(os.fsencode(name) + b"\0" for name in names[at : at + _NAMES_AT_ONCE])
        yield f"printf '{_UNSAFE.sub(_octal, block.decode('latin-1'))}'"


_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._/-]")


def _octal(char: re.Match[str]) -> str:
    return f"\\{ord(char[0]):03o}"


class _Answer:
    """What came on standard error: links, hashes, words of sha256sum, and the end.

    ``unread``: by the name of a file that was asked for, why it could not be read.
    """

    def __init__(self, text: bytes, mark: bytes, asked: Collection[str]) -> None:
        self.sums: dict[str, str] = {}
        self.unread: dict[str, str] = {}
        self.whole = False
        # A name may have line breaks, so a mark stands on both sides of it.
        link = re.compile(re.escape(mark) + rb" link (.*?) " + re.escape(mark) + rb"\n", re.DOTALL)
        self.links = [os.fsdecode(name) for name in link.findall(text)]
        for line in link.sub(b"", text).split(b"\n"):
            if found := _SUM.fullmatch(line):
                escaped, digest, name = found.groups()
                if escaped:
                    name = re.sub(rb"\\[\\nr]", lambda pair: _ESCAPES[pair[0]], name)
                self.sums[os.fsdecode(name)] = digest.decode()
            elif line == mark + b" end":
                self.whole = self.sums.pop(_LAST, None) == _EMPTY
            elif complaint := read_complaint(line):
                meant = next((name for name in complaint[0] if name in asked), None)
                if meant is not None:
                    self.unread.setdefault(meant, complaint[1])


def _words(reply: Reply) -> str:
    words = shown(reply.stderr)[-300:]
    return f"exit code {reply.code}{': ' if words else ''}{words}"
