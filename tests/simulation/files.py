"""The shared file system: what one host writes, another may see later."""

from __future__ import annotations

from collections.abc import Iterator

from matterstack.runtime.backends.hpc.layout import map_name
from simulation.timeline import Timeline


class DiskFull(Exception):
    """No space is left."""


class File:
    """``seen_at``: when the login node sees it. ``mtime``: by the file server's clock, as the timeline counts."""

    __slots__ = ("mtime", "seen_at", "text")

    def __init__(self, text: str, mtime: float, seen_at: float) -> None:
        self.text, self.mtime, self.seen_at = text, mtime, seen_at


class Files:
    """Directories with files, by paths relative to the workspace. Making a directory or a link is atomic."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._directories: dict[str, dict[str, File]] = {}
        self._made: dict[str, float] = {}
        self.full = False

    def make(self, directory: str) -> bool:
        """Return whether the directory is new."""
        if directory in self._directories:
            return False
        if self.full:
            raise DiskFull
        self._directories[directory] = {}
        self._made[directory] = self._timeline.now
        return True

    def unmake(self, directory: str) -> None:
        """Remove an empty directory."""
        del self._directories[directory], self._made[directory]

    def is_directory(self, path: str) -> bool:
        return path in self._directories

    def write(self, path: str, text: str, delay_s: float = 0.0) -> None:
        """Write a whole file; the login node sees it after ``delay_s``."""
        if self.full:
            raise DiskFull
        directory, _, name = path.rpartition("/")
        now = self._timeline.now
        self._directories.setdefault(directory, {})[name] = File(text, now, now + delay_s)
        self._made.setdefault(directory, now)

    def link(self, path: str, text: str, delay_s: float) -> bool:
        """Return whether the file is new, and so ours: by the server, whatever anybody sees."""
        directory, _, name = path.rpartition("/")
        if name in self._directories.get(directory, ()):
            return False
        self.write(path, text, delay_s)
        return True

    def name(self, path: str, new: str) -> None:
        """Give a file one name more, where it is there and the name is free; that needs no room."""
        directory, _, name = new.rpartition("/")
        files = self._directories.get(directory, {})
        if (file := files.get(path.rpartition("/")[2])) is not None:
            files.setdefault(name, file)

    def remove(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        self._directories.get(directory, {}).pop(name, None)

    def on_node(self, path: str) -> str | None:
        """Return the content as the server has it."""
        directory, _, name = path.rpartition("/")
        file = self._directories.get(directory, {}).get(name)
        return file.text if file else None

    def seen(self, path: str) -> str | None:
        """Return the content as the login node sees it; None where it sees no file."""
        directory, _, name = path.rpartition("/")
        file = self._directories.get(directory, {}).get(name)
        return file.text if file and file.seen_at <= self._timeline.now else None

    def map_row(self, base: str, index: int | None) -> list[str] | None:
        """Return directory and token of an element, as the map of its submission has them for a node."""
        rows = [line.split("\t") for line in (self.on_node(f"{base}/{map_name(index)}") or "").splitlines()]
        return next((row[1:] for row in rows if row[0] == ("-" if index is None else str(index))), None)

    def names(self, directory: str, prefix: str, *, seen: bool) -> Iterator[str]:
        """Yield the files of a directory, as a pattern of the shell does."""
        now = self._timeline.now
        for name, file in sorted(self._directories.get(directory, {}).items()):
            if name.startswith(prefix) and (not seen or file.seen_at <= now):
                yield name

    def age(self, path: str) -> float | None:
        """Return the seconds since a file or directory was made."""
        if path in self._made:
            return self._timeline.now - self._made[path]
        directory, _, name = path.rpartition("/")
        file = self._directories.get(directory, {}).get(name)
        return self._timeline.now - file.mtime if file else None
