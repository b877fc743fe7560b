"""Deliberate mistakes in what the simulation checks: each must make it fail, or it would not notice them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from matterstack.core import reconcile
from matterstack.core.evidence import Absence
from matterstack.core.machine import COMPLETED
from matterstack.runtime.backends.hpc import job_script, remote
from matterstack.runtime.backends.hpc.look_up import Found
from matterstack.runtime.backends.hpc.slurm import Answer
from matterstack.runtime.writer import InlineWriter


class EffectsFirst(InlineWriter):
    """Releases effects, and then makes their intents durable."""

    def write(self, facts, effects):
        for effect in effects:
            effect()
        super().write(facts, [])


@contextmanager
def intent_after_effect() -> Iterator[type[InlineWriter]]:
    yield EffectsFirst


@contextmanager
def no_look_up_by_token() -> Iterator[type[InlineWriter]]:
    """A submission in doubt counts as not submitted, without a look."""

    def blind(remote, wanted, fences):
        return Found({})

    settled = mock.patch("matterstack.runtime.backends.hpc.submitting.look_up", blind)
    with settled:
        yield InlineWriter


@contextmanager
def absent_is_finished() -> Iterator[type[InlineWriter]]:
    """What the queue does not show has completed."""
    rule = (lambda c: c.queue is None and c.since(Absence.BRIEF), COMPLETED, None, "it is gone")
    with mock.patch.object(reconcile, "SLURM_TABLE", (rule, *reconcile.SLURM_TABLE)):
        yield InlineWriter


@contextmanager
def query_error_is_absent() -> Iterator[type[InlineWriter]]:
    """A squeue or sacct that fails has shown no job."""

    def always(_exit_code, _stderr):
        return Answer.YES

    with mock.patch.object(remote, "answer_of", always):
        yield InlineWriter


@contextmanager
def no_run_claim() -> Iterator[type[InlineWriter]]:
    """Every start of a job runs the command."""
    open_to_all = job_script.BEGIN.replace("ms_refuse\n", "true\n")
    assert open_to_all != job_script.BEGIN
    with mock.patch.object(job_script, "BEGIN", open_to_all):
        yield InlineWriter


MUTANTS: dict[str, Callable] = {
    "intent after effect": intent_after_effect,
    "no look-up by token": no_look_up_by_token,
    "absent = finished": absent_is_finished,
    "query error = absent": query_error_is_absent,
    "no run claim": no_run_claim,
}
