"""What goes into an attempt's directory before it starts."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from matterstack.core.spec import Digests, FileDigest
from matterstack.core.workflow import RESERVED_PREFIX, Task
from matterstack.errors import SpecError, SubmitRefusedError


def digest(task_id: str, path: Path, known: FileDigest | None = None) -> FileDigest:
    """Return the digest of a ``Path`` input; the file is read only where its stat is not that of ``known``.

    Raises:
        SpecError: There is no such file, or it cannot be read.
    """
    try:
        stat = path.stat()
        if known and (known.size, known.mtime_ns, known.inode) == (
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_ino,
        ):
            return known
        if path.is_dir():
            raise SpecError(task_id, "files", f"{str(path)!r} is a directory; name the files in it one by one")
        with path.open("rb") as source:
            content = hashlib.file_digest(source, "sha256").hexdigest()
    except FileNotFoundError:
        raise SpecError(task_id, "files", f"input file {str(path)!r} does not exist") from None
    except OSError as error:
        raise SpecError(task_id, "files", f"input file {str(path)!r} cannot be read: {error.strerror}") from None
    return FileDigest(content, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def stage_in(task: Task, directory: str, digests: Digests) -> None:
    """Write the task's input files into its directory; doing it again gives the same files.

    Raises:
        SubmitRefusedError: An input is gone, or is not what the run recorded.
        OSError: The directory cannot be written (full disk, no permission).
    """
    # Renamed when complete, so that whoever reads a file never sees half. No file of a task may be called so.
    part = os.path.join(directory, f"{RESERVED_PREFIX}.part")
    for name, source in task.files.items():
        target = os.path.join(directory, name)
        if "/" in name:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        if isinstance(source, str):
            Path(part).write_text(source, encoding="utf-8")
        else:
            assert isinstance(source, Path), source
            _copy(source, part, digests.get(str(source)))
        os.replace(part, target)


def _copy(source: Path, target: str, expected: FileDigest | None) -> None:
    if not source.is_file():
        raise SubmitRefusedError(
            f"input file {str(source)!r} is gone. The task was not started; put it back, then `matterstack retry`."
        )
    import shutil  # 5 ms, and most tasks copy nothing

    try:
        Path(target).unlink(missing_ok=True)  # what a crash left may be read-only
        shutil.copy(source, target)
    except PermissionError as error:
        if error.filename != str(source):
            raise
        raise SubmitRefusedError(
            f"input file {str(source)!r} cannot be read: {error.strerror}. The task was not started; mend that, then "
            "`matterstack retry`."
        ) from error
    if expected is None:
        return
    stat = source.stat()
    if (stat.st_size, stat.st_mtime_ns, stat.st_ino) == (expected.size, expected.mtime_ns, expected.inode):
        return
    with open(target, "rb") as copied:
        if hashlib.file_digest(copied, "sha256").hexdigest() != expected.sha256:
            raise SubmitRefusedError(
                f"input file {str(source)!r} has changed since the run recorded it. The task was not started; "
                "run the workflow again to use the new content."
            )
