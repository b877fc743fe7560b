"""Ways to the host on which a scheduler's commands run."""

from matterstack.runtime.transports.base import Reply, Transport
from matterstack.runtime.transports.ssh_config import SSHConfig, open_transport

__all__ = ["Reply", "SSHConfig", "Transport", "open_transport"]
