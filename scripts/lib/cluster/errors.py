"""What can go wrong with a cluster of ours."""


class ClusterError(Exception):
    """It could not be made, started or asked; the message says why and what to do."""
