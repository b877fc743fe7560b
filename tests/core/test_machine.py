import pytest
from hypothesis import given
from hypothesis import strategies as st

from matterstack.core import events as ev
from matterstack.core import machine
from matterstack.core.attempt import Attempt, evolve, fold
from matterstack.core.machine import SAME, TRANSITIONS, State, compile_machine, next_states
from matterstack.core.usage import Usage
from matterstack.errors import IllegalTransition

SAMPLES = {
    "SubmitRequested": ev.SubmitRequested(1, "ms-token"),
    "JobSubmitted": ev.JobSubmitted("job-7"),
    "SubmitUnknown": ev.SubmitUnknown("no answer"),
    "SubmitAbsent": ev.SubmitAbsent(),
    "SubmitRefused": ev.SubmitRefused("no such partition"),
    "JobStalled": ev.JobStalled("PartitionNodeLimit", 5.0),
    "JobStarted": ev.JobStarted(10.0, "node1", 42),
    "JobRequeued": ev.JobRequeued("preempted"),
    "CancelRequested": ev.CancelRequested("me"),
    "TaskCompleted": ev.TaskCompleted(20.0),
    "TaskFailed": ev.TaskFailed("EXIT_CODE", 20.0, 3),
    "TaskRetried": ev.TaskRetried("asked for"),
    "TaskChanged": ev.TaskChanged(0, "hash", {"command": "true"}),
    "TaskDropped": ev.TaskDropped(),
    "UsageRecorded": ev.UsageRecorded(1, Usage("sacct", cpus=2)),
    "FilesRecorded": ev.FilesRecorded(1, {"out": ev.FileSum("0" * 64, 3)}),
}
LITERAL = {
    (event, source): source if target is SAME else target
    for event, sources, target in TRANSITIONS
    for source in sources
}


def test_the_states_are_exactly_four():
    assert [state.value for state in State] == ["PENDING", "RUNNING", "COMPLETED", "FAILED"]


def test_the_compiled_table_equals_the_literal_one():
    assert next_states() == LITERAL


def test_the_table_is_this():
    """A second copy, so that a change of the table is a decision and not a slip."""
    p, r, c, f = State
    assert {
        ("SubmitRequested", p): p,
        ("JobSubmitted", p): p,
        ("SubmitUnknown", p): p,
        ("SubmitAbsent", p): p,
        ("SubmitRefused", p): f,
        ("JobStalled", p): p,
        ("JobStarted", p): r,
        ("JobRequeued", r): p,
        ("CancelRequested", p): p,
        ("CancelRequested", r): r,
        ("TaskCompleted", p): c,
        ("TaskCompleted", r): c,
        ("TaskFailed", p): f,
        ("TaskFailed", r): f,
        ("TaskRetried", f): p,
        ("TaskChanged", p): p,
        ("TaskChanged", c): p,
        ("TaskChanged", f): p,
        ("TaskDropped", p): p,
        ("TaskDropped", c): c,
        ("TaskDropped", f): f,
        ("UsageRecorded", p): p,
        ("UsageRecorded", r): r,
        ("UsageRecorded", c): c,
        ("UsageRecorded", f): f,
        ("FilesRecorded", p): p,
        ("FilesRecorded", r): r,
        ("FilesRecorded", c): c,
        ("FilesRecorded", f): f,
    } == next_states()


def test_every_event_of_the_table_is_an_event_and_has_a_sample():
    assert set(SAMPLES) == {event for event, _, _ in TRANSITIONS}
    assert set(SAMPLES) <= set(ev.TYPES)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("TaskHeld", [State.PENDING], "HELD"), "unknown state"),
        (("TaskHeld", ["HELD"], State.PENDING), "unknown state"),
        (("JobStarted", [State.PENDING], State.FAILED), "twice"),
        (("TaskHeld", [State.PENDING, State.PENDING], SAME), "twice"),
    ],
)
def test_a_table_with_an_unknown_state_or_a_double_row_is_refused(monkeypatch, row, words):
    monkeypatch.setattr(machine, "TRANSITIONS", [*TRANSITIONS, row])
    with pytest.raises(ValueError, match=words):
        compile_machine()


def test_no_model_hangs_on_the_machine():
    assert compile_machine().models == []


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("kind", SAMPLES)
def test_every_event_in_every_state_is_legal_or_refused(kind, state):
    before = Attempt("t", state, 1, "ms-token", "job-7", requested=True)
    if (kind, state) in LITERAL:
        assert evolve(before, SAMPLES[kind]).state is LITERAL[kind, state]
    else:
        with pytest.raises(IllegalTransition) as caught:
            evolve(before, SAMPLES[kind])
        assert (caught.value.task_id, caught.value.event, caught.value.state) == ("t", kind, state)
        assert "Nothing was recorded" in str(caught.value)


@pytest.mark.parametrize("event", [ev.RunStopped("finished"), ev.RequestsTaken(1), ev.TaskAdded(0, "h", {})])
def test_an_event_that_is_not_of_a_task_under_way_is_refused(event):
    with pytest.raises(IllegalTransition):
        evolve(Attempt("t"), event)


@given(st.data())
def test_any_sequence_of_legal_events_stays_in_the_table_and_folds_to_the_same(data):
    attempt, past = Attempt("t"), []
    for _ in range(data.draw(st.integers(0, 25))):
        kind = data.draw(st.sampled_from(sorted(k for k, state in LITERAL if state is attempt.state)))
        before, event = attempt, SAMPLES[kind]
        attempt = evolve(attempt, event)
        past.append(event)
        assert attempt.state is LITERAL[kind, before.state]
        assert attempt.task_id == "t"
    assert fold("t", past) == attempt
    assert fold("t", [ev.TaskAdded(0, "h", {}), *past]) == attempt


@given(st.data())
def test_the_fold_of_every_prefix_is_defined(data):
    attempt, past = Attempt("t"), []
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(sorted(k for k, state in LITERAL if state is attempt.state)))
        past.append(SAMPLES[kind])
        attempt = evolve(attempt, past[-1])
    assert [fold("t", past[:n]).state in State for n in range(len(past) + 1)] == [True] * (len(past) + 1)


def test_an_attempt_remembers_what_its_events_said():
    past = [ev.SubmitRequested(1, "ms-1"), ev.JobSubmitted("7"), ev.JobStarted(5.0, "n", 9)]
    running = fold("t", past)
    assert (running.number, running.token, running.job_id, running.started_at) == (1, "ms-1", "7", 5.0)
    failed = evolve(running, ev.TaskFailed("TIMEOUT", 9.0, 143, 15, "time limit reached"))
    assert (failed.reason, failed.exit_code, failed.signal, failed.ended_at) == ("TIMEOUT", 143, 15, 9.0)


@pytest.mark.parametrize(
    ("after", "stalled"),
    [
        ([], "PartitionNodeLimit"),
        ([ev.JobStalled()], ""),
        ([ev.JobStarted(5.0)], ""),
        ([ev.SubmitAbsent()], ""),
        ([ev.JobStalled("JobHeldUser", 9.0)], "JobHeldUser"),
    ],
)
def test_why_a_job_is_stalled_counts_until_it_starts_or_another_word_comes(after, stalled):
    past = [SAMPLES["SubmitRequested"], SAMPLES["JobSubmitted"], SAMPLES["JobStalled"]]
    assert fold("t", [*past, *after]).stalled == stalled


def test_a_retry_forgets_the_attempt_but_not_its_number():
    failed = fold("t", [ev.SubmitRequested(1, "ms-1"), ev.JobSubmitted("7"), ev.TaskFailed("EXIT_CODE", 9.0, 3)])
    assert evolve(failed, ev.TaskRetried("asked for")) == Attempt("t", number=1)


def test_a_cancel_outlives_a_repeated_intent_of_the_same_attempt_only():
    asked = fold("t", [ev.SubmitRequested(1, "ms-1"), ev.CancelRequested("me"), ev.SubmitAbsent()])
    assert evolve(asked, ev.SubmitRequested(1, "ms-1")).cancel_requested
    assert not evolve(asked, ev.SubmitRequested(2, "ms-2")).cancel_requested


@pytest.mark.parametrize(
    ("past", "stage", "live"),
    [
        ([], "waiting", False),
        (["SubmitRequested"], "submitting", True),
        (["SubmitRequested", "SubmitUnknown"], "submitting", True),
        (["SubmitRequested", "JobSubmitted"], "queued", True),
        (["SubmitRequested", "JobSubmitted", "SubmitAbsent"], "waiting", False),
        (["SubmitRequested", "JobSubmitted", "JobStarted"], "", True),
        (["SubmitRequested", "JobSubmitted", "JobStarted", "JobRequeued"], "queued", True),
        (["SubmitRequested", "JobSubmitted", "JobStarted", "TaskCompleted"], "", False),
        (["SubmitRequested", "SubmitRefused"], "", False),
        (["TaskFailed"], "", False),
        (["TaskFailed", "TaskRetried"], "waiting", False),
    ],
)
def test_stage_and_liveness_follow_from_the_events(past, stage, live):
    attempt = fold("t", [SAMPLES[kind] for kind in past])
    assert (attempt.stage, attempt.live) == (stage, live)
