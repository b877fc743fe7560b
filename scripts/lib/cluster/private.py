"""One cluster in one directory: made, started, hurt and removed."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cluster import texts
from cluster.daemon import Daemon, children, until, with_environment
from cluster.errors import ClusterError
from cluster.install import find, missing_packages

NAMES = ("munged", "mariadb", "slurmdbd", "slurmctld", "n1", "n2", "sshd")
_ACCOUNTING = ("mariadb", "slurmdbd")
_PORTS = range(20_000, 32_000)  # below those that the system gives to clients


class Cluster:
    """A private Slurm with two nodes and an sshd, all on loopback.

    Args:
        directory: Its place; everything it writes is below.
        min_job_age_s: Seconds until the controller forgets a job that has ended.
        accounting: Whether it has slurmdbd.
    """

    def __init__(self, directory: str | os.PathLike[str], *, min_job_age_s: int = 10, accounting: bool = True) -> None:
        self.home = Path(directory).resolve()
        self._daemons = {name: Daemon(name, self.home) for name in NAMES}
        self._settings = {"min_job_age": min_job_age_s, "accounting": accounting}
        with suppress(OSError, ValueError):
            self._settings = json.loads((self.home / "cluster.json").read_text())

    # ---- whole ----------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Return the names of its daemons, in the order in which they start."""
        return [name for name in NAMES if self._settings["accounting"] or name not in _ACCOUNTING]

    def up(self) -> None:
        """Make and start it; what an earlier one left in its directory is removed.

        Raises:
            ClusterError: Packages are missing, or a daemon does not come up.
        """
        if os.geteuid() != 0:
            raise ClusterError("a cluster of slurmd, munged and mariadbd needs root. Nothing was started.")
        if missing := missing_packages():
            raise ClusterError(f"missing packages: {', '.join(missing)}. `scripts/cluster install` gets them.")
        self.down()
        self.home.mkdir(parents=True)
        try:
            self._write()
            for name in self.names:
                self.start(name)
            until(self._idle, "idle nodes")
        except BaseException:
            self._end_all()
            raise

    def down(self) -> None:
        """End everything that it started, and remove its directory."""
        self._end_all()
        if (self.home / "cluster.json").exists() or (self.home / "munge").exists():
            shutil.rmtree(self.home, ignore_errors=True)

    def _end_all(self) -> None:
        # Jobs and what watches them outlive slurmd; they have its configuration in their environment.
        for name in ("slurmctld", "n1", "n2", "sshd"):
            self._daemons[name].end(signal.SIGKILL)
        for pid in with_environment("SLURM_CONF", str(self.conf)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in ("slurmdbd", "mariadb", "munged"):
            self._daemons[name].end(signal.SIGKILL if name == "mariadb" else signal.SIGTERM)

    @property
    def conf(self) -> Path:
        """Path of its slurm.conf, for SLURM_CONF."""
        return self.home / "slurm.conf"

    @property
    def commands(self) -> Path:
        """Directory that is first on PATH over ssh: what lies there stands before the real command."""
        return self.home / "bin"

    def environment(self) -> dict[str, str]:
        """Return what its commands need in their environment."""
        return {"SLURM_CONF": str(self.conf)}

    def env(self) -> dict[str, object]:
        """Return where everything is, as plain data."""
        return {
            "SLURM_CONF": str(self.conf),
            "directory": str(self.home),
            "ssh": self.ssh_config_kwargs(),
            "daemons": {name: self._daemons[name].pid for name in self.names},
        }

    def ssh_config_kwargs(self) -> dict[str, object]:
        """Return the arguments of SSHConfig that lead to its login node."""
        return {
            "hostname": "127.0.0.1",
            "port": self._settings["ports"]["ssh"],
            "username": "root",
            "key_filename": str(self.home / "ssh/user_key"),
            "known_hosts": str(self.home / "ssh/known_hosts"),
            "agent": False,
            "ssh_config": "/dev/null",
        }

    def run(
        self, argv: Sequence[str], *, check: bool = False, cwd: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Return what a command on the cluster came to."""
        environment = {**os.environ, **self.environment()}
        return subprocess.run(argv, check=check, env=environment, capture_output=True, text=True, cwd=cwd)

    # ---- daemons --------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Kill a daemon; of sshd also the sessions, not what runs in them."""
        daemon = self._daemon(name)
        victims = [pid for pid in children(daemon.pid or 0) if _is_sshd(pid)] if name == "sshd" else []
        daemon.send(signal.SIGKILL)
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: daemon.pid is None, f"the end of {name}")

    def kill_sessions(self) -> None:
        """Kill the sessions of sshd; it goes on."""
        for pid in list(children(self._daemon("sshd").pid or 0)):
            if _is_sshd(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def pause(self, name: str) -> None:
        """Stop a daemon where it is, so that it does not answer."""
        self._daemon(name).send(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a stopped daemon go on."""
        self._daemon(name).send(signal.SIGCONT)

    def start(self, name: str) -> None:
        """Start a daemon, and wait until it answers.

        Raises:
            ClusterError: It does not; the message has the end of its log.
        """
        getattr(self, f"_start_{name}")(self._daemon(name))

    def status(self) -> dict[str, int | None]:
        """Return the process of each daemon, None where it does not run."""
        return {name: self._daemons[name].pid for name in self.names}

    def _daemon(self, name: str) -> Daemon:
        if name not in self.names:
            raise ClusterError(f"no daemon {name!r}; there are {', '.join(self.names)}")
        return self._daemons[name]

    def _up(self, daemon: Daemon, answers: object) -> None:
        try:
            until(lambda: answers() or daemon.pid is None, f"{daemon.name} to answer")  # type: ignore[operator]
        except ClusterError as error:
            raise ClusterError(f"{error}; its last words:\n{daemon.last_words()}") from None
        if daemon.pid is None:
            raise ClusterError(f"{daemon.name} ended at once; its last words:\n{daemon.last_words()}")

    def _start_munged(self, daemon: Daemon) -> None:
        place = self.home / "munge"
        flags = [f"--{name}={place / file}" for name, file in _MUNGE.items()]
        daemon.start([_path("munged"), "-F", "--force", *flags], {}, "munge")
        self._up(daemon, (place / "munge.sock").exists)

    def _start_mariadb(self, daemon: Daemon) -> None:
        data = self.home / "db"
        if not (data / "mysql").exists():
            self._make_database(data)
        ports = self._settings["ports"]
        daemon.start(
            [
                *(_path("mariadbd"), "--no-defaults", f"--datadir={data}", f"--socket={data}/sock"),
                *(f"--port={ports['db']}", "--bind-address=127.0.0.1", f"--pid-file={data}/pid"),
                *("--innodb-buffer-pool-size=32M", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0"),
            ],
            {},
            "mysql",
        )
        sql = "".join(
            f"create user if not exists 'slurm'@'{host}' identified by 'slurm'; grant all on *.* to 'slurm'@'{host}';"
            for host in ("%", "localhost")
        )
        client = ["mariadb", "--no-defaults", "-u", "root", f"--socket={data}/sock", "-e", sql]
        self._up(daemon, lambda: self.run(client).returncode == 0)

    def _make_database(self, data: Path) -> None:
        shutil.chown(data, "mysql", "mysql")
        words = ["--no-defaults", "--user=mysql", f"--datadir={data}", "--auth-root-authentication-method=socket"]
        made = self.run([_path("mariadb-install-db"), *words, "--skip-test-db"])
        if made.returncode != 0:
            raise ClusterError(f"the database could not be made:\n{made.stdout[-1000:]}{made.stderr[-1000:]}")

    def _start_slurmdbd(self, daemon: Daemon) -> None:
        daemon.start([_path("slurmdbd"), "-D"], self.environment())
        self._up(daemon, lambda: self.run(["sacctmgr", "-n", "show", "cluster"]).returncode == 0)
        for words in ("cluster test", "account acct", "user root account=acct"):
            self.run(["sacctmgr", "-i", "add", *words.split()])

    def _start_slurmctld(self, daemon: Daemon) -> None:
        daemon.start([_path("slurmctld"), "-D"], self.environment())
        self._up(daemon, lambda: self.run(["scontrol", "ping"]).returncode == 0)

    def _start_n1(self, daemon: Daemon) -> None:
        daemon.start([_path("slurmd"), "-D", "-N", daemon.name], self.environment())

    _start_n2 = _start_n1

    def _start_sshd(self, daemon: Daemon) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        daemon.start([_path("sshd"), "-D", "-e", "-f", str(self.home / "sshd_config")], {})
        self._up(daemon, lambda: _answers(self._settings["ports"]["ssh"]))

    def _idle(self) -> bool:
        return self.run(["sinfo", "-h", "-N", "-p", "main", "-o", "%t"]).stdout.split() == ["idle", "idle"]

    # ---- files ----------------------------------------------------------------------------------

    def _write(self) -> None:
        self.home.chmod(0o711)
        for name in ("munge", "state", "spool-n1", "spool-n2", "db", "ssh", "bin"):
            (self.home / name).mkdir()
        ports = _free_ports()
        self._settings["ports"] = ports
        (self.home / "cluster.json").write_text(json.dumps(self._settings))
        munge = self.home / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        for path in (munge, munge / "key"):
            shutil.chown(path, "munge", "munge")
        munge.chmod(0o711)
        names = {"home": self.home, "host": socket.gethostname().partition(".")[0], "path": os.environ["PATH"], **ports}
        names |= {"min_job_age": self._settings["min_job_age"], "last_node": ports["nodes"] + 1}
        names["accounting"] = texts.ACCOUNTING.format(**names) if self._settings["accounting"] else ""
        texts.write(self.conf, texts.SLURM.format(**names))
        texts.write(self.home / "slurmdbd.conf", texts.DBD.format(**names), 0o600)
        texts.write(self.home / "sshd_config", texts.SSHD.format(**names))
        for key in ("host_key", "user_key"):
            self.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.home / "ssh" / key)], check=True)
        public = (self.home / "ssh/host_key.pub").read_text().split()[:2]
        texts.write(self.home / "ssh/known_hosts", f"[127.0.0.1]:{ports['ssh']} {' '.join(public)}\n")


_MUNGE = {
    "key-file": "key",
    "socket": "munge.sock",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}


def _path(command: str) -> str:
    return find(command) or command


def _is_sshd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip().startswith("sshd")
    except OSError:
        return False


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports() -> dict[str, int]:
    """Return ports that nobody listens on; the two nodes' lie beside each other."""
    while True:
        first = random.choice(_PORTS)
        if all(_is_free(port) for port in range(first, first + 6)):
            names = ("db", "dbd", "ctld", "ssh", "nodes")
            return dict(zip(names, range(first, first + 5), strict=True))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
