"""Ports for any number of clusters side by side: a block for each, written down for the whole machine."""

import fcntl
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.errors import ClusterError

REGISTRY = Path("/run/matterstack-clusters")  # by the first port of its block, a link to each cluster
_BLOCKS = range(20_000, 32_000, 8)  # below those that the system gives to clients
_NAMES = ("db", "dbd", "ctld", "ssh", "nodes")  # the two nodes' lie beside each other


def reserve(home: Path) -> dict[str, int]:
    """Return ports that nobody listens on, and that no other cluster gets, also while its daemons are down.

    Raises:
        ClusterError: There are none.
    """
    with _locked():
        for first in random.sample(_BLOCKS, len(_BLOCKS)):
            link = REGISTRY / str(first)
            if link.is_symlink():
                if (link / "cluster.json").exists():
                    continue
                link.unlink()
            if all(_is_free(port) for port in range(first, first + len(_NAMES) + 1)):
                link.symlink_to(home)
                return dict(zip(_NAMES, range(first, first + len(_NAMES)), strict=True))
    raise ClusterError(f"no {len(_NAMES) + 1} free ports in a row between {_BLOCKS.start} and {_BLOCKS.stop}.")


def release(home: Path) -> None:
    """Give a cluster's ports back."""
    with _locked():
        for link in REGISTRY.iterdir():
            if link.is_symlink() and link.readlink() == home:
                link.unlink()


def registered() -> list[Path]:
    """Return where clusters are."""
    with suppress(OSError):
        return [link.readlink() for link in REGISTRY.iterdir() if link.is_symlink()]
    return []


@contextmanager
def _locked() -> Iterator[None]:
    REGISTRY.mkdir(mode=0o755, exist_ok=True)
    place = os.open(REGISTRY, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
