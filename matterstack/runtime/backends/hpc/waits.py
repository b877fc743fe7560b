"""How long SlurmBackend waits for what; each is a setting of the profile."""

from __future__ import annotations

from msgspec import Struct


class Waits(Struct, frozen=True, forbid_unknown_fields=True):
    """Waits in seconds, each above 0.

    ``poll_min_s``, ``poll_max_s``: between two questions to the cluster; longer while nothing changes.
    ``settle_s``: after a submission without an answer, before it may be taken for not submitted; sbatch itself
    tries for up to 120 s. ``again_s``: between the two last look-ups of such a submission.
    ``grace_s``: until a shared file system shows a node's record to the login node.
    ``infrastructure_s``: absence from the queue until accounting's NODE_FAIL, PREEMPTED or BOOT_FAIL counts;
    ``absence_s``: until a job of which nothing else is known is given up. ``held_s``: until a submission is tried
    again that a limit held back. ``command_s``: silence after which a remote command is given up.
    """

    poll_min_s: float = 1.0
    poll_max_s: float = 60.0
    settle_s: float = 320.0
    again_s: float = 10.0
    grace_s: float = 90.0
    infrastructure_s: float = 300.0
    absence_s: float = 600.0
    held_s: float = 60.0
    command_s: float = 120.0
