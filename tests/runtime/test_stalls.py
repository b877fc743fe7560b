"""Jobs that their scheduler will not start as they are: told once it has lasted, and ever less often."""

import pytest
from campaigns import check_journal

from matterstack import Task, Workflow, run_workflow
from matterstack.core.evidence import SlurmEvidence
from matterstack.core.slurm_words import stall_of
from matterstack.errors import BackendBroken
from matterstack.history import History
from matterstack.runtime import worker
from matterstack.runtime.backends.base import ComputeBackend
from matterstack.runtime.reports import Seen, Stalled
from matterstack.runtime.stalls import Stalls

NEVER = "PartitionNodeLimit"


def waits(reason, job="7@run/a/1"):
    return [Seen(job, SlurmEvidence(queue="PENDING", queue_reason=reason))]


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("PartitionNodeLimit", "PartitionNodeLimit"),
        ("PartitionTimeLimit", "PartitionTimeLimit"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "ReqNodeNotAvail"),
        ("(AssocGrpCPULimit)", "AssocGrpCPULimit"),
        ("AssocGrpCPUMinutesLimit", "AssocGrpCPUMinutesLimit"),
        ("launch failed requeued held", "launch failed requeued held"),
        ("a word of tomorrow", "a word of tomorrow"),
        ("", ""),
        ("None", ""),
        ("Priority", ""),
        ("Resources", ""),
        ("Dependency", ""),
        ("BeginTime", ""),
        ("JobArrayTaskLimit", ""),
        ("QOSMaxJobsPerUserLimit", ""),
        ("AssocGrpJobsLimit", ""),
        ("AssocMaxJobsLimit", ""),
    ],
)
def test_an_usual_wait_is_no_stall(reason, word):
    assert stall_of(reason) == word


def test_it_is_told_once_when_it_has_lasted_and_since_when():
    stalls = Stalls(30)
    assert not stalls.look(waits(NEVER), 100)
    assert not stalls.look(waits(NEVER), 129)
    assert stalls.look(waits(NEVER), 131) == [Stalled("7@run/a/1", NEVER, 100)]
    assert not stalls.look(waits(NEVER), 100_000)


def test_a_reason_that_passes_before_it_has_lasted_is_not_told():
    stalls = Stalls(30)
    assert not [
        told for now in range(100, 10_000, 20) for told in stalls.look(waits(NEVER if now % 40 else "Priority"), now)
    ]


def test_a_scheduler_that_changes_its_mind_adds_ever_fewer_events():
    stalls = Stalls(30)
    changes = [NEVER if now // 600 % 2 else "Priority" for now in range(0, 86_400, 10)]
    told = [one for step, reason in enumerate(changes) for one in stalls.look(waits(reason), step * 10)]
    assert 3 <= len(told) <= 6


def test_a_job_that_runs_is_heard_no_more():
    stalls = Stalls(30)
    stalls.look(waits(NEVER), 100)
    assert not stalls.look([Seen("7@run/a/1", SlurmEvidence(queue="RUNNING"))], 110)
    assert not stalls.look(waits(NEVER), 131)


class Queue(ComputeBackend):
    """Shows its jobs with these reasons, a question each, and then as completed; or is interrupted there."""

    idempotent = True
    poll_min_s = poll_max_s = 0.001

    def __init__(self, *reasons, then=None):
        self.reasons, self.then = list(reasons), then

    def submit(self, task):
        return f"7@{task.task_id}"

    def poll(self, job_id):
        raise NotImplementedError

    get_logs = cancel = poll

    def poll_many(self, job_ids):
        if self.reasons:
            reason = self.reasons.pop(0)
            return {one: SlurmEvidence(queue="PENDING", queue_reason=reason) for one in job_ids}
        if self.then is not None:
            raise self.then
        return {one: SlurmEvidence(exit_code=0, claimed=True, absent=4, started_at=1.0) for one in job_ids}


def stalled(journal):
    """Return what the tables say, and every word that was recorded."""
    with History(journal) as history:
        told = [event.data.get("reason", "") for event in history.events("run") if event.type == "JobStalled"]
        return [one.reason for one in history.stalled("run")], told


def test_a_run_records_each_word_once_also_across_controllers(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "Stalls", lambda: Stalls(0))
    journal, workflow = tmp_path / "journal.db", Workflow("run", [Task("true", "a")])
    broken = Queue("Priority", NEVER, NEVER, NEVER, then=OSError("broken"))
    with pytest.raises(BackendBroken):
        run_workflow(workflow, backend=broken, journal=journal)
    assert stalled(journal) == ([NEVER], [NEVER])
    check_journal(journal)
    with pytest.raises(BackendBroken):
        run_workflow(workflow, backend=Queue(NEVER, "JobHeldUser", then=OSError("broken")), journal=journal)
    assert stalled(journal) == (["JobHeldUser"], [NEVER, "JobHeldUser"])
    with pytest.raises(BackendBroken):
        run_workflow(workflow, backend=Queue("Priority", "Priority", then=OSError("broken")), journal=journal)
    assert stalled(journal) == ([], [NEVER, "JobHeldUser", ""])
    check_journal(journal)
    assert run_workflow(workflow, backend=Queue(NEVER), journal=journal).ok
    assert stalled(journal) == ([], [NEVER, "JobHeldUser", "", NEVER])
    check_journal(journal)
