from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from matterstack.core import events as ev
from matterstack.core.attempt import Attempt, evolve
from matterstack.core.evidence import Absence, JobStatus, SlurmEvidence
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING, Reason
from matterstack.core.reconcile import (
    SLURM_TABLE,
    Verdict,
    _case,
    interpret,
    slurm_status,
    slurm_verdict,
    status_of,
)
from matterstack.core.slurm_words import END, ENDING, REASONS, STATES, UNKNOWN, WAITING, kind_of, plain_word

NO, BRIEF, GRACE, SETTLED, LONG = Absence
AS_BEFORE, NEVER_STARTED = Verdict
WORDS = [long for long, _, _ in STATES]
INFRASTRUCTURE = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL")
SUBMITTING = Attempt("t", PENDING, 1, "ms-1", requested=True)
QUEUED = Attempt("t", PENDING, 1, "ms-1", job_id="12@r/t/1", requested=True)
STARTED = Attempt("t", RUNNING, 1, "ms-1", job_id="12@r/t/1", requested=True, started_at=1.0)
LIVE = [SUBMITTING, QUEUED, STARTED]
ENDED = [
    Attempt("t", COMPLETED, 1, "ms-1", job_id="j", requested=True, exit_code=0),
    Attempt("t", FAILED, 1, "ms-1", job_id="j", requested=True, reason="LOST"),
]

words = st.sampled_from(["", "", "NEWSTATE", "?", "CANCELLED by 1000", "OUT_OF_ME+", *WORDS])
flags = {field.name: st.booleans() for field in fields(SlurmEvidence) if field.type is bool}
codes = st.sampled_from([None, 0, 1, 75, 137, 255])
# Every combination of witnesses, also those that no honest world gives.
evidences = st.builds(
    SlurmEvidence,
    queue=words,
    queue_reason=st.sampled_from(["", "None", "Priority", "JobLaunchFailure"]),
    accounting=words,
    accounting_exit_code=codes,
    accounting_signal=st.sampled_from([None, 0, 9, 15, 53, 125]),
    exit_code=codes,
    absent=st.sampled_from(Absence),
    started_at=st.none() | st.floats(0, 2e9),
    ended_at=st.none() | st.floats(0, 2e9),
    node=st.sampled_from(["", "n1"]),
    note=st.sampled_from(["", "a word of caution"]),
    **flags,
)


def replayed(attempt, events):
    for event in events:
        attempt = evolve(attempt, event)
    return attempt


def verdict(**witnesses):
    """Return state or verdict, with the reason of a failure."""
    e = SlurmEvidence(**witnesses)
    found = slurm_verdict(e)
    return (found, slurm_status(e).reason) if found is FAILED else found


# ---- words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("long", "short", "kind"), STATES)
def test_a_state_is_known_in_every_form_that_slurm_prints(long, short, kind):
    forms = [long, short, f"{long}+", f"{long} by 1000", long.lower(), f" {long}\r"]
    assert [(plain_word(form), kind_of(form)) for form in forms if form] == [(long, kind)] * len([*filter(None, forms)])


def test_a_state_cut_to_a_narrow_column_is_known_where_it_can_be_only_one():
    assert (plain_word("OUT_OF_ME+"), plain_word("CANCELLED+"), kind_of("COMPLET+")) == (
        "OUT_OF_MEMORY",
        "CANCELLED",
        UNKNOWN,
    )


@pytest.mark.parametrize(
    "word", ["", "?", "+", "RUNING", "X", "COMPLET", "LAUNCH_FAILED", "RECONFIG_FAIL", "UPDATE_DB"]
)
def test_a_word_that_slurm_never_shows_alone_is_unknown(word):
    assert kind_of(word) is UNKNOWN


def test_every_word_of_an_end_but_completed_has_a_reason():
    assert {long for long, _, kind in STATES if kind is END} == {"COMPLETED", *REASONS}


# ---- the table, case by case ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("witnesses", "expected"),
    [
        # the queue has a live row: as it says, whatever else is said
        ({"queue": "PENDING"}, PENDING),
        ({"queue": "CONFIGURING"}, PENDING),
        ({"queue": "RUNNING"}, RUNNING),
        ({"queue": "SUSPENDED", "claimed": True}, RUNNING),
        ({"queue": "RUNNING", "accounting": "FAILED", "exit_code": 1}, RUNNING),
        ({"queue": "RUNNING", "cancel_requested": True, "claimed": True}, RUNNING),
        ({"queue": "COMPLETING", "accounting": "COMPLETED"}, RUNNING),
        ({"queue": "COMPLETING", "accounting": "COMPLETED", "exit_code": 0, "absent": SETTLED}, RUNNING),
        ({"queue": "COMPLETING", "accounting": "COMPLETED", "exit_code": 0, "absent": LONG}, COMPLETED),
        ({"queue": "COMPLETING", "accounting": "TIMEOUT", "absent": LONG}, RUNNING),
        ({"queue": "NEWSTATE", "accounting": "COMPLETED", "exit_code": 0, "absent": LONG}, AS_BEFORE),
        # requeued
        ({"queue": "PENDING", "accounting": "PREEMPTED", "claimed": True, "requeue": True}, PENDING),
        ({"queue": "PENDING", "accounting": "NODE_FAIL", "claimed": True}, AS_BEFORE),
        # the queue did not answer
        ({"accounting": "COMPLETED", "exit_code": 0, "claimed": True}, AS_BEFORE),
        ({"accounting": "FAILED", "accounting_answered": True}, AS_BEFORE),
        # our exit record
        ({"queue": "COMPLETED", "exit_code": 0}, COMPLETED),
        ({"queue": "COMPLETED", "exit_code": 3}, (FAILED, "EXIT_CODE")),
        ({"accounting": "COMPLETED", "exit_code": 0, "absent": BRIEF}, COMPLETED),
        ({"exit_code": 0, "absent": BRIEF, "accounting_answered": True}, COMPLETED),
        ({"exit_code": 0, "absent": BRIEF, "cancel_requested": True}, COMPLETED),
        *(({"accounting": word, "exit_code": 0, "absent": BRIEF}, COMPLETED) for word in REASONS),
        ({"accounting": "FAILED", "exit_code": 3, "absent": BRIEF}, (FAILED, "EXIT_CODE")),
        ({"accounting": "TIMEOUT", "exit_code": 143, "absent": BRIEF}, (FAILED, "TIMEOUT")),
        ({"accounting": "OUT_OF_MEMORY", "exit_code": 137, "absent": BRIEF}, (FAILED, "OUT_OF_MEMORY")),
        ({"accounting": "CANCELLED", "exit_code": 143, "absent": BRIEF}, (FAILED, "CANCELLED")),
        ({"accounting": "PREEMPTED", "exit_code": 143, "absent": GRACE}, AS_BEFORE),
        ({"accounting": "PREEMPTED", "exit_code": 143, "absent": SETTLED}, (FAILED, "PREEMPTED")),
        ({"exit_code": 3, "absent": BRIEF}, (FAILED, "EXIT_CODE")),
        ({"exit_code": 3, "absent": BRIEF, "accounting_answered": True}, AS_BEFORE),
        ({"exit_code": 3, "absent": BRIEF, "accounting_answered": True, "accounting": "RUNNING"}, AS_BEFORE),
        ({"exit_code": 3, "absent": GRACE, "accounting_answered": True}, (FAILED, "EXIT_CODE")),
        ({"exit_code": 143, "absent": BRIEF, "cancel_requested": True}, (FAILED, "CANCELLED")),
        (
            {"exit_code": 143, "absent": BRIEF, "claimed": True, "limit_near": True, "limit_reached": True},
            (FAILED, "TIMEOUT"),
        ),
        ({"exit_code": 143, "absent": BRIEF, "claimed": True, "limit_near": True}, (FAILED, "EXIT_CODE")),
        ({"exit_code": 1, "setup_failed": True, "queue": "FAILED"}, (FAILED, "SUBMIT_REFUSED")),
        # a cancel that Slurm lost and the job's script heeded; what began keeps its own code
        ({"queue": "FAILED", "exit_code": 143, "cancel_requested": True, "never_began": True}, (FAILED, "CANCELLED")),
        ({"queue": "FAILED", "exit_code": 143, "cancel_requested": True}, (FAILED, "EXIT_CODE")),
        ({"queue": "FAILED", "exit_code": 5, "cancel_requested": True}, (FAILED, "EXIT_CODE")),
        ({"queue": "FAILED", "exit_code": 143, "never_began": True}, (FAILED, "EXIT_CODE")),
        (
            {"queue": "TIMEOUT", "exit_code": 143, "cancel_requested": True, "never_began": True, "claimed": True},
            (FAILED, "TIMEOUT"),
        ),
        (
            {"queue": "NODE_FAIL", "exit_code": 143, "cancel_requested": True, "never_began": True, "absent": GRACE},
            AS_BEFORE,
        ),
        # no record, and Slurm's word
        ({"queue": "COMPLETED", "claimed": True, "absent": BRIEF}, AS_BEFORE),
        ({"queue": "COMPLETED", "claimed": True, "absent": GRACE}, (FAILED, "LOST")),
        ({"accounting": "COMPLETED", "absent": GRACE, "directory_gone": True}, (FAILED, "LOST")),
        ({"accounting": "TIMEOUT", "claimed": True, "absent": BRIEF}, (FAILED, "TIMEOUT")),
        ({"accounting": "DEADLINE", "absent": BRIEF}, (FAILED, "TIMEOUT")),
        ({"accounting": "OUT_OF_MEMORY", "claimed": True, "absent": BRIEF}, (FAILED, "OUT_OF_MEMORY")),
        ({"accounting": "FAILED", "accounting_signal": 9, "claimed": True, "absent": BRIEF}, (FAILED, "EXIT_CODE")),
        (
            {"accounting": "FAILED", "accounting_signal": 125, "claimed": True, "absent": BRIEF},
            (FAILED, "OUT_OF_MEMORY"),
        ),
        ({"accounting": "FAILED", "accounting_signal": 53, "absent": BRIEF}, (FAILED, "SUBMIT_REFUSED")),
        (
            {"accounting": "FAILED", "accounting_signal": 53, "absent": BRIEF, "directory_gone": True},
            (FAILED, "LOST"),
        ),
        ({"accounting": "FAILED", "accounting_exit_code": 1, "absent": BRIEF}, AS_BEFORE),
        ({"accounting": "FAILED", "accounting_exit_code": 1, "absent": GRACE}, (FAILED, "NODE_FAIL")),
        ({"over": "PREEMPTED", "absent": LONG}, (FAILED, "PREEMPTED")),
        ({"over": "CANCELLED", "queue": "PENDING"}, (FAILED, "CANCELLED")),
        ({"over": "CANCELLED", "queue": "RUNNING", "claimed": True}, RUNNING),
        ({"over": "CANCELLED", "queue": "TIMEOUT", "claimed": True, "absent": GRACE}, (FAILED, "TIMEOUT")),
        ({"over": "LOST", "queue": "PENDING"}, PENDING),
        ({"over": "LOST", "absent": BRIEF}, AS_BEFORE),
        ({"over": "LOST", "absent": LONG}, (FAILED, "LOST")),
        ({"over": "LOST", "accounting": "CANCELLED", "accounting_answered": True, "absent": GRACE}, (FAILED, "LOST")),
        ({"queue": "FAILED", "claimed": True, "absent": BRIEF, "accounting_answered": True}, AS_BEFORE),
        ({"queue": "FAILED", "claimed": True, "absent": BRIEF}, (FAILED, "EXIT_CODE")),
        ({"accounting": "FAILED", "accounting_exit_code": 75, "claimed": True, "absent": SETTLED}, AS_BEFORE),
        (
            {"accounting": "FAILED", "accounting_exit_code": 75, "claimed": True, "absent": LONG},
            (FAILED, "INTERRUPTED"),
        ),
        ({"accounting": "FAILED", "accounting_exit_code": 75, "absent": LONG}, (FAILED, "LOST")),
        ({"queue": "FAILED", "claimed": True, "absent": SETTLED, "second_start": True}, AS_BEFORE),
        ({"queue": "FAILED", "claimed": True, "absent": LONG, "second_start": True}, (FAILED, "INTERRUPTED")),
        (
            {"accounting": "FAILED", "accounting_exit_code": 0, "claimed": True, "absent": BRIEF, "second_start": True},
            (FAILED, "EXIT_CODE"),
        ),
        *(({"accounting": word, "claimed": True, "absent": GRACE}, AS_BEFORE) for word in INFRASTRUCTURE),
        *(({"queue": word, "absent": GRACE}, AS_BEFORE) for word in INFRASTRUCTURE),
        *(({"accounting": word, "claimed": True, "absent": SETTLED}, (FAILED, word)) for word in INFRASTRUCTURE),
        *(({"accounting": word, "absent": LONG}, (FAILED, word)) for word in INFRASTRUCTURE),
        # cancelled
        ({"accounting": "CANCELLED", "claimed": True, "absent": BRIEF}, (FAILED, "CANCELLED")),
        ({"queue": "CANCELLED", "cancel_requested": True}, (FAILED, "CANCELLED")),
        ({"queue": "CANCELLED", "claimed": True, "accounting_answered": True, "absent": BRIEF}, AS_BEFORE),
        (
            {"accounting": "CANCELLED", "claimed": True, "fell_at_start": True, "absent": BRIEF},
            (FAILED, "NODE_FAIL"),
        ),
        # its script, ended by Slurm within a second, still wrote a record
        *(
            ({"exit_code": 143, "claimed": True, "accounting_answered": True, "absent": BRIEF, **more}, expected)
            for more, expected in [
                ({"accounting": "CANCELLED", "fell_at_start": True}, (FAILED, "NODE_FAIL")),
                ({"accounting": "CANCELLED", "fell_at_start": True, "cancel_requested": True}, (FAILED, "CANCELLED")),
                ({"accounting": "CANCELLED", "by_user": True}, (FAILED, "CANCELLED")),
                ({"queue": "CANCELLED", "absent": BRIEF}, AS_BEFORE),
                ({"queue": "CANCELLED", "absent": GRACE}, (FAILED, "CANCELLED")),
                ({"queue": "CANCELLED", "cancel_requested": True}, (FAILED, "CANCELLED")),
            ]
        ),
        ({"accounting": "CANCELLED", "by_user": True, "absent": BRIEF}, (FAILED, "CANCELLED")),
        ({"accounting": "CANCELLED", "accounting_answered": True, "absent": BRIEF}, AS_BEFORE),
        ({"accounting": "CANCELLED", "accounting_answered": True, "absent": GRACE}, NEVER_STARTED),
        ({"queue": "CANCELLED", "accounting_answered": True, "absent": LONG}, AS_BEFORE),
        ({"queue": "CANCELLED", "absent": BRIEF}, AS_BEFORE),
        ({"queue": "CANCELLED", "absent": GRACE}, (FAILED, "CANCELLED")),
        ({"queue": "REVOKED", "absent": GRACE}, AS_BEFORE),
        ({"queue": "REVOKED", "absent": SETTLED}, (FAILED, "CANCELLED")),
        # nobody knows of it
        ({"absent": SETTLED, "claimed": True}, AS_BEFORE),
        ({"absent": LONG, "claimed": True}, (FAILED, "INTERRUPTED")),
        ({"absent": LONG, "claimed": True, "accounting": "RUNNING"}, (FAILED, "INTERRUPTED")),
        ({"absent": LONG, "claimed": True, "accounting": "NEWSTATE"}, AS_BEFORE),
        ({"absent": SETTLED}, AS_BEFORE),
        ({"absent": LONG}, NEVER_STARTED),
        ({"absent": LONG, "accounting": "PENDING"}, NEVER_STARTED),
        ({"absent": LONG, "directory_gone": True}, (FAILED, "LOST")),
        ({"absent": LONG, "cancel_requested": True}, (FAILED, "CANCELLED")),
        ({"absent": LONG, "claimed": True, "limit_near": True, "limit_reached": True}, (FAILED, "TIMEOUT")),
        ({"absent": LONG, "claimed": True, "limit_near": True}, (FAILED, "INTERRUPTED")),
        ({"absent": SETTLED, "claimed": True, "limit_near": True, "limit_reached": True}, AS_BEFORE),
    ],
)
def test_the_witnesses_add_up_to(witnesses, expected):
    assert verdict(**witnesses) == expected


def test_every_row_of_the_table_decides_somewhere():
    """A row that no witness reaches says something that is not so."""
    names = ("claimed", "cancel_requested", "limit_near", "directory_gone", "accounting_answered", "setup_failed")
    queues = ("", "PENDING", "RUNNING", "COMPLETING", "FAILED", "X")
    accounts = ("", "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "X")
    deciding = set()
    for queue, accounting, rc, absent, code in product(queues, accounts, (None, 0, 3), Absence, (0, 75)):
        for signal, flags in product((0, 53, 125), product((False, True), repeat=len(names))):
            case = _case(
                SlurmEvidence(
                    queue,
                    accounting=accounting,
                    exit_code=rc,
                    absent=absent,
                    accounting_exit_code=code,
                    accounting_signal=signal,
                    limit_reached=True,
                    **dict(zip(names, flags, strict=True)),
                )
            )
            deciding.add(next(i for i, row in enumerate(SLURM_TABLE) if row[0](case)))
    for more in (
        {"queue": "CANCELLED", "accounting": "", "accounting_answered": True},
        {"over": "CANCELLED", "claimed": False},
        {"over": "LOST", "claimed": False, "accounting_answered": True, "absent": LONG},
        {"over": "LOST", "accounting": "", "claimed": False, "absent": LONG},
        {"fell_at_start": True},
        {"queue": "CANCELLED", "accounting": "", "accounting_answered": True, "exit_code": 143},
        {"fell_at_start": True, "exit_code": 143},
        {"accounting": "FAILED", "exit_code": 143, "never_began": True, "cancel_requested": True},
    ):
        case = _case(SlurmEvidence(**{"accounting": "CANCELLED", "claimed": True, "absent": BRIEF, **more}))
        deciding.add(next(i for i, row in enumerate(SLURM_TABLE) if row[0](case)))
    assert deciding == set(range(len(SLURM_TABLE)))


# ---- what holds for all of them ---------------------------------------------------------------------


@given(evidences)
def test_nothing_is_final_without_positive_evidence(e):
    over = kind_of(e.queue) is END or (not e.queue and e.absent > NO)
    word = over and END in (kind_of(e.queue), kind_of(e.accounting))
    if slurm_verdict(e) in (COMPLETED, FAILED):
        assert e.exit_code is not None or word or e.absent is LONG
        assert over or (kind_of(e.queue) is ENDING and e.exit_code is not None and e.absent is LONG)


@given(evidences)
def test_a_live_row_or_a_silent_queue_never_gives_an_end(e):
    live = e.queue and kind_of(e.queue) is not END and not (kind_of(e.queue) is ENDING and e.absent is LONG)
    if live or (not e.queue and e.absent is NO):
        assert slurm_verdict(e) in (PENDING, RUNNING, AS_BEFORE)


@given(evidences)
def test_completed_needs_our_record_of_exit_0(e):
    if slurm_verdict(e) is COMPLETED:
        assert (e.exit_code, e.setup_failed) == (0, False)
        assert slurm_status(e).exit_code == 0


@given(evidences)
def test_a_record_of_exit_0_is_never_a_failure_of_the_command(e):
    if e.exit_code == 0 and not e.setup_failed:
        assert slurm_verdict(e) is not FAILED
        assert slurm_verdict(e) is not NEVER_STARTED


@given(evidences)
def test_every_failure_has_a_reason_and_none_is_an_exit_code_of_0(e):
    status = slurm_status(e)
    assert (status.reason in set(Reason)) == (status.state is FAILED)
    assert (status.reason, status.exit_code) != ("EXIT_CODE", 0)


@given(evidences)
def test_only_what_was_never_claimed_is_submitted_again(e):
    if slurm_verdict(e) is NEVER_STARTED:
        assert not any((e.claimed, e.directory_gone, e.cancel_requested))
        assert not (e.by_user and "CANCELLED" in map(plain_word, (e.queue, e.accounting)))
        assert e.exit_code is None
        assert e.absent >= GRACE


@given(evidences)
def test_infrastructure_ends_wait_until_slurm_would_have_put_the_job_back(e):
    if slurm_status(e).reason in INFRASTRUCTURE and not e.fell_at_start:  # which ended as CANCELLED, and stays away
        assert e.absent >= SETTLED


@given(evidences)
def test_a_word_that_is_not_known_decides_nothing_and_is_told(e):
    if e.queue and kind_of(e.queue) is UNKNOWN:
        assert slurm_verdict(e) is AS_BEFORE
        assert plain_word(e.queue) in slurm_status(e).detail


@given(evidences)
def test_slurms_own_word_and_the_note_are_kept(e):
    status = slurm_status(e, "12@r/t/1")
    assert status.job_id == "12@r/t/1"
    assert status.word in (e.queue, e.accounting, plain_word(e.queue), plain_word(e.accounting))
    assert e.note in status.detail
    assert status_of(e).state == status.state


@given(evidences)
def test_longer_absence_never_takes_an_end_back(e):
    """What was final stays so while nothing but time changes; or it is still waited for."""
    found = [
        slurm_status(SlurmEvidence(**{f: getattr(e, f) for f in e.__struct_fields__} | {"absent": a})) for a in Absence
    ]
    ends = [(s.state, s.reason) for s in found if s.state in (COMPLETED, FAILED)]
    assert len(set(ends)) <= 1


# ---- events -----------------------------------------------------------------------------------------


@given(st.sampled_from(LIVE), st.lists(evidences, max_size=6))
def test_any_evidence_leads_to_legal_events(attempt, answers):
    for e in answers:
        ended = attempt.state in (COMPLETED, FAILED)
        events = interpret(attempt, e)
        assert not ended or not events
        attempt = replayed(attempt, events)
        if not attempt.requested:
            assert slurm_verdict(e) is NEVER_STARTED
            return


@given(st.sampled_from(LIVE), evidences)
def test_the_same_evidence_again_adds_nothing(attempt, e):
    after = replayed(attempt, interpret(attempt, e))
    assert not after.requested or not interpret(after, e)


@pytest.mark.parametrize("attempt", ENDED, ids=["completed", "failed"])
@given(e=evidences)
def test_an_ended_attempt_is_never_changed(attempt, e):
    assert not interpret(attempt, e)


@pytest.mark.parametrize("attempt", LIVE, ids=["submitting", "queued", "running"])
@given(e=evidences)
def test_where_nothing_changes_there_is_no_event(attempt, e):
    if slurm_verdict(e) is AS_BEFORE:
        assert not interpret(attempt, e)


def test_a_job_that_never_started_is_taken_back():
    e = SlurmEvidence(absent=LONG)
    (event,) = interpret(QUEUED, e)
    assert isinstance(event, ev.SubmitAbsent)
    assert not replayed(QUEUED, [event]).requested


def test_a_job_that_the_queue_called_running_but_that_never_started_is_taken_back_too():
    after = replayed(STARTED, interpret(STARTED, SlurmEvidence(absent=LONG)))
    assert (after.state, after.requested, after.started_at) == (PENDING, False, None)


def test_running_needs_the_claim_that_says_when_it_began():
    assert not interpret(QUEUED, SlurmEvidence("RUNNING"))
    claimed = SlurmEvidence("RUNNING", claimed=True, started_at=5.0, node="n1")
    assert interpret(QUEUED, claimed) == [ev.JobStarted(5.0, "n1", None)]


def test_a_job_put_back_by_slurm_waits_again():
    e = SlurmEvidence("PENDING", "BeginTime", "PREEMPTED", claimed=True, requeue=True, started_at=5.0)
    assert interpret(STARTED, e) == (ev.JobRequeued("BeginTime"),)


def test_a_job_seen_first_when_it_had_ended_is_recorded_as_started_too():
    e = SlurmEvidence("COMPLETED", claimed=True, exit_code=0, started_at=5.0, ended_at=7.0, node="n1")
    assert interpret(QUEUED, e) == [ev.JobStarted(5.0, "n1", None), ev.TaskCompleted(7.0)]


def test_a_command_that_never_began_is_not_recorded_as_started():
    e = SlurmEvidence("FAILED", claimed=True, exit_code=1, setup_failed=True, started_at=5.0)
    (event,) = interpret(QUEUED, e)
    assert (event.reason, event.exit_code) == ("SUBMIT_REFUSED", 1)


def test_a_command_that_was_called_off_is_not_recorded_as_started():
    e = SlurmEvidence(
        "FAILED", claimed=True, exit_code=143, cancel_requested=True, never_began=True, started_at=5.0, ended_at=6.0
    )
    (event,) = interpret(QUEUED, e)
    assert (event.reason, event.detail) == ("CANCELLED", "cancelled before the command began")


@pytest.mark.parametrize(
    ("witnesses", "code", "signal"),
    [
        ({"accounting": "FAILED", "accounting_exit_code": 3, "accounting_signal": 0}, 3, None),
        ({"accounting": "FAILED", "accounting_exit_code": 0, "accounting_signal": 9}, None, 9),
        ({"accounting": "FAILED", "accounting_exit_code": 0, "accounting_signal": 53}, None, None),
        ({"accounting": "TIMEOUT", "accounting_exit_code": 0, "accounting_signal": 0}, None, None),
        ({"accounting": "OUT_OF_MEMORY", "accounting_exit_code": 0, "accounting_signal": 125}, None, None),
        ({"accounting": "TIMEOUT", "accounting_exit_code": 0, "exit_code": 143}, 143, 15),
        ({"accounting": "COMPLETED", "accounting_exit_code": 0, "exit_code": 2}, 2, None),
    ],
)
def test_signals_and_slurms_marks_are_kept_apart_from_exit_codes(witnesses, code, signal):
    status = slurm_status(SlurmEvidence(**witnesses, claimed=True, absent=BRIEF))
    assert (status.exit_code, status.signal) == (code, signal)


def test_a_failure_tells_slurms_word_and_why():
    e = SlurmEvidence("TIMEOUT", "TimeLimit", claimed=True, absent=BRIEF, note="a note")
    status = slurm_status(e)
    assert isinstance(status, JobStatus)
    assert (status.word, status.detail) == ("TIMEOUT", "TimeLimit; a note")


def test_a_finished_command_whose_job_slurm_ended_afterwards_says_so():
    status = slurm_status(SlurmEvidence("", accounting="TIMEOUT", exit_code=0, absent=BRIEF))
    assert (status.state, status.detail) == (COMPLETED, "the command had finished when Slurm ended the job as TIMEOUT")


def test_a_waiting_job_that_is_held_says_why():
    assert slurm_status(SlurmEvidence("PENDING", "JobHeldUser")).detail == "JobHeldUser"


def test_words_of_waiting_in_accounting_are_no_end():
    assert kind_of("REQUEUED") is WAITING
    assert verdict(accounting="REQUEUED", claimed=True, absent=BRIEF) is AS_BEFORE
