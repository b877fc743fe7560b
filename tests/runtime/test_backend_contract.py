"""What any ComputeBackend must do, whoever wrote it. Add a backend to ``BACKENDS`` to hold it to this."""

from __future__ import annotations

import os
import signal

import pytest
from example_backend import PopenBackend, PopenBackendWithFiles
from watching import ended, eventually, finished, number_in, python, running

from matterstack import ComputeBackend, JobStatus, Task
from matterstack.core.reconcile import status_of
from matterstack.errors import FilesUnsupported, SubmitRefusedError, UnknownJob
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.local import LocalBackend

BACKENDS = {
    "local": lambda tmp_path: LocalBackend(tmp_path / "results", max_concurrent_tasks=2, grace_s=1),
    "four methods": lambda _: PopenBackend(),
    "five methods": lambda _: PopenBackendWithFiles(),
}


@pytest.fixture(params=BACKENDS)
def backend(request, tmp_path):
    made = BACKENDS[request.param](tmp_path)
    yield made
    made.close()


def test_it_is_a_compute_backend_whose_statuses_are_job_statuses(backend):
    job_id = backend.submit(Task("true", "a"))
    assert isinstance(backend, ComputeBackend)
    assert isinstance(job_id, str)
    status = ended(backend, job_id)
    assert isinstance(status, JobStatus)
    assert status.job_id == job_id


def test_exit_0_is_completed(backend):
    status = ended(backend, backend.submit(Task("exit 0", "a")))
    assert (status.state, status.exit_code) == ("COMPLETED", 0)


@pytest.mark.parametrize("code", [1, 2, 77, 127, 255])
def test_any_other_exit_code_is_failed_and_kept(backend, code):
    status = ended(backend, backend.submit(Task(f"exit {code}", "a")))
    assert (status.state, status.exit_code) == ("FAILED", code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_an_end_by_a_signal_is_failed_and_tells_the_signal(backend, number):
    status = ended(backend, backend.submit(Task(f"kill -{int(number)} $$; sleep 30", "a")))
    assert (status.state, status.signal) == ("FAILED", number)


def test_a_command_that_is_not_there_is_failed_with_127(backend):
    status = ended(backend, backend.submit(Task("no-such-command-anywhere --flag", "a")))
    assert (status.state, status.exit_code) == ("FAILED", 127)


def test_logs_can_be_read_while_it_runs_and_after(backend, tmp_path):
    gate = tmp_path / "gate"
    command = f"echo out; echo err >&2; while [ ! -e {gate} ]; do sleep 0.02; done; echo more"
    job_id = backend.submit(Task(command, "a"))
    eventually(lambda: backend.get_logs(job_id) == {"stdout": "out\n", "stderr": "err\n"}, "the first lines")
    assert backend.poll(job_id).state == "RUNNING"
    gate.touch()
    assert ended(backend, job_id).state == "COMPLETED"
    assert backend.get_logs(job_id) == {"stdout": "out\nmore\n", "stderr": "err\n"}


def test_files_and_env_reach_the_task(backend):
    task = Task('cat in.txt; printf %s "$WORD"', "a", files={"in.txt": "hello\n"}, env={"WORD": 'it\'s "x" $y\n'})
    job_id = backend.submit(task)
    assert ended(backend, job_id).state == "COMPLETED"
    assert backend.get_logs(job_id)["stdout"] == 'hello\nit\'s "x" $y\n'


def test_cancelling_a_running_job_ends_it_with_its_children(backend, tmp_path):
    job_id = backend.submit(Task(f"sleep 300 & echo $! >{tmp_path}/child; wait; echo no", "a"))
    child = number_in(tmp_path / "child")
    running(backend, job_id)
    backend.cancel(job_id)
    assert ended(backend, job_id).state == "FAILED"
    eventually(lambda: not os.path.exists(f"/proc/{child}/cwd"), "the child's end")
    assert "no" not in backend.get_logs(job_id)["stdout"]


def test_cancelling_right_after_submitting_ends_it(backend, tmp_path):
    for i in range(8):
        job_id = backend.submit(Task(f"sleep 5; echo late >>{tmp_path}/late", f"t{i}"))
        backend.cancel(job_id)
        assert ended(backend, job_id, within_s=4).state == "FAILED"
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_cancelling_an_ended_job_changes_nothing(backend, code):
    job_id = backend.submit(Task(f"exit {code}", "a"))
    before = ended(backend, job_id)
    backend.cancel(job_id)
    after = backend.poll(job_id)
    assert (after.state, after.exit_code) == (before.state, before.exit_code)
    assert after.reason == before.reason


@pytest.mark.parametrize("ask", ["poll", "get_logs", "cancel"])
def test_an_unknown_job_is_an_error_of_its_own(backend, ask):
    with pytest.raises(UnknownJob, match="nobody/has/this"):
        getattr(backend, ask)("nobody/has/this")


def test_batch_forms_agree_with_single_forms(backend):
    commands = ["true", "exit 7", "kill -9 $$", "echo x"]
    many = [Submission(Task(command, f"m{i}"), "run", 1, f"ms-{i}") for i, command in enumerate(commands)]
    job_ids = backend.submit_many(many)
    assert all(isinstance(job_id, str) for job_id in job_ids)
    assert len(set(job_ids)) == len(commands)
    seen = {}

    def all_ended():
        seen.update({job_id: status_of(evidence) for job_id, evidence in backend.poll_many(job_ids).items()})
        backend.wait(0.05, _Never())
        return all(job_id in seen and seen[job_id].state in ("COMPLETED", "FAILED") for job_id in job_ids)

    eventually(all_ended, "all ends")
    for job_id in job_ids:
        single = backend.poll(job_id)
        batch = seen[job_id]
        assert (single.state, single.exit_code, single.signal) == (batch.state, batch.exit_code, batch.signal)
    assert [backend.poll(job_id).exit_code for job_id in job_ids] == [0, 7, 137, 0]


class _Never:
    """An event that is never set."""

    def is_set(self):
        return False

    def wait(self, timeout=None):
        import time

        time.sleep(timeout)


def test_batch_cancel_ends_all(backend):
    job_ids = [backend.submit(Task("sleep 300", f"c{i}")) for i in range(4)]
    backend.cancel_many(job_ids)
    assert {ended(backend, job_id).state for job_id in job_ids} == {"FAILED"}


def test_files_of_a_job_come_back_or_are_refused_by_name(backend):
    job_id = backend.submit(Task("mkdir d; printf x >d/out.bin", "a"))
    assert ended(backend, job_id).state == "COMPLETED"
    if type(backend) is PopenBackend:
        with pytest.raises(FilesUnsupported, match="PopenBackend"):
            backend.retrieve(job_id, "d/out.bin")
    else:
        assert backend.retrieve(job_id, "d/out.bin").read_bytes() == b"x"
        with pytest.raises(FileNotFoundError):
            backend.retrieve(job_id, "d/none")


class TestLocalOnly:
    """What a backend promises beyond the contract when it is durable."""

    @pytest.fixture
    def backend(self, tmp_path):
        made = LocalBackend(tmp_path / "results", max_concurrent_tasks=2, grace_s=1)
        yield made
        made.close()

    def test_the_same_task_is_the_same_job_also_after_its_end(self, backend, tmp_path):
        task = Task(f"echo once >>{tmp_path}/count; exit 4", "a")
        job_id = backend.submit(task)
        assert backend.submit(task) == job_id
        assert ended(backend, job_id).exit_code == 4
        assert backend.submit(task) == job_id
        again = LocalBackend(tmp_path / "results")
        assert again.submit(task) == job_id
        assert again.poll(job_id).exit_code == 4
        again.close()
        assert (tmp_path / "count").read_text() == "once\n"

    def test_another_spec_under_the_same_id_is_refused_and_changes_nothing(self, backend):
        job_id = backend.submit(Task("echo one", "a"))
        with pytest.raises(SubmitRefusedError, match="another spec"):
            backend.submit(Task("echo two", "a"))
        ended(backend, job_id)
        assert backend.get_logs(job_id)["stdout"] == "one\n"

    def test_another_attempt_starts_anew(self, backend, tmp_path):
        task = Task(f"echo again >>{tmp_path}/count", "a")
        first, second = backend.submit(task), backend.submit(task, attempt=2)
        assert first != second
        assert {ended(backend, first).state, ended(backend, second).state} == {"COMPLETED"}
        assert (tmp_path / "count").read_text() == "again\nagain\n"

    def test_a_queued_job_is_cancelled_without_ever_starting(self, local, tmp_path):
        backend = local(slots=1)
        first = backend.submit(Task("sleep 300", "first"))
        running(backend, first)
        queued = backend.submit(Task(f"touch {tmp_path}/ran", "queued"))
        assert backend.poll(queued).state == "PENDING"
        backend.cancel(queued)
        status = backend.poll(queued)
        assert (status.state, status.reason, status.exit_code) == ("FAILED", "CANCELLED", None)
        backend.cancel(first)
        third = backend.submit(Task("true", "third"))
        assert ended(backend, third).state == "COMPLETED"
        assert not (tmp_path / "ran").exists()

    def test_a_cancelled_job_says_so(self, backend):
        job_id = backend.submit(Task("sleep 300", "a"))
        running(backend, job_id)
        backend.cancel(job_id)
        status = backend.poll(job_id)
        assert (status.state, status.reason, status.signal) == ("FAILED", "CANCELLED", signal.SIGTERM)

    def test_another_process_polls_reads_and_cancels(self, backend, tmp_path):
        job_id = backend.submit(Task("echo hello; sleep 300", "a"))
        running(backend, job_id)
        eventually(lambda: backend.get_logs(job_id)["stdout"])
        other = python(
            """
            import sys
            from matterstack.runtime.backends.local import LocalBackend
            backend = LocalBackend(sys.argv[1])
            print(backend.poll(sys.argv[2]).state, repr(backend.get_logs(sys.argv[2])["stdout"]))
            backend.cancel(sys.argv[2])
            print(backend.poll(sys.argv[2]).reason)
            """,
            tmp_path / "results",
            job_id,
        )
        assert finished(other) == "RUNNING 'hello\\n'\nCANCELLED\n"
        assert backend.poll(job_id).reason == "CANCELLED"
