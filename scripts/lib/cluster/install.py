"""The Debian packages that a cluster needs, installed without starting a service, now or when the machine boots."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cluster.errors import ClusterError

# By package, a command that it brings.
PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurm-client": "sbatch",
    "slurmdbd": "slurmdbd",
    "munge": "munged",
    "mariadb-server": "mariadbd",
    "openssh-server": "sshd",
    "openssh-client": "ssh",
    "tcsh": "tcsh",
}
_PLUGIN = "slurm-wlm-mysql-plugin"
_SERVICES = {"mariadb-server": "mariadb", "openssh-server": "ssh"}  # those named otherwise than their package
_POLICY = Path("/usr/sbin/policy-rc.d")
_NO_STARTS = b"#!/bin/sh\n# of `scripts/cluster install`, which removes it at its end\nexit 101\n"  # 101: forbidden
_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def find(command: str) -> str | None:
    """Return the path of a command, also of those for administrators."""
    return shutil.which(command) or shutil.which(command, path=":".join(_SBIN))


def missing_packages() -> list[str]:
    """Return the packages that are not installed here."""
    missing = [package for package, command in PACKAGES.items() if find(command) is None]
    plugin = any(Path("/usr/lib").glob("*/slurm-wlm/accounting_storage_mysql.so"))
    return missing if plugin else [*missing, _PLUGIN]


def install() -> list[str]:
    """Return what was installed.

    Raises:
        ClusterError: Not root, no apt, or apt failed.
    """
    missing = missing_packages()
    if not missing:
        return []
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(
            f"{', '.join(missing)} can only be installed by root on Debian or Ubuntu. Nothing was installed; install "
            "them by hand, then call this again."
        )
    with _no_service_starts():
        wanted = ("install", "-y", "-qq", "--no-install-recommends", *missing)
        # The lists of packages may be missing or old; on most machines they are neither.
        if _apt(wanted)[0] != 0:
            for words in (("update", "-qq"), wanted):
                code, said = _apt(words)
                if code != 0:
                    raise ClusterError(f"apt-get {' '.join(words)} failed with {code}:\n{said}")
        for service in (_SERVICES.get(package, package) for package in missing):
            if Path("/etc/init.d", service).exists():
                subprocess.run(["update-rc.d", service, "disable"], capture_output=True, check=False)
    if still := missing_packages():
        raise ClusterError(f"apt-get installed all it was asked for, and yet these are missing: {', '.join(still)}.")
    return missing


def _apt(words: Sequence[str]) -> tuple[int, str]:
    """Return apt's exit code and the end of what it said."""
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", *words]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process,
    ):
        try:
            code = process.wait()
        except BaseException:
            process.terminate()  # not killed: dpkg may be at work
            raise
        log.seek(0)
        return code, log.read()[-3000:]


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep Debian's packages from starting what they bring, and put back the machine's own rule in any case."""
    lock = os.open(_POLICY.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # another installation of ours would take our rule for the machine's
    aside = _POLICY.with_name("policy-rc.d.matterstack")
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with suppress(FileNotFoundError):
            if _POLICY.is_symlink() or _POLICY.read_bytes() != _NO_STARTS:  # ours is left by one that was killed
                _POLICY.rename(aside)
        _POLICY.write_bytes(_NO_STARTS)
        _POLICY.chmod(0o755)
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
        if aside.is_symlink() or aside.exists():
            aside.rename(_POLICY)
        for number, action in before.items():
            signal.signal(number, action)
        os.close(lock)


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
