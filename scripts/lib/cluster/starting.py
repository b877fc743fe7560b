"""How each daemon is started, how one sees that it answers, and what follows."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.daemon import until
from cluster.errors import ClusterError
from cluster.install import find

if TYPE_CHECKING:
    from cluster.private import Cluster


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Start:
    """A daemon's command line, whether it answers, and what is done once it does."""

    argv: Sequence[str]
    answers: Callable[[], object]
    then: Callable[[], None] = _nothing


def _munged(cluster: Cluster) -> Start:
    place = cluster.home / "munge"
    files = {"key-file": "key", "socket": "munge.sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    words = [f"--{name}={place / file}" for name, file in files.items()]
    probe = ["munge", "--no-input", f"--socket={place}/munge.sock"]
    return Start([_path("munged"), "--foreground", "--force", *words], lambda: _succeeds(cluster, probe))


def _mariadb(cluster: Cluster) -> Start:
    data = cluster.home / "db"
    if not (data / "mysql").exists():
        _make_database(cluster, data)
    words = ["--no-defaults", "--user=root", f"--datadir={data}", f"--socket={data}/sock"]
    words += [f"--port={cluster.ports['db']}", "--bind-address=127.0.0.1", f"--pid-file={data}/pid"]
    words += ["--innodb-buffer-pool-size=32M", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0"]
    words += [f"--init-file={cluster.home}/db.sql"]
    probe = ["mariadb-admin", "--no-defaults", "-u", "root", f"--socket={data}/sock", "ping"]
    return Start([_path("mariadbd"), *words], lambda: _succeeds(cluster, probe))


def _make_database(cluster: Cluster, data: Path) -> None:
    words = ["--no-defaults", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=socket"]
    made = cluster.run([_path("mariadb-install-db"), *words, "--skip-test-db"])
    if made.returncode != 0:
        raise ClusterError(f"the database could not be made:\n{made.stdout[-1000:]}{made.stderr[-1000:]}")


def _slurmdbd(cluster: Cluster) -> Start:
    probe = ["sacctmgr", "-n", "show", "cluster"]
    return Start([_path("slurmdbd"), "-D"], lambda: _succeeds(cluster, probe), lambda: _add_account(cluster))


def _add_account(cluster: Cluster) -> None:
    """Make the cluster known, and an account `acct` that root may use; the database keeps both."""
    known = ["sacctmgr", "-n", "-P", "show", "associations", "cluster=test", "account=acct", "user=root", "format=user"]

    def is_known() -> bool:
        return "root" in cluster.run(known).stdout

    def added() -> bool:
        for words in ("cluster test", "account acct", "user root account=acct"):
            cluster.run(["sacctmgr", "-i", "add", *words.split()])
        return is_known()

    if not is_known():
        until(added, "slurmdbd to know the account")


def _slurmctld(cluster: Cluster) -> Start:
    return Start([_path("slurmctld"), "-D"], lambda: _succeeds(cluster, ["scontrol", "ping"]))


def _node(name: str, port: int) -> Callable[[Cluster], Start]:
    def start(cluster: Cluster) -> Start:
        return Start(
            [_path("slurmd"), "-D", "-N", name],
            lambda: _listens(cluster.ports["nodes"] + port),
            lambda: until(lambda: _is_registered(cluster, name), f"slurmctld to know {name}"),
        )

    return start


def _is_registered(cluster: Cluster, name: str) -> bool:
    """Return whether slurmctld reaches a node; also where it does not answer, since then it cannot be asked."""
    asked = cluster.run(["sinfo", "-h", "-n", name, "-p", "main", "-o", "%t"])
    state = asked.stdout.strip()
    return asked.returncode != 0 or (state not in ("", "unk") and not state.endswith("*"))


def _sshd(cluster: Cluster) -> Start:
    Path("/run/sshd").mkdir(exist_ok=True)
    words = ["-D", "-e", "-f", str(cluster.home / "sshd_config")]
    return Start([_path("sshd"), *words], lambda: _listens(cluster.ports["ssh"]))


STARTS: Mapping[str, Callable[[Cluster], Start]] = {
    "munged": _munged,
    "mariadb": _mariadb,
    "slurmdbd": _slurmdbd,
    "slurmctld": _slurmctld,
    "n1": _node("n1", 0),
    "n2": _node("n2", 1),
    "sshd": _sshd,
}


def _path(command: str) -> str:
    return find(command) or command


def _succeeds(cluster: Cluster, argv: Sequence[str]) -> bool:
    return cluster.run(argv).returncode == 0


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
