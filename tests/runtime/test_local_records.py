"""What a LocalBackend concludes from records and processes: never a false end, never a stranger's process."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from watching import ended, eventually, lives, running

from matterstack import Task
from matterstack.runtime.backends.local import LocalBackend, processes

RECORD = ".matterstack.record"
OTHER_BOOT = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def queued(local):
    """A job that is submitted and never started, since a gate keeps the only slot."""
    backend = local(slots=1, grace_s=1)
    running(backend, backend.submit(Task("sleep 60", "gate")))
    job_id = backend.submit(Task("echo never", "a"))
    yield backend, job_id, backend.workdir(job_id) / RECORD
    backend.cancel("_alone/gate/1")


@pytest.fixture
def stranger():
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def start_line(pid, ticks, boot=None, wrapper=None):
    wrapper = wrapper or (pid, ticks)
    return f"start {pid} {ticks} {wrapper[0]} {wrapper[1]} {boot or processes.boot_id()} -\n"


def test_a_reused_pid_is_not_the_job_and_is_never_killed(queued, stranger):
    backend, job_id, record = queued
    ticks = processes.start_ticks(stranger.pid)
    record.write_text(start_line(stranger.pid, ticks - 1))
    status = backend.poll(job_id)
    assert (status.state, status.reason) == ("FAILED", "INTERRUPTED")
    backend.cancel(job_id)
    backend.cancel_many([job_id])
    assert lives(stranger.pid)
    assert stranger.poll() is None


def test_the_same_pid_and_start_time_of_another_boot_is_not_the_job(queued, stranger):
    backend, job_id, record = queued
    record.write_text(start_line(stranger.pid, processes.start_ticks(stranger.pid), boot=OTHER_BOOT))
    status = backend.poll(job_id)
    assert (status.state, status.reason) == ("FAILED", "INTERRUPTED")
    assert "machine" in status.detail
    backend.cancel(job_id)
    assert lives(stranger.pid)


def test_an_end_recorded_before_the_machine_went_down_counts(queued):
    backend, job_id, record = queued
    record.write_text(start_line(123, 456, boot=OTHER_BOOT) + "exit 0 end\n")
    assert backend.poll(job_id).state == "COMPLETED"


def test_a_timeout_whose_end_was_never_written_is_still_a_timeout(queued):
    backend, job_id, record = queued
    record.write_text(start_line(123, 456, boot=OTHER_BOOT) + "timeout\n")
    assert backend.poll(job_id).reason == "TIMEOUT"


def test_the_very_process_of_the_record_is_running_and_is_ended_by_cancel(queued, stranger):
    backend, job_id, record = queued
    record.write_text(start_line(stranger.pid, processes.start_ticks(stranger.pid)))
    assert backend.poll(job_id).state == "RUNNING"
    backend.cancel_many([job_id])
    assert stranger.wait(10) == -signal.SIGTERM
    assert ended(backend, job_id).reason == "CANCELLED"


def test_a_living_wrapper_means_the_end_is_still_to_come(queued, stranger):
    backend, job_id, record = queued
    wrapper = stranger.pid, processes.start_ticks(stranger.pid)
    record.write_text(start_line(2**22 + 5, 7, wrapper=wrapper))
    assert backend.poll(job_id).state == "RUNNING"


def test_a_cancel_that_meets_a_claim_without_its_start_line_waits_for_it(queued, stranger):
    backend, job_id, record = queued
    record.write_text("")
    line = start_line(stranger.pid, processes.start_ticks(stranger.pid))
    subprocess.Popen(["sh", "-c", 'sleep 0.2; printf %s "$0" >>"$1"', line, str(record)]).poll()
    backend.cancel_many([job_id])
    assert stranger.wait(10) == -signal.SIGTERM


def test_a_claim_that_was_never_followed_by_a_start_is_given_up_after_long(queued):
    backend, job_id, record = queued
    record.write_text("")
    assert backend.poll(job_id).state == "PENDING"
    os.utime(record, (time.time() - 3600,) * 2)
    assert backend.poll(job_id).reason == "INTERRUPTED"


@pytest.mark.parametrize("code", [0, 1, 137, 143])
def test_a_record_cut_at_any_byte_gives_no_false_end(queued, stranger, code):
    backend, job_id, record = queued
    whole = start_line(stranger.pid, processes.start_ticks(stranger.pid)) + f"timeout\n\nexit {code} end\n"
    for cut in range(len(whole)):
        record.write_text(whole[:cut])
        assert backend.poll(job_id).state in ("PENDING", "RUNNING"), whole[:cut]
    record.write_text(whole)
    assert backend.poll(job_id).state == ("FAILED" if code else "COMPLETED")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=80) | st.text("exit 0end\nstartwihdrawn 17", max_size=40).map(str.encode))
def test_garbage_in_a_record_is_no_success(queued, garbage):
    backend, job_id, record = queued
    record.write_bytes(garbage)
    assert backend.poll(job_id).state != "COMPLETED"


def test_a_task_that_writes_lines_like_a_record_does_not_end_by_them(local):
    backend = local()
    status = ended(backend, backend.submit(Task("echo 'exit 0 end'; echo 'exit 0 end' >&2; exit 9", "a")))
    assert status.exit_code == 9


def test_a_task_can_not_reach_its_record_by_an_open_file(local):
    backend = local()
    job_id = backend.submit(Task("(echo 'exit 0 end' >&3) 2>/dev/null; exit 9", "a"))
    assert ended(backend, job_id).exit_code == 9


def test_a_removed_directory_is_no_success_and_no_second_start(local, tmp_path):
    backend = local()
    job_id = backend.submit(Task(f'echo x >>{tmp_path}/ran; rm -rf "$PWD"', "a"))
    assert ended(backend, job_id).state == "FAILED"
    other = LocalBackend(backend.root)
    assert ended(other, job_id).state == "FAILED"
    other.close()
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_pid_is_told_from_its_successor(stranger):
    here = processes.ProcessId(stranger.pid, processes.start_ticks(stranger.pid), processes.boot_id())
    assert processes.alive(here)
    assert not processes.alive(here._replace(start_ticks=here.start_ticks + 1))
    assert not processes.alive(here._replace(boot_id=OTHER_BOOT))
    stranger.kill()
    eventually(lambda: not processes.alive(here), "the zombie to count as gone")


@pytest.mark.parametrize("how", ["rm -f .matterstack.record", "find . -delete", "mv .matterstack.record x; sleep 0.3"])
def test_a_task_that_removes_its_own_record_is_not_started_again(local, tmp_path, how):
    backend = local(slots=1)
    for number, limit in enumerate([None, 1]):
        job_id = backend.submit(Task(f"echo x >>{tmp_path}/ran{number}; {how}", f"t{number}", time_limit_minutes=limit))
        status = ended(backend, job_id)
        assert (status.state, status.reason) == ("FAILED", "LOST")
        assert ended(backend, backend.submit(Task("true", f"after{number}"))).state == "COMPLETED"
        assert (tmp_path / f"ran{number}").read_text() == "x\n"
