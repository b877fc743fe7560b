"""Workflows as users run them: order, failures, files, backends of others."""

from __future__ import annotations

import sys

import pytest
from campaigns import DIAMOND_ENDS, check_journal, diamond, events, states
from example_backend import PopenBackend, PopenBackendWithFiles
from watching import ended

from matterstack import JobStatus, MatterStackError, Task, Workflow, run_workflow
from matterstack.errors import (
    BackendUnavailable,
    FilesUnsupported,
    RunError,
    SpecError,
    SubmitRefusedError,
    UnknownJob,
    UnknownName,
    WorkflowError,
)
from matterstack.runtime.backends.local import LocalBackend

MAKERS = {
    "local": lambda tmp_path: LocalBackend(tmp_path / "results", max_concurrent_tasks=2, grace_s=1),
    "four methods": lambda _: PopenBackend(),
    "five methods": lambda _: PopenBackendWithFiles(),
}


@pytest.fixture(params=MAKERS)
def backend(request, tmp_path):
    made = MAKERS[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "journal.db"
    yield path
    if path.exists():
        check_journal(path)


def run(backend, journal, *tasks, name="run", **options):
    return run_workflow(Workflow(name, tasks), backend=backend, journal=journal, **options)


# ---- graphs -------------------------------------------------------------------------------------


def test_dependents_start_after_what_they_wait_for(backend, journal, tmp_path):
    seen = tmp_path / "seen"
    tasks = [
        Task(f"sleep 0.05; echo {n} >>{seen}", n, dependencies=list(d))
        for n, d in [("d", "bc"), ("b", "a"), ("c", "a")]
    ]
    result = run(backend, journal, *tasks, Task(f"echo a >>{seen}", "a"))
    assert result.ok
    order = seen.read_text().split()
    assert (order[0], order[-1], sorted(order)) == ("a", "d", ["a", "b", "c", "d"])


def test_ready_tasks_start_in_the_order_of_the_workflow(local, journal, tmp_path):
    names = [f"t{i:02}" for i in (5, 3, 9, 1, 0, 7, 2, 8, 4, 6)]
    result = run(local(slots=1), journal, *[Task(f"echo {n} >>{tmp_path}/order", n) for n in names])
    assert result.ok
    assert (tmp_path / "order").read_text().split() == names
    assert list(result) == names


def test_a_failure_fails_its_dependents_and_nothing_else(backend, journal, tmp_path):
    result = run(
        backend,
        journal,
        Task("exit 3", "bad"),
        Task("touch child", "child", dependencies=["bad"]),
        Task("touch grandchild", "grandchild", dependencies=["child"]),
        Task("echo fine", "other"),
        Task("echo fine", "after", dependencies=["other"]),
        Task(f"touch {tmp_path}/both", "both", dependencies=["other", "bad"]),
    )
    assert not result.ok
    assert states(result) == {
        "bad": "EXIT_CODE",
        "child": "DEPENDENCY_FAILED",
        "grandchild": "DEPENDENCY_FAILED",
        "other": "COMPLETED",
        "after": "COMPLETED",
        "both": "DEPENDENCY_FAILED",
    }
    assert (result["bad"].exit_code, result["child"].attempts, result["child"].job_id) == (3, 0, None)
    assert "'bad'" in result["child"].detail
    assert "'child'" in result["grandchild"].detail
    assert not (tmp_path / "both").exists()
    assert [task.task_id for task in result.failed()] == ["bad", "child", "grandchild", "both"]


def test_allow_failure_lets_dependents_run_and_the_run_be_fine(backend, journal):
    result = run(
        backend, journal, Task("exit 1", "bad", allow_failure=True), Task("echo x", "next", dependencies=["bad"])
    )
    assert result.ok
    assert states(result) == {"bad": "EXIT_CODE", "next": "COMPLETED"}


def test_allow_dependency_failure_runs_the_task_after_all_are_over(backend, journal, tmp_path):
    result = run(
        backend,
        journal,
        Task("exit 1", "bad"),
        Task(f"sleep 0.2; touch {tmp_path}/slow", "slow"),
        Task(f"test -e {tmp_path}/slow", "report", dependencies=["bad", "slow"], allow_dependency_failure=True),
    )
    assert states(result) == {"bad": "EXIT_CODE", "slow": "COMPLETED", "report": "COMPLETED"}
    assert not result.ok


def test_fail_fast_submits_nothing_more_and_lets_running_tasks_end(local, journal, tmp_path):
    late = [Task(f"touch {tmp_path}/late{i}", f"late{i}") for i in range(200)]
    result = run(
        local(slots=2),
        journal,
        Task("sleep 0.4; echo done", "runs"),
        Task("sleep 0.1; exit 1", "bad"),
        *late,
        fail_fast=True,
    )
    assert states(result)["runs"] == "COMPLETED"
    assert result.counts["PENDING"] >= 180  # a few had been submitted ahead
    assert len(list(tmp_path.glob("late*"))) == 200 - result.counts["PENDING"]
    assert run(
        local(slots=2), journal, Task("sleep 0.4; echo done", "runs"), Task("sleep 0.1; exit 1", "bad"), *late
    ).counts == {
        "PENDING": 0,
        "RUNNING": 0,
        "COMPLETED": 201,
        "FAILED": 1,
    }


def test_a_failure_runs_down_a_very_long_chain(local, journal):
    chain = [Task("false", "t0"), *[Task("true", f"t{i}", dependencies=[f"t{i - 1}"]) for i in range(1, 3000)]]
    result = run(local(), journal, *chain)
    assert result.counts["FAILED"] == 3000


def test_retrying_the_head_of_a_very_long_failed_chain_frees_all_of_it(local, journal, tmp_path):
    chain = [Task(f"test -e {tmp_path}/mended", "t0")]
    chain += [Task("true", f"t{i}", dependencies=[f"t{i - 1}"]) for i in range(1, 1200)]
    assert run(local(), journal, *chain).counts["FAILED"] == 1200
    (tmp_path / "mended").touch()
    result = run(local(), journal, *chain, retry_failed=True)
    assert result.counts["COMPLETED"] == 1200
    assert result["t0"].attempts == 2


def test_wide_tasks_and_narrow_ones_all_end(local, journal):
    tasks = [Task("sleep 0.02", f"t{i}", cores=1 + i % 4) for i in range(24)]
    assert run(local(slots=3), journal, *tasks).ok


def test_an_empty_workflow_is_done_at_once(backend, journal):
    result = run(backend, journal)
    assert result.ok
    assert len(result) == 0


def test_results_tell_what_came_of_each_task(local, journal):
    result = run(local(), journal, Task("echo out; echo err >&2; kill -9 $$", "a"), Task("true", "b"))
    a = result["a"]
    assert (a.state, a.reason, a.signal, a.attempts) == ("FAILED", "EXIT_CODE", 9, 1)
    assert a.logs() == {"stdout": "out\n", "stderr": "err\n"}
    assert (a.workdir / "stdout.txt").read_text() == "out\n"
    assert result["b"].exit_code == 0
    assert 0 <= result["b"].ended_at - result["b"].started_at < 10
    with pytest.raises(UnknownName, match="Did you mean 'a'"):
        result["aa"]


# ---- retries ------------------------------------------------------------------------------------


def test_retry_always_tries_up_to_max_attempts_each_in_its_own_directory(local, journal, tmp_path):
    count = f"echo x >>{tmp_path}/count; test $(wc -l <{tmp_path}/count) -ge"
    result = run(
        local(),
        journal,
        Task(f"{count} 3", "third", retry="always"),
        Task("exit 1", "never", retry="always", max_attempts=2),
    )
    assert (result["third"].state, result["third"].attempts) == ("COMPLETED", 3)
    assert (result["never"].reason, result["never"].attempts) == ("EXIT_CODE", 2)
    assert result["third"].workdir.name == "3"
    assert (result["third"].workdir.parent / "1" / "stdout.txt").exists()
    assert len(events(journal, "run", "TaskRetried")) == 3


def test_the_default_policy_does_not_try_a_failed_command_again(backend, journal, tmp_path):
    result = run(backend, journal, Task(f"echo x >>{tmp_path}/count; exit 1", "a"))
    assert result["a"].attempts == 1
    assert (tmp_path / "count").read_text() == "x\n"


class Unlucky(PopenBackend):
    """Reports each task's first attempts as ended by the infrastructure."""

    def __init__(self, reason, times):
        super().__init__()
        self.reason, self.times, self.seen = reason, times, {}

    def poll(self, job_id):
        status = super().poll(job_id)
        if status.state != "COMPLETED" or list(self.jobs).index(job_id) >= self.times:
            return status
        return JobStatus(job_id, "FAILED", self.reason, word="CN_DOWN")


@pytest.mark.parametrize("reason", ["NODE_FAIL", "PREEMPTED", "INTERRUPTED", "LOST", "BOOT_FAIL"])
def test_retry_infrastructure_tries_again_what_the_infrastructure_ended(journal, reason):
    result = run(Unlucky(reason, 2), journal, Task("true", "a", retry="infrastructure"))
    assert (result["a"].state, result["a"].attempts) == ("COMPLETED", 3)


def test_retry_infrastructure_gives_up_after_max_attempts_and_leaves_exit_codes(journal, tmp_path):
    result = run(Unlucky("NODE_FAIL", 9), journal, Task("true", "a", retry="infrastructure", max_attempts=2))
    assert (result["a"].reason, result["a"].attempts) == ("NODE_FAIL", 2)
    other = run(PopenBackend(), tmp_path / "other.db", Task("exit 1", "a", retry="infrastructure"))
    assert other["a"].attempts == 1


@pytest.mark.parametrize("reason", ["INTERRUPTED", "LOST"])
def test_an_unknown_end_pauses_the_run_and_dependents_wait_for_a_decision(journal, reason):
    tasks = [
        Task("true", "a"),
        Task("true", "b", dependencies=["a"]),
        Task("true", "c", dependencies=["b"]),
        Task("true", "d"),
    ]
    backend = Unlucky(reason, 1)
    result = run(backend, journal, *tasks)
    assert not result.ok
    assert result.undecided == ("a",)
    assert states(result) == {"a": reason, "b": "PENDING", "c": "PENDING", "d": "COMPLETED"}
    again = run(backend, journal, *tasks)
    assert states(again) == states(result)
    decided = run(backend, journal, *tasks, retry_interrupted=True)
    assert decided.ok
    assert decided["a"].attempts == 2


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", ["local", "five methods"])
def test_outputs_of_tasks_are_files_of_others(maker, journal, tmp_path, request):
    backend = MAKERS[maker](tmp_path)
    source = tmp_path / "source.bin"
    source.write_bytes(b"data")
    one = Task("mkdir d; tr a-z A-Z <in >d/out", "one", files={"in": source})
    result = run(backend, journal, one, Task("cat got", "two", files={"got": one.output("d/out")}))
    assert result["two"].logs()["stdout"] == "DATA"
    backend.close()


def test_outputs_are_refused_before_anything_starts_where_the_backend_has_no_files(journal, tmp_path):
    one = Task(f"touch {tmp_path}/ran; echo >out", "one")
    with pytest.raises(FilesUnsupported, match="PopenBackend"):
        run(PopenBackend(), journal, one, Task("cat in", "two", files={"in": one.output("out")}))
    assert not (tmp_path / "ran").exists()
    assert not journal.exists()


@pytest.mark.parametrize("maker", ["local", "five methods"])
def test_an_output_that_was_not_written_refuses_the_taker_and_names_both(maker, journal, tmp_path):
    backend = MAKERS[maker](tmp_path)
    one = Task("true", "writer")
    taker = Task(f"touch {tmp_path}/ran", "taker", files={"in": one.output("energy.json")})
    result = run(backend, journal, one, taker, Task("true", "after", dependencies=["taker"]), Task("true", "beside"))
    assert states(result) == {
        "writer": "COMPLETED",
        "taker": "SUBMIT_REFUSED",
        "after": "DEPENDENCY_FAILED",
        "beside": "COMPLETED",
    }
    for word in ("'writer'", "'taker'", "energy.json"):
        assert word in result["taker"].detail
    assert not (tmp_path / "ran").exists()
    backend.close()


def test_an_input_that_goes_away_before_the_start_refuses_that_task_only(local, journal, tmp_path):
    source = tmp_path / "input"
    source.write_text("x")
    result = run(
        local(slots=1),
        journal,
        Task(f"rm {source}", "rm"),
        Task("cat in", "a", files={"in": source}, dependencies=["rm"]),
        Task("true", "b", dependencies=["rm"]),
    )
    assert states(result) == {"rm": "COMPLETED", "a": "SUBMIT_REFUSED", "b": "COMPLETED"}
    assert str(source) in result["a"].detail


def test_an_input_that_changes_before_the_start_refuses_that_task_only(local, journal, tmp_path):
    source = tmp_path / "input"
    source.write_text("x")
    result = run(
        local(slots=1),
        journal,
        Task(f"echo y >{source}", "w"),
        Task("cat in", "a", files={"in": source}, dependencies=["w"]),
    )
    assert states(result)["a"] == "SUBMIT_REFUSED"
    assert "has changed" in result["a"].detail


# ---- what cannot be run -------------------------------------------------------------------------


def test_bad_workflows_are_refused_before_a_journal_exists(backend, journal, tmp_path):
    cycle = [
        Task("true", "a", dependencies=["c"]),
        Task("true", "b", dependencies=["a"]),
        Task("true", "c", dependencies=["b"]),
    ]
    with pytest.raises(WorkflowError, match="a -> c -> b -> a"):
        run(backend, journal, *cycle)
    with pytest.raises(WorkflowError, match="Did you mean 'alpha'"):
        run(backend, journal, Task("true", "alpha"), Task("true", "b", dependencies=["alpa"]))
    with pytest.raises(RunError, match="no name"):
        run_workflow(Workflow(tasks=[Task("true", "a")]), backend=backend, journal=journal)
    with pytest.raises(RunError, match="run id"):
        run(backend, journal, Task("true", "a"), run_id="../x")
    with pytest.raises(ValueError, match="not both"):
        run(backend, journal, Task("true", "a"), profile="local")
    assert not journal.exists()


def test_a_missing_input_is_refused_before_anything_starts(backend, journal, tmp_path):
    with pytest.raises(SpecError, match="does not exist"):
        run(backend, journal, Task(f"touch {tmp_path}/ran", "a"), Task("cat x", "b", files={"x": tmp_path / "none"}))
    assert not (tmp_path / "ran").exists()


# ---- backends in trouble ------------------------------------------------------------------------


class Flaky(PopenBackend):
    """Cannot be asked for a while."""

    def __init__(self, **failures):
        super().__init__()
        self.failures, self.calls = failures, []

    def _maybe(self, what):
        self.calls.append(what)
        if self.failures.get(what, 0) > 0:
            self.failures[what] -= 1
            raise BackendUnavailable("flaky", what, "no route to host")

    def submit(self, task):
        self._maybe("submit")
        return super().submit(task)

    def poll(self, job_id):
        self._maybe("poll")
        return super().poll(job_id)


@pytest.mark.parametrize("what", ["submit", "poll"])
def test_a_backend_that_cannot_be_asked_fails_no_task_and_goes_on(journal, what, monkeypatch, tmp_path):
    monkeypatch.setattr("matterstack.runtime.worker.BACKOFF_MAX_S", 0.2)
    seen = []
    result = run(
        Flaky(**{what: 2}),
        journal,
        *[Task(f"echo x >>{tmp_path}/t{i}", f"t{i}") for i in range(3)],
        progress=seen.append,
    )
    assert result.ok
    assert any("no route to host" in progress.trouble for progress in seen)
    assert seen[-1].trouble == ""
    assert [(tmp_path / f"t{i}").read_text() for i in range(3)] == ["x\n"] * 3


class Refusing(PopenBackend):
    def submit(self, task):
        if task.task_id == "odd":
            raise SubmitRefusedError("no such partition: odd")
        return super().submit(task)


def test_a_refused_task_fails_with_the_backends_words(journal):
    result = run(
        Refusing(), journal, Task("true", "odd"), Task("true", "even"), Task("true", "x", dependencies=["odd"])
    )
    assert states(result) == {"odd": "SUBMIT_REFUSED", "even": "COMPLETED", "x": "DEPENDENCY_FAILED"}
    assert result["odd"].detail == "no such partition: odd"


class Buggy(PopenBackend):
    def __init__(self, where, error):
        super().__init__()
        self.where, self.error = where, error

    def submit(self, task):
        if self.where == "submit":
            raise self.error
        return super().submit(task)

    def poll(self, job_id):
        if self.where == "poll":
            raise self.error
        return super().poll(job_id)


@pytest.mark.parametrize("where", ["submit", "poll"])
@pytest.mark.parametrize("error", [KeyError("secret-bug"), SystemExit("secret-bug"), OSError(5, "secret-bug")])
def test_a_backend_with_a_bug_stops_the_run_with_its_error(journal, where, error):
    with pytest.raises(MatterStackError, match=r"Buggy.*secret-bug") as caught:
        run(Buggy(where, error), journal, Task("true", "a"))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("answer", ["DONE", None, 7])
def test_a_backend_that_answers_no_state_stops_the_run_with_a_clear_error(journal, answer):
    class Odd(PopenBackend):
        def poll(self, job_id):
            return JobStatus(job_id, answer)

    with pytest.raises(MatterStackError, match="Odd"):
        run(Odd(), journal, Task("true", "a"))


class Forgetful(PopenBackend):
    def poll(self, job_id):
        if self.jobs[job_id][1].name.startswith("gone"):
            raise UnknownJob("forgetful", job_id)
        return super().poll(job_id)


def test_a_job_the_backend_never_heard_of_is_lost_and_the_others_go_on(journal):
    tasks = [
        Task("true", "gone1"),
        Task("true", "gone2"),
        Task("sleep 0.3", "a"),
        Task("true", "b", dependencies=["a"]),
    ]
    result = run(Forgetful(), journal, *tasks)
    assert states(result) == {"gone1": "LOST", "gone2": "LOST", "a": "COMPLETED", "b": "COMPLETED"}


def test_a_hundred_tasks_of_a_backend_of_somebody_else(journal):
    tasks = [Task("true", f"t{i}", dependencies=[f"t{i // 2}"] if i else []) for i in range(100)]
    assert run(PopenBackend(), journal, *tasks).ok


def test_the_diamond_ends_the_same_with_every_backend_that_has_files(journal, tmp_path):
    for maker in ("local", "five methods"):
        backend = MAKERS[maker](tmp_path)
        log = tmp_path / maker.partition(" ")[0]
        log.mkdir()
        path = tmp_path / f"{maker}.db"
        assert states(run_workflow(diamond(log), backend=backend, journal=path)) == DIAMOND_ENDS
        check_journal(path)
        backend.close()


def test_tasks_of_a_run_are_seen_by_the_backend_alone(local, journal):
    backend = local()
    result = run(backend, journal, Task("echo x", "a"))
    job_id = result["a"].job_id
    assert ended(backend, job_id).state == "COMPLETED"
    assert backend.get_logs(job_id)["stdout"] == "x\n"


def test_a_run_leaves_no_thread_and_no_open_file(local, journal, tmp_path):
    import os
    import threading

    backend = local()
    run(backend, journal, Task("true", "first"))
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for i in range(3):
        run(backend, tmp_path / f"j{i}.db", Task("true", "a"), name=f"r{i}")
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= files
    assert sys.getrefcount(backend) < 100


# ---- controllers that come and go, with a backend that keeps nothing on disk -----------------------


class Keeper(PopenBackend):
    """A backend whose jobs a later controller can ask for; it counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.submitted = []

    def submit(self, task):
        job_id = super().submit(task)
        self.submitted.append(task.task_id)
        return job_id


class Stop(BaseException):
    """The end of a controller."""


def test_every_job_id_a_backend_gave_is_recorded_before_a_bug_ends_the_run(journal):
    class Bug(Keeper):
        def submit(self, task):
            if task.task_id == "t5":
                raise ZeroDivisionError
            return super().submit(task)

    tasks = [Task("sleep 0.05", f"t{i}") for i in range(10)]
    backend = Bug()
    with pytest.raises(MatterStackError, match="ZeroDivisionError"):
        run(backend, journal, *tasks)
    assert backend.submitted == [f"t{i}" for i in range(5)]
    assert [name for name, _ in events(journal, "run", "JobSubmitted")] == backend.submitted


def test_job_ids_of_a_backend_that_cannot_find_them_again_are_recorded_at_once(journal):
    import time

    class Slow(Keeper):
        def submit(self, task):
            if self.submitted:
                time.sleep(0.1)  # every id but the newest must have been recorded by now
                known = events(journal, "run", "JobSubmitted")
                assert len(known) >= len(self.submitted) - 1, (known, self.submitted)
            return super().submit(task)

    assert run(Slow(), journal, *[Task("true", f"t{i}") for i in range(6)]).ok


def test_cancelling_a_job_the_backend_no_longer_knows_ends_it_as_lost(journal):
    from matterstack import resume
    from matterstack.runtime.run import Options

    def stop(progress):
        if progress.running:
            raise Stop

    with pytest.raises(Stop):
        run(PopenBackend(), journal, Task("sleep 5", "a"), Task("true", "b", dependencies=["a"]), progress=stop)
    result = resume("run", backend=PopenBackend(), journal=journal, options=Options(cancel=["a"], only_cancel=True))
    assert states(result)["a"] in ("LOST", "CANCELLED")
