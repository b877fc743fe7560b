"""The Debian packages that a cluster needs, installed without starting a service."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
_POLICY = Path("/usr/sbin/policy-rc.d")
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
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise ClusterError(f"apt-get {' '.join(words)} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return missing


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep Debian's packages from starting what they bring: 101 says that it is forbidden."""
    before = _POLICY.read_bytes() if _POLICY.exists() else None
    mode = _POLICY.stat().st_mode if before is not None else 0o755
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            _POLICY.unlink()
        else:
            _POLICY.write_bytes(before)
            _POLICY.chmod(mode)
