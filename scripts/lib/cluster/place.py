"""The directory of a cluster: what is in it, and how it is told from other directories."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import texts
from cluster.errors import ClusterError
from cluster.install import find
from cluster.processes import MARK

_LONGEST_SOCKET = 107  # bytes of the path of a Unix socket
_MARKER = "cluster.json"
_CGROUPS_CAN_BE_LEFT_OUT = (23, 11)  # earlier releases do not know the setting, and do without it


def read_settings(home: Path) -> dict[str, Any] | None:
    """Return the settings of the cluster in a directory; None where there is none."""
    try:
        found = json.loads((home / _MARKER).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "min_job_age" in found else None


def write_settings(home: Path, settings: Mapping[str, Any]) -> None:
    """Write them down; others may read them at this moment."""
    new = home / f"{_MARKER}.new"
    new.write_text(json.dumps(settings))
    new.replace(home / _MARKER)


def occupy(home: Path, settings: Mapping[str, Any]) -> None:
    """Make the directory of a cluster.

    Raises:
        ClusterError: It holds something else, or its name is none for Slurm's files or for sockets.
    """
    if not re.fullmatch(r"[\w./+-]+", str(home), re.ASCII) or len(str(home / "munge/munge.sock")) > _LONGEST_SOCKET:
        raise ClusterError(
            f"{home} cannot be a cluster's directory: Slurm's files and sockets take up to 91 letters, digits and "
            "._+-/ only. Nothing was started. Choose another with --dir."
        )
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise ClusterError(
            f"{home} is no directory of a cluster and not empty. Nothing in it was touched, nothing was started. "
            "Choose another with --dir."
        )
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)
    write_settings(home, settings)


def remove(home: Path) -> None:
    """Remove the directory of a cluster, the marker last, so that what is cut short can be done again."""
    for entry in home.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _MARKER:
            entry.unlink(missing_ok=True)
    shutil.rmtree(home)


def furnish(home: Path, settings: Mapping[str, Any]) -> None:
    """Write all files of a cluster."""
    for name, mode in (("munge", 0o711), ("state", 0o700), ("db", 0o700), ("ssh", 0o711), ("bin", 0o755)):
        (home / name).mkdir()
        (home / name).chmod(mode)
    for node in ("n1", "n2"):
        (home / f"spool-{node}").mkdir()
    _write(home / "munge/key", os.urandom(1024), 0o400)
    ports = settings["ports"]
    names = {"home": home, "host": socket.gethostname().partition(".")[0], "path": os.environ["PATH"], **ports}
    names |= {"min_job_age": settings["min_job_age"], "last_node": ports["nodes"] + 1}
    names |= {"mark": MARK, "password": secrets.token_hex(16)}
    names["accounting"] = texts.ACCOUNTING.format(**names) if settings["accounting"] else ""
    _write(home / "slurm.conf", texts.SLURM.format(**names).encode())
    _write(home / "slurmdbd.conf", texts.DBD.format(**names).encode(), 0o600)
    _write(home / "db.sql", texts.SQL.format(**names).encode(), 0o600)
    if _slurm_version() >= _CGROUPS_CAN_BE_LEFT_OUT:
        _write(home / "cgroup.conf", b"CgroupPlugin=disabled\n")
    _write(home / "sshd_config", texts.SSHD.format(**names).encode())
    for key in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / "ssh" / key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    public = (home / "ssh/host_key.pub").read_text().split()[:2]
    _write(home / "ssh/known_hosts", f"[127.0.0.1]:{ports['ssh']} {' '.join(public)}\n".encode())


def _slurm_version() -> tuple[int, ...]:
    words = subprocess.run([find("slurmd") or "slurmd", "-V"], capture_output=True, text=True, check=True).stdout
    return tuple(int(number) for number in re.findall(r"\d+", words)[:2])


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
    path.chmod(mode)
