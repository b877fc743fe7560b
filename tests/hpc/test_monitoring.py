"""Asking for all jobs at once, against a Slurm that purges, lags, goes silent and uses ids again."""

from __future__ import annotations

import time

import pytest
from fake_slurm import FakeSlurm

from matterstack.core.evidence import Absence
from matterstack.core.reconcile import slurm_status
from matterstack.errors import BackendUnavailable
from matterstack.runtime.backends.hpc.monitoring import Identity, Monitor, read_identity
from matterstack.runtime.backends.hpc.remote import Remote
from matterstack.runtime.backends.hpc.waits import Waits
from matterstack.runtime.transports.local import LocalTransport

JOB = "1@run/a/1"
ME = Identity("ms-a", "a.ms-a", None, None)
LATE = {"grace_s": 1000.0, "infrastructure_s": 1000.0, "absence_s": 1000.0}
SOON = {"grace_s": 0.0, "infrastructure_s": 0.0, "absence_s": 0.0}


class Counting(LocalTransport):
    calls = 0

    def run(self, script, **more):
        self.calls += 1
        return super().run(script, **more)


class World:
    """A Slurm with one job, its attempt's directory, and monitors to look at them."""

    def __init__(self, root, slurm):
        self.root, self.slurm, self.transport = root, slurm, Counting()
        self.records = root / "run/a/1/.matterstack"
        self.records.mkdir(parents=True)
        self.record("job", ME.line())

    def record(self, name, line):
        (self.records / name).write_text(line + "\n")

    def job(self, word, number="1", name="a.ms-a", **facts):
        place = self.slurm.directory / "jobs" / number
        place.mkdir(exist_ok=True)
        for fact, text in {"name": name, "word": word, "submit": "100", "pid": "0", **facts}.items():
            (place / fact).write_text(str(text))

    def monitor(self, *, requeue=False, **waits):
        return Monitor(Remote(self.transport, str(self.root), 60), Waits(**{**LATE, **waits}), requeue=requeue)

    def status(self, monitor=None):
        return slurm_status((monitor or self.monitor()).poll([JOB])[JOB], JOB)


@pytest.fixture
def world(tmp_path, monkeypatch):
    slurm = FakeSlurm(tmp_path / "slurm")
    slurm.use(monkeypatch)
    slurm.order("hold")
    return World(tmp_path / "workspace", slurm)


def test_a_job_in_the_queue_waits(world):
    world.job("PENDING")
    assert (world.status().state, world.status().word) == ("PENDING", "PENDING")


def test_a_job_with_a_claim_runs_since_then(world):
    world.job("RUNNING")
    world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    status = world.status()
    assert (status.state, status.started_at, status.node) == ("RUNNING", 123.5, "n2")


def test_an_exit_record_is_the_end_when_the_job_has_left(world):
    world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    world.record("exit", "ms1 ms-a 1 0 0 123.5 130.0 n2 - .")
    status = world.status()
    assert (status.state, status.exit_code, status.ended_at) == ("COMPLETED", 0, 130.0)
    assert world.transport.calls == 1, "queue and records are one command, and more was not needed"


def test_a_live_job_is_not_ended_by_an_exit_record(world):
    world.job("RUNNING")
    world.record("exit", "ms1 ms-a 1 0 0 123.5 130.0 n2 - .")
    assert world.status().state == "RUNNING"


def test_an_exit_code_with_slurms_word_in_the_queue_needs_no_accounting(world):
    world.job("FAILED")
    world.record("exit", "ms1 ms-a 1 0 3 123.5 130.0 n2 - .")
    status = world.status()
    assert (status.state, status.reason, status.exit_code) == ("FAILED", "EXIT_CODE", 3)
    assert world.slurm.calls("sacct") == 0


def test_a_cut_exit_record_is_none(world):
    world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    world.record("exit", "ms1 ms-a 1 0 0 123.5 130.0 n2 -")
    assert world.status().state == "RUNNING"


def test_a_record_of_another_attempt_is_not_believed_and_told(world):
    world.record("exit", "ms1 ms-other 1 0 0 123.5 130.0 n2 - .")
    status = world.status()
    assert status.state == "PENDING"
    assert "ms-other" in status.detail


def test_another_jobs_row_under_our_id_is_not_believed(world):
    world.job("FAILED", name="theirs")
    assert world.status().state == "PENDING"


def test_one_command_answers_for_all(world):
    for i in range(2, 30):
        world.job("PENDING", str(i), f"t.ms-t{i}")
    world.job("PENDING")
    monitor = world.monitor()
    jobs = [JOB, *(f"{i}@run/t{i}/1" for i in range(2, 30))]
    for i in range(2, 30):
        monitor.know(jobs[i - 1], Identity(f"ms-t{i}", f"t.ms-t{i}", None, None))
    assert {slurm_status(evidence).state for evidence in monitor.poll(jobs).values()} == {"PENDING"}
    assert world.transport.calls == 1
    assert world.slurm.calls("squeue") == 1


def test_elements_of_an_array_are_told_apart(world):
    monitor = world.monitor()
    for i, word in enumerate(["PENDING", "RUNNING", "FAILED"]):
        world.job(word, f"5_{i}", "run.ms-array")
        monitor.know(f"5_{i}@run/t{i}/1", Identity(f"ms-t{i}", "run.ms-array", i, None))
    found = monitor.poll([f"5_{i}@run/t{i}/1" for i in range(3)])
    assert [evidence.queue for evidence in found.values()] == ["PENDING", "RUNNING", "FAILED"]


def test_a_controller_that_does_not_answer_ends_nothing(world):
    world.slurm.order("ctld")
    with pytest.raises(BackendUnavailable, match="squeue"):
        world.monitor(**SOON).poll([JOB])


def test_silence_makes_absence_begin_anew(world):
    monitor = world.monitor(grace_s=0.5)
    world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    assert monitor.poll([JOB])[JOB].absent is Absence.BRIEF
    world.slurm.order("ctld")
    with pytest.raises(BackendUnavailable):
        monitor.poll([JOB])
    world.slurm.mend("ctld")
    time.sleep(0.6)
    assert monitor.poll([JOB])[JOB].absent is Absence.BRIEF


def test_a_job_that_comes_back_is_not_absent(world):
    monitor = world.monitor(grace_s=0.0)
    monitor.poll([JOB])
    world.job("PENDING")
    assert monitor.poll([JOB])[JOB].absent is Absence.NO


@pytest.mark.parametrize(("claimed", "expected"), [(True, ("FAILED", "INTERRUPTED")), (False, ("PENDING", ""))])
def test_long_absence_is_told_by_what_is_known_of_the_start(world, claimed, expected):
    if claimed:
        world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    world.slurm.order("off")
    status = world.status(world.monitor(**SOON))
    assert (status.state, status.reason) == expected


def test_absence_is_not_long_while_accounting_is_silent(world):
    world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    world.slurm.order("dbd")
    monitor = world.monitor(**{**SOON, "absence_s": 0.3})
    for _ in range(3):
        assert monitor.poll([JOB])[JOB].absent is not Absence.LONG
        time.sleep(0.2)


def test_without_accounting_the_records_are_enough(world):
    world.slurm.order("off")
    world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    world.record("exit", "ms1 ms-a 1 0 4 123.5 130.0 n2 - .")
    status = world.status(world.monitor(grace_s=0.0))
    assert (status.state, status.exit_code) == ("FAILED", 4)


def test_accounting_tells_of_a_job_without_a_record(world):
    world.slurm.order("purge")
    world.job("TIMEOUT", start=200, end=300)
    world.record("claim", "ms1 ms-a 1 0 200.0 n2 77 .")
    status = world.status()
    assert (status.state, status.reason, status.word) == ("FAILED", "TIMEOUT", "TIMEOUT")


def test_a_directory_that_was_removed_is_told_after_the_deadline(world):
    for file in world.records.iterdir():
        file.unlink()
    world.records.rmdir()
    monitor = world.monitor(**SOON)
    monitor.know(JOB, ME)
    status = slurm_status(monitor.poll([JOB])[JOB])
    assert (status.state, status.reason) == ("FAILED", "LOST")
    assert "directory" in status.detail


def test_a_word_that_nobody_knows_changes_nothing_and_is_told(world):
    world.job("QUANTUM")
    status = world.status(world.monitor(**SOON))
    assert status.state == "PENDING"
    assert "QUANTUM" in status.detail


def test_the_job_that_has_the_claim_counts_whatever_was_submitted_after_it(world):
    """After a journal was restored, an attempt may have two jobs; the second finds the claim and ends."""
    world.job("FAILED", "2", "a.ms-a", code=75)
    world.job("RUNNING", "1", "run.ms-old")
    world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    monitor = world.monitor(**SOON)
    status = slurm_status(monitor.poll(["2@run/a/1"])["2@run/a/1"])
    assert status.state == "RUNNING"
    world.job("COMPLETED", "1", "run.ms-old")
    world.record("exit", "ms1 ms-a 1 0 0 123.5 130.0 n2 - .")
    status = slurm_status(monitor.poll(["2@run/a/1"])["2@run/a/1"])
    assert (status.state, status.exit_code) == ("COMPLETED", 0)


def test_ids_that_are_not_ours_are_left_out(world):
    assert world.monitor().poll(["12", "run/a/1"]) == {}


@pytest.mark.parametrize("identity", [ME, Identity("ms-b", "b.ms-t", 7, 3600.0)])
def test_an_identity_survives_its_file(identity):
    assert read_identity(identity.line()) == identity


@pytest.mark.parametrize("line", ["", "ms-a a.ms-a - -", "ms-a a.ms-a x - .", "a b c d e f ."])
def test_a_damaged_job_file_says_nothing(line):
    assert read_identity(line) is None


@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.parametrize(("ran_s", "by"), [(0, "CANCELLED"), (1, "CANCELLED by 0"), (9, "CANCELLED by 0")])
def test_a_job_that_slurm_ended_as_it_began_was_not_cancelled_by_anybody(world, claimed, ran_s, by):
    """A controller that forgot jobs uses their ids again, and a node then ends both."""
    world.slurm.order("purge")
    world.job(by, start=200, end=200 + ran_s)
    if claimed:
        world.record("claim", "ms1 ms-a 1 0 200.0 n1 77 .")
    status = world.status(world.monitor(grace_s=0.0))
    expected = {
        (True, False): ("FAILED", "CANCELLED"),
        (False, False): ("FAILED", "CANCELLED"),
        (True, True): ("FAILED", "NODE_FAIL"),
        (False, True): ("PENDING", ""),
    }
    assert (status.state, status.reason) == expected[claimed, ran_s <= 1]


@pytest.mark.parametrize("purged", [False, True])
@pytest.mark.parametrize(
    ("by", "ours", "reason"),
    [
        ("CANCELLED by 0", False, "NODE_FAIL"),
        ("CANCELLED by 1000", False, "CANCELLED"),
        ("CANCELLED by 0", True, "CANCELLED"),
    ],
)
def test_nor_was_one_whose_script_still_wrote_a_record(world, purged, by, ours, reason):
    if purged:
        world.slurm.order("purge")
    world.job(by, start=200, end=200)
    world.record("claim", "ms1 ms-a 1 0 200.0 n1 77 .")
    world.record("exit", "ms1 ms-a 1 0 143 200.0 200.1 n1 - .")
    world.record("begun", "")
    if ours:
        world.record("cancel", "")
    status = world.status()
    assert (status.state, status.reason, status.exit_code) == ("FAILED", reason, 143)


# ---- cancelled, and heeded by the job alone ---------------------------------------------------------------


@pytest.mark.parametrize("seen_by", ["queue", "accounting"])
@pytest.mark.parametrize(
    ("marks", "code", "reason"),
    [
        (("cancel",), 143, "CANCELLED"),
        (("cancel",), 2, "CANCELLED"),  # it found its secrets gone before it looked for the mark
        (("cancel", "begun"), 143, "EXIT_CODE"),
        (("cancel", "begun"), 7, "EXIT_CODE"),
        ((), 143, "EXIT_CODE"),
    ],
)
def test_a_cancel_that_the_job_heeded_though_slurm_lost_it_is_a_cancel(world, marks, code, reason, seen_by):
    if seen_by == "accounting":
        world.slurm.order("purge")
    world.job("FAILED", code=code, start=200, end=201)
    world.record("claim", "ms1 ms-a 1 0 200.0 n2 77 .")
    world.record("exit", f"ms1 ms-a 1 0 {code} 200.0 201.0 n2 - .")
    for mark in marks:
        (world.records / mark).touch()
    status = world.status()
    assert (status.state, status.reason, status.exit_code) == ("FAILED", reason, code)


def test_a_heeded_cancel_is_no_end_of_a_job_that_slurm_started_again(world):
    """What was beside the record of the first start says nothing of the second."""
    monitor = world.monitor(requeue=True)
    world.job("RUNNING")
    world.record("claim", "ms1 ms-a 1 0 200.0 n2 77 .")
    world.record("exit", "ms1 ms-a 1 0 143 200.0 201.0 n2 - .")
    (world.records / "cancel").touch()
    world.status(monitor)
    world.job("FAILED", code=3)
    world.record("claim.1", "ms1 ms-a 1 1 300.0 n2 78 .")
    world.record("exit", "ms1 ms-a 1 1 3 300.0 301.0 n2 - .")
    (world.records / "begun").touch()
    status = world.status(monitor)
    assert (status.reason, status.exit_code) == ("EXIT_CODE", 3)


# ---- started again by Slurm -------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["seen before", "seen first"])
@pytest.mark.parametrize("code", [0, 3])
def test_the_record_of_an_earlier_start_is_no_end_of_a_later_one(world, known, code):
    """A start that is killed before it could remove the record of the one before leaves it there."""
    monitor = world.monitor(requeue=True)
    world.record("claim", "ms1 ms-a 1 0 123.5 n2 77 .")
    world.record("exit", f"ms1 ms-a 1 0 {code} 123.5 130.0 n2 - .")
    world.job("RUNNING")
    if known:
        assert monitor.poll([JOB])[JOB].exit_code == code
    for restart in (2, 10):  # in the order in which a shell lists them, 10 comes first
        world.record(f"claim.{restart}", f"ms1 ms-a 1 {restart} {200.0 + restart} n3 78 .")
    world.job("COMPLETING")
    world.slurm.order("off")
    found = monitor.poll([JOB])[JOB]
    assert (found.exit_code, found.started_at, found.node) == (None, 210.0, "n3")
    assert slurm_status(found).state == "RUNNING"


# ---- secrets that no job took -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "left"),
    [("CANCELLED", False), ("DEADLINE", False), ("PREEMPTED", True), ("PENDING", True), ("RUNNING", True), ("", True)],
)
def test_secrets_of_a_job_that_ended_before_it_took_them_are_removed(world, word, left):
    """In the question that is asked anyway; not where the job, or another start of it, may still need them."""
    world.record("secrets", "export KEY=1")
    if word:
        world.job(word)
    world.status()
    assert (world.records / "secrets").exists() == left
    assert world.transport.calls == (1 if word in ("PENDING", "RUNNING") else 2)
