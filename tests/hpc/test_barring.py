"""What ended without having begun never begins, whoever submits it in the end; against the real job script."""

from __future__ import annotations

import pytest
from file_place import fill, mounted, unmount
from job_place import SHELLS, Place

from matterstack import Task
from matterstack.core.evidence import Absence, SlurmEvidence
from matterstack.core.machine import Reason
from matterstack.core.reconcile import status_of
from matterstack.runtime.backends.hpc.barring import Bars, bar
from matterstack.runtime.backends.hpc.layout import over_line, read_over
from matterstack.runtime.backends.hpc.monitoring import Identity, Monitor
from matterstack.runtime.backends.hpc.options import SlurmOptions
from matterstack.runtime.backends.hpc.remote import Remote
from matterstack.runtime.backends.hpc.waits import Waits
from matterstack.runtime.transports.local import LocalTransport

OVER = SlurmEvidence(queue="CANCELLED", cancel_requested=True, absent=Absence.LONG)


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "work space")
    yield made
    made.close()


def barred(place, job, evidence=OVER):
    """Return whether the end may not be told, and what is said of that."""
    remote = Remote(LocalTransport(), str(place.root), 60)
    monitor, job_id = Monitor(remote, Waits(), requeue=False), f"12@{job.directory.relative_to(place.root)}"
    monitor.know(job_id, Identity(job.submission.token, "a", None, None))
    bars = Bars(remote, monitor)
    return bool(bars.hold({job_id: evidence})), bars.notice


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("requeue", [False, True])
def test_a_job_that_comes_too_late_starts_nothing(place, shell, requeue):
    place.options = SlurmOptions(requeue=requeue)
    job = place.lone("echo ran >>log")
    assert barred(place, job) == (False, "")
    assert barred(place, job) == (False, "")  # another controller, which did not know
    assert job.run(shell)[0] == 75
    assert job.run(shell, restart=1)[0] == 75
    assert not (job.directory / "log").exists()
    assert job.exit is None


def test_one_that_has_begun_in_the_meantime_is_left_alone(place):
    job = place.lone("echo ran >>log")
    assert job.run()[0] == 0
    before = job.claims
    assert barred(place, job) == (True, "")
    assert job.claims == before


def known(job):
    """Write what staging writes: who the job is in the queue."""
    (job.records / "job").write_text(f"{Identity(job.submission.token, 'a', None, None).line()}\n")


def seen(place, job):
    """Return what another controller sees of it, which knows its id alone."""
    job_id = f"12@{job.directory.relative_to(place.root)}"
    return Monitor(Remote(LocalTransport(), str(place.root), 60), Waits(), requeue=False).poll([job_id])[job_id]


def test_the_next_controller_reads_what_was_decided(place, slurm):
    """The first one died before it was recorded, and Slurm has forgotten the job since."""
    job = place.lone("true")
    known(job)
    barred(place, job)
    assert not slurm.jobs()
    evidence = seen(place, job)
    assert (evidence.over, evidence.claimed) == ("CANCELLED", False)
    status = status_of(evidence)
    assert (status.state, status.reason) == ("FAILED", "CANCELLED")
    assert barred(place, job, evidence) == (False, "")


@pytest.mark.parametrize("shell", SHELLS)
def test_also_on_a_full_disk_a_job_that_comes_too_late_starts_nothing(tmp_path, slurm, shell):
    small = mounted(tmp_path / "disk", "256k")
    place = Place(small)
    try:
        job = place.lone("echo ran >>log")
        known(job)
        fill(small)
        assert barred(place, job) == (False, "")
        assert barred(place, job) == (False, "")
        assert seen(place, job).over == "LOST"  # why is not written
        (small / "ballast").unlink()
        assert job.run(shell)[0] == 75
        assert not (job.directory / "log").exists()
    finally:
        place.close()
        unmount(small)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ms1 over",
        "ms1 over t SOON .",
        "ms1 over t CANCELLED",
        "ms1 over t CANCELLED . .",
        "ms1 over CANCELLED .",
        "ms1 t 1 0 .",
    ],
)
def test_no_other_line_is_a_decision(line):
    assert read_over(line) is None


@pytest.mark.parametrize("evidence", [SlurmEvidence(claimed=True), SlurmEvidence(exit_code=0)])
def test_what_is_known_to_have_begun_is_not_asked_about(place, evidence):
    job = place.lone("true")
    assert barred(place, job, evidence) == (False, "")
    assert not (job.records / "claim").exists()


def test_a_directory_that_is_gone_is_no_trouble(place):
    job = place.lone("true")
    job.directory.rename(place.root / "elsewhere")
    assert barred(place, job) == (False, "")


def test_one_that_has_begun_for_another_run_is_barred_as_well(place):
    """Its claim is no start of ours, and every job of ours finds it taken."""
    job = place.lone("echo ran >>log")
    known(job)
    (job.records / "claim").write_text("ms1 ms-other 99 0 100.0 n1 77 .\n")
    directory = str(job.directory.relative_to(place.root))
    remote = Remote(LocalTransport(), str(place.root), 60)
    assert bar(remote, {directory: (job.submission.token, Reason.CANCELLED)}) == ({}, set())
    assert bar(remote, {directory: ("ms-other", Reason.CANCELLED)})[0].keys() == {directory}
    assert job.run()[0] == 75


def test_what_cannot_be_read_is_not_over(place):
    job = place.lone("true")
    (job.records / "claim").mkdir()
    hold, notice = barred(place, job)
    assert hold
    assert str(job.directory.relative_to(place.root)) in notice


def test_a_decision_of_another_attempt_is_not_believed(place, slurm):
    job = place.lone("true")
    known(job)
    (job.records / "claim").write_text(f"{over_line('ms-other', 'CANCELLED')}\n")
    evidence = seen(place, job)
    assert evidence.over == ""
    assert "another attempt (ms-other)" in evidence.note


def test_nothing_is_left_behind_of_many(place):
    jobs = place.array(*[Task("true", f"t{i}") for i in range(205)])
    for job in jobs:
        (job.records / "secrets").write_text("KEY=1\n")
    ends = {str(job.directory.relative_to(place.root)): (job.submission.token, Reason.CANCELLED) for job in jobs}
    assert bar(Remote(LocalTransport(), str(place.root), 60), ends) == ({}, set())
    for job in jobs:
        assert sorted(path.name for path in job.records.iterdir()) == ["claim", "env"]
