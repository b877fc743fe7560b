"""``scripts/cluster``: a private Slurm with sshd on loopback."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from cluster.errors import ClusterError
from cluster.install import install
from cluster.private import NAMES, Cluster


def default_directory() -> Path:
    """Return the user's own place for one cluster."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base, f"matterstack-cluster-{os.getuid()}")


def main() -> int:
    """Do what the command line asks; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/cluster", description=__doc__)
    parser.add_argument("--dir", type=Path, default=None, help="its directory; by default one of the user's own")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="get the Debian packages, without starting a service")
    up = commands.add_parser("up", help="make and start it")
    up.add_argument("--min-job-age", type=int, default=10, help="seconds until ended jobs are forgotten")
    up.add_argument("--no-accounting", action="store_true", help="without slurmdbd")
    for name, what in (("down", "end and remove it"), ("status", "what runs"), ("env", "where it is, as JSON")):
        commands.add_parser(name, help=what)
    for name, what in (
        ("kill", "kill a daemon"),
        ("start", "start a daemon"),
        ("stop", "let a daemon hang"),
        ("cont", "let a hanging daemon go on"),
    ):
        commands.add_parser(name, help=what).add_argument("name", choices=NAMES)
    arguments = parser.parse_args()
    try:
        return act(arguments)
    except ClusterError as error:
        print(f"scripts/cluster: {error}", file=sys.stderr)
        return 2


def act(arguments: argparse.Namespace) -> int:
    """Carry out one command."""
    if arguments.command == "install":
        done = install()
        print(f"installed: {', '.join(done)}" if done else "everything is installed")
        return 0
    place = arguments.dir or default_directory()
    if arguments.command == "up":
        began = time.monotonic()
        cluster = Cluster(place, min_job_age_s=arguments.min_job_age, accounting=not arguments.no_accounting)
        if cluster.in_use:
            raise ClusterError(
                f"a cluster is up in {cluster.home}. Nothing was changed; "
                f"`scripts/cluster{'' if arguments.dir is None else f' --dir {cluster.home}'} down` ends it."
            )
        cluster.up()
        print(f"up in {time.monotonic() - began:.1f} s; export SLURM_CONF={cluster.conf}")
        return 0
    cluster = Cluster(place)
    if arguments.command == "down":
        cluster.down()
    elif not cluster.exists:
        raise ClusterError(f"there is no cluster in {cluster.home}; `scripts/cluster up` makes one.")
    elif arguments.command == "status":
        for name, state in cluster.states().items():
            print(f"{name:<10}  {state}")
        return 0 if all(cluster.status().values()) else 1
    elif arguments.command == "env":
        print(json.dumps(cluster.env(), indent=2))
    else:
        {"kill": cluster.kill, "start": cluster.start, "stop": cluster.pause, "cont": cluster.resume}[
            arguments.command
        ](arguments.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
