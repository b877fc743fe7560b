from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt, evolve
from matterstack.core.evidence import Alive, JobStatus, LocalEvidence
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING, Reason, State
from matterstack.core.reconcile import LOCAL_TABLE, interpret, local_status, signal_of

FLAGS = tuple(field.name for field in fields(LocalEvidence) if field.type is bool)
# Every combination of witnesses, also those that no honest world gives.
EVERYTHING = [
    LocalEvidence(**dict(zip(FLAGS, flags, strict=True)), exit_code=code, alive=alive, refused=refused)
    for flags in product((False, True), repeat=len(FLAGS))
    for code in (None, 0, 1, 137)
    for alive in Alive
    for refused in ("", "no space")
]
SUBMITTING = Attempt("t", PENDING, 1, "ms-1", requested=True)
QUEUED = Attempt("t", PENDING, 1, "ms-1", "j", requested=True)
STARTED = Attempt("t", RUNNING, 1, "ms-1", "j", requested=True, started_at=1.0)
LIVE = [SUBMITTING, QUEUED, STARTED]
ENDED = [
    Attempt("t", COMPLETED, 1, "ms-1", "j", requested=True, exit_code=0),
    Attempt("t", FAILED, 1, "ms-1", "j", requested=True, reason="LOST"),
]


def unsettled(e):
    return e.exit_code is None and not (e.withdrawn or e.refused or e.doubtful_start or e.record_gone)


def test_the_combinations_are_all_there():
    assert set(FLAGS) > {"claimed", "started", "timed_out", "withdrawn", "cancel_requested", "doubtful_start"}
    assert len(EVERYTHING) == 2 ** len(FLAGS) * 4 * 3 * 2
    assert len({local_status(e).reason for e in EVERYTHING}) > 5


def test_every_row_of_the_table_decides_somewhere():
    """A row that no witness reaches says something that is not so."""
    deciding = {next(i for i, row in enumerate(LOCAL_TABLE) if row[0](e)) for e in EVERYTHING}
    assert deciding == set(range(len(LOCAL_TABLE)))


def test_nothing_is_final_without_positive_evidence():
    for e in EVERYTHING:
        positive = (
            e.exit_code is not None
            or e.withdrawn
            or e.refused
            or e.doubtful_start
            or e.record_gone
            or (e.claimed and e.alive is not Alive.YES)
        )
        if local_status(e).state in (COMPLETED, FAILED):
            assert positive, e


def test_a_record_of_exit_0_is_completed_whatever_else_is_said():
    for e in EVERYTHING:
        if e.started and e.exit_code == 0:
            status = local_status(e)
            assert (status.state, status.reason, status.exit_code) == (COMPLETED, "", 0), e


def test_completed_needs_the_record_of_start_and_exit_0():
    for e in EVERYTHING:
        if local_status(e).state is COMPLETED:
            assert e.started, e
            assert e.exit_code == 0, e


def test_a_living_claimed_job_without_an_end_is_running_once_its_start_is_recorded():
    for e in EVERYTHING:
        if e.claimed and e.alive is Alive.YES and unsettled(e):
            assert local_status(e).state is (RUNNING if e.started else PENDING), e


def test_an_unclaimed_job_is_pending_however_dead_its_processes_look():
    for e in EVERYTHING:
        if not e.claimed and unsettled(e):
            assert local_status(e).state is PENDING, e


def test_every_failure_has_a_known_reason():
    for e in EVERYTHING:
        status = local_status(e)
        assert (status.reason in set(Reason)) == (status.state is FAILED), e


@pytest.mark.parametrize(
    ("evidence", "state", "reason"),
    [
        ({}, PENDING, ""),
        ({"claimed": True}, PENDING, ""),
        ({"claimed": True, "started": True}, RUNNING, ""),
        ({"claimed": True, "started": True, "timed_out": True}, RUNNING, ""),
        ({"claimed": True, "started": True, "cancel_requested": True}, RUNNING, ""),
        ({"claimed": True, "started": True, "exit_code": 0, "cancel_requested": True}, COMPLETED, ""),
        ({"claimed": True, "started": True, "exit_code": 3}, FAILED, "EXIT_CODE"),
        ({"claimed": True, "started": True, "exit_code": 143, "timed_out": True}, FAILED, "TIMEOUT"),
        ({"claimed": True, "started": True, "exit_code": 143, "cancel_requested": True}, FAILED, "CANCELLED"),
        ({"claimed": True, "withdrawn": True}, FAILED, "CANCELLED"),
        ({"claimed": True, "exit_code": 1}, FAILED, "SUBMIT_REFUSED"),
        ({"refused": "no such file"}, FAILED, "SUBMIT_REFUSED"),
        ({"doubtful_start": True}, FAILED, "LOST"),
        ({"record_gone": True}, FAILED, "LOST"),
        ({"claimed": True, "started": True, "alive": Alive.NO}, FAILED, "INTERRUPTED"),
        ({"claimed": True, "started": True, "alive": Alive.REBOOTED}, FAILED, "INTERRUPTED"),
        ({"claimed": True, "started": True, "alive": Alive.NO, "cancel_requested": True}, FAILED, "CANCELLED"),
        ({"claimed": True, "started": True, "alive": Alive.NO, "timed_out": True}, FAILED, "TIMEOUT"),
    ],
)
def test_the_witnesses_add_up_to(evidence, state, reason):
    status = local_status(LocalEvidence(**evidence))
    assert (status.state, status.reason) == (state, reason)


def test_a_refusal_is_told_in_its_own_words():
    assert local_status(LocalEvidence(refused="no such file")).detail == "no such file"


@pytest.mark.parametrize(
    ("code", "signal"),
    [(None, None), (0, None), (1, None), (128, None), (129, 1), (137, 9), (192, 64), (193, None), (255, None)],
)
def test_an_exit_code_above_128_is_a_signal(code, signal):
    assert signal_of(code) == signal


def replayed(attempt, events):
    for event in events:
        attempt = evolve(attempt, event)
    return attempt


@pytest.mark.parametrize("attempt", LIVE, ids=["submitting", "queued", "running"])
def test_local_evidence_leads_to_legal_events_and_to_its_own_state(attempt):
    for e in EVERYTHING:
        state = local_status(e).state
        if (attempt.state, state) == (RUNNING, PENDING):  # nothing here puts a started task back
            state = RUNNING
        assert replayed(attempt, interpret(attempt, e)).state == state, e


@pytest.mark.parametrize("attempt", ENDED, ids=["completed", "failed"])
def test_an_ended_attempt_is_never_changed(attempt):
    assert {interpret(attempt, e) for e in EVERYTHING} == {()}


@pytest.mark.parametrize("attempt", LIVE, ids=["submitting", "queued", "running"])
def test_the_same_evidence_again_adds_nothing(attempt):
    for e in EVERYTHING:
        assert not interpret(replayed(attempt, interpret(attempt, e)), e), e


numbers = st.none() | st.floats(0, 2e9)
statuses = st.builds(
    JobStatus,
    state=st.sampled_from(State),
    reason=st.sampled_from(["", *Reason]),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    word=st.text(max_size=5),
    detail=st.text(max_size=5),
    started_at=numbers,
    ended_at=numbers,
)


@given(st.sampled_from(LIVE), st.lists(statuses, max_size=6))
def test_any_answers_of_any_backend_lead_to_legal_events(attempt, answers):
    for status in answers:
        ended = attempt.state in (COMPLETED, FAILED)
        events = interpret(attempt, status)
        assert not (ended and events)
        attempt = replayed(attempt, events)
        assert ended or attempt.state == status.state
        assert attempt.state is not FAILED or attempt.reason


def test_a_job_seen_first_when_it_had_ended_is_recorded_as_started_too():
    events = interpret(QUEUED, JobStatus("j", COMPLETED, started_at=5.0, ended_at=7.0, exit_code=0, node="n1", pid=8))
    assert events == [ev.JobStarted(5.0, "n1", 8), ev.TaskCompleted(7.0)]


def test_a_job_that_never_started_is_not_recorded_as_started():
    assert interpret(QUEUED, JobStatus("j", FAILED, "CANCELLED")) == [ev.TaskFailed("CANCELLED")]


def test_a_failure_without_a_reason_is_one_of_its_exit_code():
    (event,) = interpret(STARTED, JobStatus("j", FAILED, exit_code=2))
    assert (event.reason, event.exit_code) == ("EXIT_CODE", 2)


def test_a_started_job_that_queues_again_was_requeued():
    assert interpret(STARTED, JobStatus("j", PENDING, word="REQUEUED")) == (ev.JobRequeued("REQUEUED"),)
