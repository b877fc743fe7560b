"""One cluster in one directory: made, started, hurt and removed."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster import place, ports
from cluster.daemon import Daemon, until
from cluster.errors import ClusterError
from cluster.install import missing_packages
from cluster.processes import MARK, children, identity, kill, kill_all_of, lives, name_of
from cluster.starting import STARTS

NAMES = ("munged", "mariadb", "slurmdbd", "slurmctld", "n1", "n2", "sshd")
_ACCOUNTING = ("mariadb", "slurmdbd")


class Cluster:
    """A private Slurm with two nodes and an sshd, all on loopback.

    Args:
        directory: Its place; everything it writes is below.
        min_job_age_s: Seconds until the controller forgets a job that has ended.
        accounting: Whether it has slurmdbd.
        owner: A process; once that is gone, ``remove_abandoned`` removes the cluster.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        min_job_age_s: int = 10,
        accounting: bool = True,
        owner: int | None = None,
    ) -> None:
        self.home = Path(directory).resolve()
        self._daemons = {name: Daemon(name, self.home) for name in NAMES}
        self._wanted: dict[str, Any] = {"min_job_age": min_job_age_s, "accounting": accounting}
        self._wanted["owner"] = None if owner is None else identity(owner)
        self._settings = place.read_settings(self.home) or self._wanted

    # ---- whole ----------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Return the names of its daemons, in the order in which they start."""
        return [name for name in NAMES if self._settings["accounting"] or name not in _ACCOUNTING]

    @property
    def exists(self) -> bool:
        """Whether there is a cluster in its directory, running or not."""
        return place.read_settings(self.home) is not None

    @property
    def in_use(self) -> bool:
        """Whether it was made to its end and any daemon runs, or somebody is just making it."""
        found = place.read_settings(self.home) or {}
        return lives(found.get("maker")) or bool(found.get("ready") and any(self.status().values()))

    def up(self) -> None:
        """Make and start it; what an earlier one left in its directory is ended and removed.

        Raises:
            ClusterError: Packages are missing, the directory holds something else, or a daemon does not come up.
        """
        if os.geteuid() != 0:
            raise ClusterError("a cluster of slurmd, munged and mariadbd needs root. Nothing was started.")
        if missing := missing_packages():
            raise ClusterError(
                f"missing packages: {', '.join(missing)}. Nothing was started. `scripts/cluster install` gets them."
            )
        self.down()
        self._settings = {**self._wanted, "maker": identity(os.getpid())}
        place.occupy(self.home, self._settings)
        try:
            self._settings["ports"] = ports.reserve(self.home)
            place.write_settings(self.home, self._settings)
            place.furnish(self.home, self._settings)
            for name in self.names:
                self.start(name)
            until(self._idle, "idle nodes")
            self._settings |= {"maker": None, "ready": True}
            place.write_settings(self.home, self._settings)
        except BaseException:
            self._end_all()  # the directory stays, for its logs; the next `up` removes it
            place.write_settings(self.home, self._settings | {"maker": None})
            raise

    def down(self) -> None:
        """End everything that it started, and remove its directory; nothing where there is no cluster."""
        if not self.exists:
            return
        self._end_all()
        ports.release(self.home)
        place.remove(self.home)

    def _end_all(self) -> None:
        self.kill_sessions()
        for name in reversed(NAMES):
            self._daemons[name].send(signal.SIGKILL)
        kill_all_of(self.home)
        for name in NAMES:
            self._daemons[name].end(signal.SIGKILL)

    @property
    def conf(self) -> Path:
        """Path of its slurm.conf, for SLURM_CONF."""
        return self.home / "slurm.conf"

    @property
    def commands(self) -> Path:
        """Directory that is first on PATH over ssh: what lies there stands before the real command."""
        return self.home / "bin"

    @property
    def ports(self) -> Mapping[str, int]:
        """Its ports by what listens there: db, dbd, ctld, ssh, nodes (n1; n2 has the next)."""
        return self._settings["ports"]

    def environment(self) -> dict[str, str]:
        """Return what its commands need in their environment."""
        return {"SLURM_CONF": str(self.conf)}

    def env(self) -> dict[str, object]:
        """Return where everything is, as plain data."""
        return {
            "SLURM_CONF": str(self.conf),
            "directory": str(self.home),
            "commands": str(self.commands),
            "ssh": self.ssh_config_kwargs(),
            "daemons": self.status(),
        }

    def ssh_config_kwargs(self) -> dict[str, object]:
        """Return the arguments of SSHConfig that lead to its login node."""
        return {
            "hostname": "127.0.0.1",
            "port": self.ports["ssh"],
            "username": "root",
            "key_filename": str(self.home / "ssh/user_key"),
            "known_hosts": str(self.home / "ssh/known_hosts"),
            "agent": False,
            "ssh_config": "/dev/null",
        }

    def run(
        self, argv: Sequence[str], *, check: bool = False, cwd: str | os.PathLike[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Return what a command on the cluster came to."""
        environment = {**os.environ, **self.environment()}
        return subprocess.run(
            argv, check=check, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd
        )

    # ---- daemons --------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Kill a daemon; of sshd also the sessions, not what runs in them."""
        daemon = self._daemon(name)
        if name == "sshd":
            daemon.send(signal.SIGSTOP)  # so that no session begins unseen
            self.kill_sessions()
        daemon.send(signal.SIGKILL)
        until(lambda: daemon.pid is None, f"the end of {name}")

    def kill_sessions(self) -> None:
        """Kill the sessions of sshd; it goes on."""
        for pid in list(children(self._daemons["sshd"].pid or 0)):
            if name_of(pid).startswith("sshd"):
                kill(pid)

    def pause(self, name: str) -> None:
        """Stop a daemon where it is, so that it does not answer."""
        self._daemon(name).send(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a stopped daemon go on."""
        self._daemon(name).send(signal.SIGCONT)

    def start(self, name: str) -> None:
        """Start a daemon, and wait until it answers; a node also until slurmctld, where that runs, knows it.

        Raises:
            ClusterError: It does not; the message has the end of its log.
        """
        daemon = self._daemon(name)
        start = STARTS[name](self)
        daemon.start(start.argv, {**self.environment(), MARK: str(self.home)})
        self._await(daemon, start.answers)
        start.then()

    def status(self) -> dict[str, int | None]:
        """Return the process of each daemon, None where it does not run."""
        return {name: self._daemons[name].pid for name in self.names}

    def states(self) -> dict[str, str]:
        """Return what there is to say of each daemon, in words."""
        return {name: self._daemons[name].state for name in self.names}

    def _daemon(self, name: str) -> Daemon:
        if name not in self.names:
            raise ClusterError(f"no daemon {name!r}; there are {', '.join(self.names)}")
        return self._daemons[name]

    def _await(self, daemon: Daemon, answers: Callable[[], object]) -> None:
        try:
            until(lambda: answers() or daemon.pid is None, f"{daemon.name} to answer")
        except ClusterError as error:
            raise ClusterError(f"{error}; its last words:\n{daemon.last_words()}") from None
        if daemon.pid is None:
            raise ClusterError(f"{daemon.name} ended at once; its last words:\n{daemon.last_words()}")

    def _idle(self) -> bool:
        return self.run(["sinfo", "-h", "-N", "-p", "main", "-o", "%t"]).stdout.split() == ["idle", "idle"]


def remove_abandoned() -> list[Path]:
    """Remove the clusters whose owner is gone, as after a test run that was killed; return where they were."""
    gone = []
    for home in ports.registered():
        owner = (place.read_settings(home) or {}).get("owner")
        if owner and not lives(owner):
            with suppress(OSError, ClusterError):
                Cluster(home).down()
                gone.append(home)
    return gone
