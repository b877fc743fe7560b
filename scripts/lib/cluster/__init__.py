"""A private Slurm with sshd on loopback, for tests: any number side by side, nothing of the system's is touched."""

from cluster.errors import ClusterError
from cluster.install import missing_packages
from cluster.private import NAMES, Cluster, remove_abandoned

__all__ = ["NAMES", "Cluster", "ClusterError", "missing_packages", "remove_abandoned"]
