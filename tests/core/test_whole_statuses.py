"""Every field of a status and of the events that follow from it, not the state alone."""

import pytest

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt
from matterstack.core.evidence import Absence, Alive, JobStatus, LocalEvidence, SlurmEvidence
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING, SAME, TRANSITIONS, State, compile_machine
from matterstack.core.policy import Outcome, outcome
from matterstack.core.reconcile import interpret, local_status, slurm_status
from matterstack.core.workflow import Task

WHERE = {"started_at": 10.0, "node": "n1"}
QUEUED = Attempt("t", PENDING, 1, "ms-1", job_id="12", requested=True)
STARTED = Attempt("t", RUNNING, 1, "ms-1", job_id="12", requested=True, started_at=10.0)


def local(**witnesses):
    return LocalEvidence(claimed=True, pid=7, ended_at=20.0, **WHERE, **witnesses)


def slurm(**witnesses):
    return SlurmEvidence(ended_at=20.0, **WHERE, **witnesses)


@pytest.mark.parametrize("job_id", ["", "7"])
def test_a_local_status_tells_all_that_its_evidence_has(job_id):
    given = {"job_id": job_id} if job_id else {}
    expected = JobStatus(job_id, FAILED, "EXIT_CODE", 137, 9, started_at=10.0, ended_at=20.0, node="n1", pid=7)
    assert local_status(local(started=True, exit_code=137), **given) == expected


@pytest.mark.parametrize(
    ("witnesses", "known"),
    [
        ({"exit_code": 0}, True),
        ({"exit_code": 3}, True),
        ({"exit_code": 0, "timed_out": True}, True),  # it did what it had to all the same
        ({"exit_code": 143}, False),
        ({"exit_code": 3, "timed_out": True}, False),
        ({"exit_code": 3, "cancel_requested": True}, False),
        ({"exit_code": 3, "started": False}, False),
        ({"alive": Alive.NO}, False),
    ],
)
def test_cpu_time_is_that_of_an_end_of_its_own(witnesses, known):
    status = local_status(local(**{"started": True, "cpu_s": 1.5, **witnesses}))
    assert status.cpu_s == (1.5 if known else None)
    (event,) = interpret(STARTED, status)
    assert event.cpu_s == status.cpu_s


def test_a_code_of_what_never_started_is_no_code_of_the_command():
    status = local_status(local(exit_code=137))
    assert (status.reason, status.exit_code, status.signal) == ("SUBMIT_REFUSED", None, None)


def test_only_a_refusal_has_the_words_of_a_refusal():
    refused = local_status(LocalEvidence(refused="no space"))
    assert (refused.reason, refused.detail) == ("SUBMIT_REFUSED", "no space")
    withdrawn = local_status(local(withdrawn=True, refused="no space"))
    assert withdrawn.reason == "CANCELLED"
    assert withdrawn.detail != "no space"
    gone = local_status(local(started=True, alive=Alive.NO))
    assert gone.reason == "INTERRUPTED"
    assert gone.detail


@pytest.mark.parametrize("job_id", ["", "12@r/t/1"])
def test_a_slurm_status_tells_all_that_its_evidence_has(job_id):
    evidence = slurm(
        queue="FAILED", queue_reason="JobLaunchFailure", accounting="FAILED", exit_code=137, claimed=True, note="late"
    )
    given = {"job_id": job_id} if job_id else {}
    expected = JobStatus(
        job_id,
        FAILED,
        "EXIT_CODE",
        137,
        9,
        word="FAILED",
        detail="JobLaunchFailure; late",
        started_at=10.0,
        ended_at=20.0,
        node="n1",
    )
    assert slurm_status(evidence, **given) == expected


@pytest.mark.parametrize(
    ("witnesses", "state", "word"),
    [
        ({"queue": "PENDING", "queue_reason": "Priority"}, PENDING, "PENDING"),
        ({"queue": "RUNNING", "accounting": "NODE_FAIL", "exit_code": 3, "claimed": True}, RUNNING, "RUNNING"),
        # no change: as the claim says, but for what Slurm has put back
        ({"absent": Absence.BRIEF, "claimed": True}, RUNNING, ""),
        ({"absent": Absence.BRIEF}, PENDING, ""),
        ({"queue": "PENDING", "claimed": True}, PENDING, "PENDING"),
        ({"queue": "NEWSTATE", "claimed": True}, RUNNING, "NEWSTATE"),
        ({"absent": Absence.LONG, "accounting_answered": True}, PENDING, ""),
        ({"absent": Absence.BRIEF, "accounting": "NEWSTATE"}, PENDING, "NEWSTATE"),
    ],
)
def test_what_has_not_ended_has_neither_reason_nor_code_nor_end(witnesses, state, word):
    status = slurm_status(slurm(accounting_exit_code=9, accounting_signal=9, **witnesses))
    assert (status.state, status.word) == (state, word)
    assert (status.reason, status.exit_code, status.signal, status.ended_at) == ("", None, None, None)


@pytest.mark.parametrize("reason", ["None", ""])
def test_a_queue_without_a_reason_is_not_quoted(reason):
    assert slurm_status(slurm(queue="RUNNING", queue_reason=reason, claimed=True)).detail == ""


@pytest.mark.parametrize(
    ("said", "signal"), [(None, None), (0, None), (1, 1), (9, 9), (53, None), (64, 64), (65, None)]
)
def test_a_signal_of_accounting_is_one_only_where_it_can_be(said, signal):
    evidence = slurm(accounting="TIMEOUT", claimed=True, absent=Absence.LONG, accounting_signal=said)
    assert slurm_status(evidence).signal == signal


def test_an_end_is_recorded_whole():
    (done,) = interpret(STARTED, slurm(exit_code=0, claimed=True, accounting="TIMEOUT", absent=Absence.LONG))
    assert done == ev.TaskCompleted(20.0, 0, "the command had finished when Slurm ended the job as TIMEOUT")
    (failed,) = interpret(
        STARTED, slurm(exit_code=143, claimed=True, accounting="TIMEOUT", absent=Absence.LONG, note="x")
    )
    assert failed == ev.TaskFailed("TIMEOUT", 20.0, 143, 15, "x", "TIMEOUT")
    odd = JobStatus("12", COMPLETED, exit_code=None, ended_at=20.0)
    assert interpret(STARTED, odd) == [ev.TaskCompleted(20.0, 0, "")]


def test_what_is_taken_back_says_why():
    evidence = SlurmEvidence(absent=Absence.LONG, accounting_answered=True)
    why = "it is in no queue and its start was never recorded"
    assert list(interpret(QUEUED, evidence)) == [ev.SubmitAbsent(why)]
    assert list(interpret(STARTED, evidence)) == [ev.JobRequeued(why), ev.SubmitAbsent(why)]


@pytest.mark.parametrize("state", [PENDING, RUNNING])
def test_a_status_of_another_backend_counts_as_it_is(state):
    """Theirs is no evidence to weigh: PENDING after RUNNING is what they say."""
    attempt, status = (STARTED, JobStatus("12", PENDING)) if state is PENDING else (QUEUED, JobStatus("12", RUNNING))
    assert [type(event) for event in interpret(attempt, status)] == [
        ev.JobRequeued if state is PENDING else ev.JobStarted
    ]


def test_ends_of_one_reason_are_told_apart_in_words():
    down = local_status(local(started=True, alive=Alive.REBOOTED))
    gone = local_status(local(started=True, alive=Alive.NO))
    assert ("went down" in down.detail, "went down" in gone.detail) == (True, False)
    removed, missing = (
        slurm_status(slurm(accounting="COMPLETED", claimed=True, absent=Absence.LONG, directory_gone=gone))
        for gone in (True, False)
    )
    assert ("was removed" in removed.detail, "was removed" in missing.detail) == (True, False)
    nobodys = slurm_status(SlurmEvidence(queue="CANCELLED", absent=Absence.LONG))
    assert (nobodys.reason, nobodys.detail) == ("CANCELLED", "cancelled before it started; by whom is not known")


# ---- the machine and the policies -------------------------------------------------------------------


def test_the_machine_has_the_rows_of_the_table_and_no_more():
    compiled = compile_machine()
    assert compiled.initial == "PENDING"
    assert list(compiled.states) == [state.value for state in State]
    rows = {
        (name, moved.source, moved.dest or moved.source)
        for name, event in compiled.events.items()
        for found in event.transitions.values()
        for moved in found
    }
    assert rows == {
        (name, source.value, source.value if target is SAME else target.value)
        for name, sources, target in TRANSITIONS
        for source in sources
    }


def failed(reason):
    return Attempt("t", FAILED, 1, "ms-1", "j", requested=True, reason=reason, started_at=10.0)


def test_the_profiles_policy_is_for_tasks_that_leave_theirs_at_the_default():
    assert outcome(Task("true", "t"), failed("EXIT_CODE"), "always") is Outcome.RETRY
    assert outcome(Task("true", "t", retry="never"), failed("EXIT_CODE"), "always") is Outcome.BLOCKED
    assert outcome(Task("true", "t", retry="always"), failed("EXIT_CODE"), "never") is Outcome.RETRY
    assert outcome(Task("true", "t"), failed("EXIT_CODE"), "") is Outcome.BLOCKED
