"""What the journal must know of the file system it lies on."""

# pathlib costs start-up time

from __future__ import annotations

import os

# File systems on which SQLite's shared memory (WAL) does not work between hosts.
# fmt: off
NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "drvfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
    "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "wekafs",
})
# fmt: on
MOUNTS = "/proc/self/mountinfo"

_PROBE = (
    "import fcntl, sys\n"
    "try: fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
    "except OSError: print('refused')\n"
    "else: print('granted')\n"
)


def network_type(path: str, mounts: str = MOUNTS) -> str | None:
    """Return the type of the network file system that holds ``path``, or None on a local disk.

    File systems in user space (``fuse.*``) count as network ones. Where there is no table of mounts
    (not Linux), the answer is None.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as table:
            lines = table.readlines()
    except OSError:
        return None
    place, best, kind = os.path.realpath(path) + "/", "", ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = _unescaped(fields.split(" ")[4]).rstrip("/") + "/"
        if place.startswith(point) and len(point) >= len(best):
            best, kind = point, rest.split(" ", 1)[0]
    return kind if kind in NETWORK or kind.startswith("fuse.") else None


def _unescaped(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def locks_work(directory: str) -> bool:
    """Return whether a lock taken by this process is seen by another one in ``directory``.

    Raises:
        OSError: The probe file cannot be written.
    """
    import fcntl  # only network file systems are probed
    import subprocess
    import sys
    import tempfile

    def other_process() -> str:
        command = [sys.executable, "-I", "-S", "-c", _PROBE, probe.name]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()

    with tempfile.NamedTemporaryFile(dir=directory, prefix=".journal-lock-probe-") as probe:
        try:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refused = other_process()
            fcntl.lockf(probe, fcntl.LOCK_UN)
            return refused == "refused" and other_process() == "granted"
        except (OSError, subprocess.TimeoutExpired):
            return False


def make_directory(directory: str) -> None:
    """Create a directory with its parents, durably. An existing one is left as it is."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        os.makedirs(path, exist_ok=True)
        sync_directory(os.path.dirname(path))


def sync_directory(directory: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
