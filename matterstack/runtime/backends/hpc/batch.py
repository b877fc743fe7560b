"""What goes to sbatch as one: a lone attempt, or the elements of an array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc.layout import JobRef, directory_of, job_name


class Batch(Struct, frozen=True):
    """One submission to Slurm. ``token``: its own name; ``gen``: the try that the journal counts.

    An array's token already tells its tries apart, so its ``gen`` is 1.
    """

    token: str
    gen: int
    name: str
    members: tuple[Submission, ...]

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return f"{self.token}.{self.gen}"

    @property
    def array(self) -> bool:
        """Whether it is a job array."""
        return bool(self.members[0].array)

    @property
    def again(self) -> bool:
        """Whether the cluster may have it already."""
        return any(member.again or member.cancelled for member in self.members)

    @property
    def wanted(self) -> list[Submission]:
        """The members that nobody cancelled."""
        return [member for member in self.members if not member.cancelled]

    @property
    def indices(self) -> str:
        """The elements to submit, as ``sbatch --array`` takes them; empty for a lone job."""
        return index_list(member.index for member in self.wanted if member.index is not None) if self.array else ""

    def job_id(self, member: Submission, slurm_id: str, cluster: str = "") -> str:
        """Return the id of a member's job, from the id that sbatch gave the whole."""
        element = f"_{member.index}" if self.array else ""
        at = f";{cluster}" if cluster else ""
        return str(JobRef(f"{slurm_id}{element}{at}", place(member)))


def place(submission: Submission) -> str:
    """Return the attempt's directory, relative to the workspace root."""
    return directory_of(submission.run, submission.task.task_id, submission.attempt)


def batches(submissions: Sequence[Submission]) -> list[Batch]:
    """Return the submissions as they go to sbatch, in the order of their first members."""
    together: dict[tuple[str, int], list[Submission]] = {}
    for one in submissions:
        together.setdefault((one.array, 1) if one.array else (one.token, one.gen), []).append(one)
    return [
        Batch(
            token,
            gen,
            job_name(members[0].task.task_id if not members[0].array else members[0].run, token),
            tuple(members),
        )
        for (token, gen), members in together.items()
    ]


def index_list(indices: Iterable[int]) -> str:
    """Return indices as Slurm writes them, e.g. ``0-3,7``."""
    ranges: list[list[int]] = []
    for index in sorted(indices):
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
