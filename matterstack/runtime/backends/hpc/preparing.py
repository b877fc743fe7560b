"""What lies ready on the cluster before sbatch: inputs, commands, the job script and its map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matterstack.core.workflow import OutputRef
from matterstack.errors import MatterStackError, SubmitRefusedError
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc.batch import Batch, place
from matterstack.runtime.backends.hpc.job_script import attempt_files, job_script, secrets_file
from matterstack.runtime.backends.hpc.layout import SUBMISSIONS, job_ref, map_name
from matterstack.runtime.backends.hpc.monitoring import Identity
from matterstack.runtime.backends.hpc.options import SlurmOptions
from matterstack.runtime.backends.hpc.remote import Remote
from matterstack.runtime.backends.hpc.staging import Inputs, Upstream, stage


class Preparer:
    """Stages batches; called by `submitting.Submitter`.

    Args:
        remote: The workspace.
        options: The profile's.
        environ: Where the values of secrets are read.
    """

    def __init__(self, remote: Remote, options: SlurmOptions, environ: Mapping[str, str]) -> None:
        self._remote, self._options, self._environ = remote, options, environ

    def __call__(self, batches: Sequence[Batch]) -> Mapping[str, MatterStackError]:
        """Return by attempt token what cannot be submitted, after putting the rest in place.

        Raises:
            TransportError, BackendUnavailable, AccessError: Nothing may be submitted now.
        """
        problems: dict[str, MatterStackError] = {}
        inputs: list[Inputs] = []
        shared: dict[str, bytes] = {}
        tokens: dict[str, str] = {}
        for batch in batches:
            for member in batch.wanted:
                tokens[place(member)] = member.token
                inputs.append(self._inputs(batch, member))
            shared.update(self._shared(batch))
        for directory, why in stage(self._remote, inputs, shared).items():
            problems[tokens[directory]] = SubmitRefusedError(why)
        return problems

    def _inputs(self, batch: Batch, member: Submission) -> Inputs:
        own = attempt_files(member)
        own["job"] = f"{identity_of(batch, member).line()}\n".encode()
        secret = {"secrets": secrets_file(member.task, self._environ)} if member.task.secrets else {}
        return Inputs(place(member), _files(member), own, secret, member.digests)

    def _shared(self, batch: Batch) -> dict[str, bytes]:
        """Return the job script and its maps by their names relative to the workspace."""
        base = f"{SUBMISSIONS}/{batch.token}"
        script = script_of(batch, self._options)
        # Also those of whom nobody is wanted any more: an earlier submission may have left theirs.
        maps = {map_name(index_of(batch, one)): "" for one in batch.members}
        for one in batch.wanted:
            index = index_of(batch, one)
            maps[map_name(index)] += f"{'-' if index is None else index}\t{place(one)}\t{one.token}\n"
        return {f"{base}/job.sh": script.encode(), **{f"{base}/{name}": text.encode() for name, text in maps.items()}}


def script_of(batch: Batch, options: SlurmOptions) -> str:
    """Return the text of a batch's job script."""
    task = batch.members[0].task
    return job_script(submission=batch.token, name=batch.name, task=task, options=options, array=batch.array)


def identity_of(batch: Batch, member: Submission) -> Identity:
    """Return who the member's job is in Slurm's queue."""
    minutes = member.task.time_limit_minutes
    return Identity(member.token, batch.name, index_of(batch, member), minutes * 60 if minutes else None)


def index_of(batch: Batch, member: Submission) -> int | None:
    """Return which element of its array the member is; None in a lone job."""
    return member.index if batch.array else None


def _files(member: Submission) -> dict[str, str | Path | Upstream]:
    files: dict[str, str | Path | Upstream] = {}
    for name, source in member.task.files.items():
        if isinstance(source, OutputRef):
            ref = job_ref(member.upstream[source.task_id])
            assert ref is not None, member.upstream
            files[name] = Upstream(ref.directory, source.path)
        else:
            files[name] = source
    return files
