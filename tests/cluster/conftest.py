"""A real Slurm and sshd for these tests: one that all share, and others for those that hurt daemons."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts/lib"))

from cluster import Cluster, missing_packages, remove_abandoned  # noqa: E402

SKIP = "there is no Slurm to test on: scripts/cluster install"


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    why = SKIP if missing_packages() or os.geteuid() != 0 else ""
    for item in items:
        if here in Path(item.fspath).parents:
            item.add_marker(pytest.mark.cluster)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))
    items.sort(key=longest_first)  # so that the suite does not end with one worker in a long test


def longest_first(item):
    """Return where a test stands: those on the cluster come first, by how long they may take."""
    timeout = item.get_closest_marker("timeout")
    return (item.get_closest_marker("cluster") is None, -timeout.args[0] if timeout and timeout.args else 0)


def new_place() -> Path:
    """Return a directory with a short name: those of sockets are limited."""
    return Path(tempfile.mkdtemp(prefix="ms-cluster-", dir="/tmp"))


@contextmanager
def locked(path):
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@pytest.fixture(scope="session")
def whole_run(worker_id):
    """The process of the whole test run. What an earlier one left when it was killed is removed first."""
    remove_abandoned()
    return os.getpid() if worker_id == "master" else os.getppid()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, worker_id, whole_run):
    """One cluster for all workers: the first makes it, the last removes it. Leave its daemons alone."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    users = base / "cluster.users"
    with locked(base / "cluster.lock"):
        if not users.exists():
            made = Cluster(new_place(), min_job_age_s=300, owner=whole_run)
            made.up()
            users.write_text(json.dumps([str(made.home), 0]))
        place, count = json.loads(users.read_text())
        users.write_text(json.dumps([place, count + 1]))
    made = Cluster(place)
    yield made
    with locked(base / "cluster.lock"):
        place, count = json.loads(users.read_text())
        users.write_text(json.dumps([place, count - 1]))
        if count == 1:
            made.down()
            users.unlink()


@pytest.fixture
def private_cluster(whole_run):
    """Makes clusters for tests that kill their daemons; they are removed at the end."""
    made = []

    def make(**options):
        made.append(Cluster(new_place(), owner=whole_run, **options))
        made[-1].up()
        return made[-1]

    yield make
    for one in made:
        one.down()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch, tmp_path):
    """Tests do not depend on where they are started; commands on this machine are not the cluster's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_CONF", raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)
