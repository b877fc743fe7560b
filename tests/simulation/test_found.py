"""What the simulation found, each reduced to its cause, against the real shell."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from matterstack import Task
from matterstack.core.evidence import Absence
from matterstack.errors import SubmitAbsentError, SubmitHeld, SubmitInDoubt
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc import monitoring
from matterstack.runtime.backends.hpc.batch import batches
from matterstack.runtime.backends.hpc.look_up import look_up
from matterstack.runtime.backends.hpc.monitoring import Identity, Monitor
from matterstack.runtime.backends.hpc.remote import Remote
from matterstack.runtime.backends.hpc.submit_script import FUNCTIONS
from matterstack.runtime.backends.hpc.submitting import Submitter
from matterstack.runtime.backends.hpc.waits import Waits
from matterstack.runtime.transports.local import LocalTransport


@pytest.fixture
def remote(tmp_path, slurm):
    return Remote(LocalTransport(), str(tmp_path / "workspace"), 60)


def identity(task):
    return Identity(f"ms-{task}", f"{task}.ms-{task}", None, None)


def test_a_lost_jobs_id_that_another_of_ours_has_now_tells_nothing_of_it(tmp_path, slurm, remote):
    for task, words in (("a", None), ("b", "CANCELLED")):
        (tmp_path / "workspace/run" / task / "1/.matterstack").mkdir(parents=True)
        if words:
            job = slurm.directory / "jobs/12"
            job.mkdir()
            for name, text in {"name": f"{task}.ms-{task}", "word": words, "submit": "1000", "start": "1001"}.items():
                (job / name).write_text(text)
            (job / "pid").write_text("")
    slurm.order("purge")
    monitor = Monitor(remote, Waits(), requeue=False)
    jobs = {task: f"12@run/{task}/1" for task in ("a", "b")}
    for task, job in jobs.items():
        monitor.know(job, identity(task))
    for order in (["a", "b"], ["b", "a"]):
        found = monitor.poll([jobs[task] for task in order])
        assert {task: found[job].accounting for task, job in jobs.items()} == {"a": "", "b": "CANCELLED"}


def test_a_record_counts_no_longer_when_slurm_has_started_the_job_again(tmp_path, remote):
    meta = tmp_path / "workspace/run/a/1/.matterstack"
    meta.mkdir(parents=True)
    monitor = Monitor(remote, Waits(), requeue=True)
    monitor.know("12@run/a/1", identity("a"))

    def exit_code():
        return monitor.poll(["12@run/a/1"])["12@run/a/1"].exit_code

    (meta / "claim").write_text("ms1 ms-a 12 0 1000.0 n1 7 .\n")
    (meta / "exit").write_text("ms1 ms-a 12 0 0 1000.0 1001.0 n1 - .\n")
    assert exit_code() == 0
    (meta / "claim.1").write_text("ms1 ms-a 12 1 1002.0 n1 7 .\n")
    assert exit_code() is None  # an older start, which lived on, wrote it
    (meta / "exit").unlink()
    assert exit_code() is None
    (meta / "exit").write_text("ms1 ms-a 12 1 3 1002.0 1003.0 n1 - .\n")
    assert exit_code() == 3


def test_a_submit_claim_that_is_gone_when_it_is_looked_at_still_gets_a_whole_answer(remote):
    (part,) = remote.ask(f"{FUNCTIONS}tell ms-a 1 1")
    assert part.words == ["claimed", "ms-a", "1", "0"]


def test_of_the_jobs_of_one_name_a_live_one_is_adopted(slurm, remote):
    """The others are ended; one of an earlier try may have ended long ago, and have the lower id."""
    (batch,) = batches([Submission(Task("true", "a"), "run", 1, "ms-a", gen=2)])
    for number, word in (("5", "CANCELLED"), ("9", "PENDING"), ("7", "CANCELLED")):
        job = slurm.directory / "jobs" / number
        job.mkdir()
        for name, text in {"name": batch.name, "word": word, "submit": "1000", "pid": ""}.items():
            (job / name).write_text(text)
    assert look_up(remote, [batch], []).jobs == {batch.key: ["9", "5", "7"]}
    slurm.order("purge")
    assert look_up(remote, [batch], []).jobs == {batch.key: ["9", "5", "7"]}


def test_what_only_accounting_lists_is_no_reason_to_end_another_job(slurm, remote):
    """Slurm's controller had lost the first one in a crash, and did not answer when the second one waited."""
    (batch,) = batches([Submission(Task("true", "a"), "run", 1, "ms-a", gen=2)])
    for number, word in (("5", "COMPLETED"), ("9", "CANCELLED")):
        job = slurm.directory / "jobs" / number
        job.mkdir()
        for name, text in {"name": batch.name, "word": word, "submit": "1000", "pid": ""}.items():
            (job / name).write_text(text)
    assert look_up(remote, [batch], []).jobs == {batch.key: ["5"]}
    slurm.order("ctld")
    found = look_up(remote, [batch], [])
    assert (found.jobs, found.silent) == ({}, "squeue")


def test_what_an_earlier_shell_may_still_submit_stays_in_doubt(slurm, remote):
    """So a cancel has to take its submit claim, and cannot just drop it."""

    def pair(**more):
        return [Submission(Task("true", name), "run", 1, f"ms-{name}-{len(more)}", **more) for name in ("a", "b")]

    def stage(todo):
        for batch in todo:
            remote.ask(f"mkdir -p .matterstack/submissions/{batch.token}")
        return {}

    submitter = Submitter(remote, Waits(), stage)
    slurm.order("ctld")
    assert [type(one) for one in submitter.submit(pair())] == [SubmitInDoubt, SubmitHeld]
    assert [type(one) for one in submitter.submit(pair(again=True))] == [SubmitInDoubt, SubmitInDoubt]


def test_a_process_that_was_stopped_takes_an_old_answer_for_an_old_one(tmp_path, remote, monkeypatch):
    """SIGSTOP after the answer, and SIGCONT ten minutes later: nobody has seen ten minutes of absence."""
    (tmp_path / "workspace/run/a/1/.matterstack").mkdir(parents=True)
    monitor = Monitor(remote, Waits(), requeue=False)
    monitor.know("12@run/a/1", identity("a"))
    clock = SimpleNamespace(monotonic=lambda: clock.now, time=time.time, now=1000.0)
    monkeypatch.setattr(monitoring, "time", clock)
    ask = remote.ask

    def stopped(script, lines=()):
        parts = ask(script, lines)
        clock.now += 650.0
        return parts

    monkeypatch.setattr(remote, "ask", stopped)
    assert monitor.poll(["12@run/a/1"])["12@run/a/1"].absent is Absence.BRIEF


def test_a_cancelled_submission_leaves_its_mark_for_jobs_that_come_too_late(tmp_path, slurm, remote):
    (tmp_path / "workspace/run/a/1/.matterstack").mkdir(parents=True)
    submitter = Submitter(remote, Waits(), lambda _: {})
    (answer,) = submitter.submit([Submission(Task("true", "a"), "run", 1, "ms-a", cancelled=True)])
    assert isinstance(answer, SubmitAbsentError)
    assert (tmp_path / "workspace/run/a/1/.matterstack/cancel").exists()
    assert (tmp_path / "workspace/run/a/1/.matterstack/claim").read_text() == "ms1 over ms-a CANCELLED .\n"
