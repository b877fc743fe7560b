"""SlurmBackend: tasks as jobs of a Slurm cluster, over SSH or on its login node."""

from matterstack.runtime.backends.hpc.backend import SlurmBackend
from matterstack.runtime.backends.hpc.options import SlurmOptions
from matterstack.runtime.backends.hpc.waits import Waits
from matterstack.runtime.transports.ssh_config import SSHConfig

__all__ = ["SSHConfig", "SlurmBackend", "SlurmOptions", "Waits"]
