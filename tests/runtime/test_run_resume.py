"""Running the same script again, resuming from the journal, and changing a workflow between runs."""

from __future__ import annotations

import shutil
import signal
import threading

import pytest
from campaigns import check_journal, events, states
from watching import eventually, finished, line_from, python

from matterstack import Task, Workflow, resume, run_workflow
from matterstack.errors import RunBusy, RunError, UnknownName
from matterstack.runtime.backends.local import LocalBackend, processes
from matterstack.runtime.opening import open_journal
from matterstack.runtime.run import Options


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "journal.db"
    yield path
    if path.exists():
        check_journal(path)


@pytest.fixture
def go(local, journal, tmp_path):
    """Runs tasks that each leave a line per start; gives the result and the starts by task since the last call."""

    def run(*tasks, name="run", backend=None, **options):
        for old in tmp_path.glob("start.*"):
            old.unlink()
        result = run_workflow(Workflow(name, tasks), backend=backend or local(grace_s=1), journal=journal, **options)
        return result, {path.name[6:]: path.read_text().count("\n") for path in sorted(tmp_path.glob("start.*"))}

    return run


@pytest.fixture
def task(tmp_path):
    def make(name, command=":", **fields):
        return Task(f"echo >>{tmp_path}/start.{name}; {command}", name, **fields)

    return make


# ---- again --------------------------------------------------------------------------------------


def test_completed_tasks_are_not_run_again(go, task):
    assert go(task("a"), task("b", dependencies=["a"]))[1] == {"a": 1, "b": 1}
    result, starts = go(task("a"), task("b", dependencies=["a"]))
    assert (starts, result.ok, result["b"].attempts) == ({}, True, 1)


def test_failed_tasks_stay_failed_until_they_are_asked_for(go, task, tmp_path):
    tasks = task("a", f"test -e {tmp_path}/mended"), task("b", dependencies=["a"]), task("c", "exit 1")
    assert states(go(*tasks)[0]) == {"a": "EXIT_CODE", "b": "DEPENDENCY_FAILED", "c": "EXIT_CODE"}
    (tmp_path / "mended").touch()
    assert go(*tasks)[1] == {}
    result, starts = go(*tasks, retry_failed=True)
    assert starts == {"a": 1, "b": 1, "c": 1}
    assert states(result) == {"a": "COMPLETED", "b": "COMPLETED", "c": "EXIT_CODE"}
    assert {name: result[name].attempts for name in result} == {"a": 2, "b": 1, "c": 2}


def test_a_changed_task_and_what_depends_on_it_run_again(go, task):
    tail = [task("b", dependencies=["a"]), task("c", dependencies=["b"]), task("d"), task("e", dependencies=["d"])]
    go(task("a"), *tail)
    result, starts = go(task("a", "echo changed"), *tail)
    assert starts == {"a": 1, "b": 1, "c": 1}
    assert result.ok
    assert (result["a"].attempts, result["e"].attempts) == (2, 1)
    assert go(task("a", "echo changed"), *tail)[1] == {}


@pytest.mark.parametrize(
    "change",
    [{"env": {"X": "1"}}, {"cores": 2}, {"files": {"f": "text"}}, {"time_limit_minutes": 5}, {"outputs": ["o"]}],
)
def test_any_change_of_a_spec_counts(go, task, change):
    go(task("a"))
    assert go(task("a", **change))[1] == {"a": 1}


def test_the_content_of_an_input_counts_not_its_place_or_time(go, task, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("same")
    shutil.copy(one, two)
    go(task("a", "cat in", files={"in": one}), task("b", dependencies=["a"]))
    one.touch()
    assert go(task("a", "cat in", files={"in": one}), task("b", dependencies=["a"]))[1] == {}
    assert go(task("a", "cat in", files={"in": two}), task("b", dependencies=["a"]))[1] == {}
    two.write_text("different")
    result, starts = go(task("a", "cat in", files={"in": two}), task("b", dependencies=["a"]))
    assert starts == {"a": 1, "b": 1}
    assert result["a"].logs()["stdout"] == "different"


def test_a_large_input_that_changes_in_place_within_its_size_is_noticed(go, task, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(b"x" * 2_000_000)
    go(task("a", files={"in": large}))
    with large.open("r+b") as opened:
        opened.write(b"y")
    assert go(task("a", files={"in": large}))[1] == {"a": 1}


def test_added_tasks_run_and_dropped_ones_are_forgotten(go, task):
    go(task("a"), task("b"))
    result, starts = go(task("a"), task("c", dependencies=["a"]))
    assert (starts, list(result)) == ({"c": 1}, ["a", "c"])
    result, starts = go(task("a"), task("b"), task("c", dependencies=["a"]))
    assert list(result) == ["a", "b", "c"]
    assert (result.ok, starts) == (True, {"b": 1})


def test_a_failed_task_that_is_dropped_no_longer_counts(go, task):
    assert not go(task("a"), task("bad", "exit 1"))[0].ok
    result, _ = go(task("a"))
    assert result.ok
    assert result.counts["FAILED"] == 0


def test_another_order_of_the_same_tasks_changes_nothing(go, task):
    go(task("a"), task("b"))
    assert go(task("b"), task("a"))[1] == {}


def test_a_new_dependency_on_a_completed_task_does_run_the_dependent_again(go, task):
    go(task("a"), task("b"))
    assert go(task("a"), task("b", dependencies=["a"]))[1] == {"b": 1}


def test_a_mended_command_frees_its_failed_dependents(go, task):
    assert states(go(task("a", "exit 1"), task("b", dependencies=["a"]))[0])["b"] == "DEPENDENCY_FAILED"
    result, starts = go(task("a", "exit 0"), task("b", dependencies=["a"]))
    assert (starts, result.ok) == ({"a": 1, "b": 1}, True)


def test_run_ids_keep_runs_of_one_workflow_apart(go, task):
    assert go(task("a"), run_id="one")[1] == {"a": 1}
    assert go(task("a"), run_id="two")[1] == {"a": 1}
    assert go(task("a"), run_id="one")[1] == {}


def test_another_journal_in_the_same_workspace_never_takes_old_results_for_its_own(local, tmp_path):
    def run(command, number):
        workflow = Workflow("run", [Task(command, "a")])
        backend = local()
        result = run_workflow(workflow, backend=backend, journal=tmp_path / f"journal{number}.db")["a"]
        backend.close()
        return result

    assert run("echo old; exit 0", 1).state == "COMPLETED"
    second = run("echo new; exit 4", 2)
    assert (second.reason, second.exit_code) == ("SUBMIT_REFUSED", None)
    assert "another journal" in second.detail
    assert run("echo old; exit 0", 1).attempts == 1
    shutil.rmtree(tmp_path / "results" / "run")
    third = run("echo new; exit 4", 3)
    assert (third.exit_code, third.logs()["stdout"]) == (4, "new\n")


# ---- resume from the journal alone --------------------------------------------------------------


CONTROLLER = """
    import sys
    from matterstack import Task, Workflow, run_workflow
    from matterstack.runtime.backends.local import LocalBackend
    from matterstack.runtime import opening
    home, ttl = sys.argv[1], float(sys.argv[2])
    opening.LEASE_TTL_S = ttl or opening.LEASE_TTL_S
    wait = f"echo >>{home}/start.$MATTERSTACK_TASK; while [ ! -e {home}/gate ]; do sleep 0.02; done"
    tasks = [Task(wait, "a"), Task(wait, "b"), Task(f"{wait}; true", "c")]
    tasks.append(Task(f"{wait}; cat in", "d", files={"in": "x"}, dependencies=["a"]))
    backend = LocalBackend(f"{home}/results", max_concurrent_tasks=2, grace_s=1)
    show = lambda progress: print(len(progress.running), flush=True)
    result = run_workflow(Workflow("run", tasks), backend=backend, journal=f"{home}/journal.db", progress=show)
    print({name: task.reason or str(task.state) for name, task in result.items()})
"""


@pytest.fixture
def controller(tmp_path):
    started = []

    def start(ttl_s=0.0):
        process = python(CONTROLLER, tmp_path, ttl_s)
        started.append(process)
        eventually(lambda: line_from(process) == "2")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for pid in started:
        pid.wait()


def starts(tmp_path):
    return {path.name[6:]: path.read_text().count("\n") for path in sorted(tmp_path.glob("start.*"))}


def test_resume_needs_no_script(controller, local, journal, tmp_path):
    process = controller()
    process.kill()
    process.wait()
    (tmp_path / "gate").touch()
    result = resume(backend=local(), journal=journal)
    assert (result.run_id, result.ok) == ("run", True)
    assert result["d"].logs()["stdout"] == "x"
    assert starts(tmp_path) == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_resume_of_nothing_names_what_there_is(go, task, journal, local):
    go(task("a"))
    with pytest.raises(UnknownName, match="Did you mean 'run'"):
        resume("ran", backend=local(), journal=journal)
    with pytest.raises(UnknownName, match="Did you mean 'a'"):
        resume("run", backend=local(), journal=journal, options=Options(retry=["aa"]))


def test_changing_a_live_task_is_refused_by_name(controller, local, journal, tmp_path):
    process = controller()
    process.kill()
    process.wait()
    changed = Workflow("run", [Task("true", "a"), Task("true", "b")])
    before = len(events(journal, "run"))
    with pytest.raises(RunError, match=r"a, b.*--replace") as caught:
        run_workflow(changed, backend=local(), journal=journal)
    assert "c" in str(caught.value)
    assert len(events(journal, "run")) == before
    (tmp_path / "gate").touch()
    assert resume(backend=local(), journal=journal).ok


def test_replace_cancels_live_tasks_first_and_then_runs_the_new_ones(controller, local, journal, tmp_path):
    process = controller()
    process.kill()
    process.wait()
    changed = Workflow("run", [Task("echo new", "a"), Task("echo new", "e", dependencies=["a"])])
    result = run_workflow(changed, backend=local(grace_s=1), journal=journal, replace=True)
    assert states(result) == {"a": "COMPLETED", "e": "COMPLETED"}
    assert result["a"].attempts == 2
    kinds = [kind for name, kind in events(journal, "run") if name == "a"]
    assert kinds.index("CancelRequested") < kinds.index("TaskFailed") < kinds.index("TaskChanged")
    assert "d" not in starts(tmp_path)


def test_a_second_controller_is_refused_and_told_who_has_the_run(controller, local, journal, tmp_path):
    process = controller()
    with pytest.raises(RunBusy, match=f"process {process.pid} "):
        resume(backend=local(), journal=journal)
    with pytest.raises(RunBusy):
        run_workflow(Workflow("run", [Task("true", "z")]), backend=local(), journal=journal)
    other = run_workflow(Workflow("other", [Task("true", "a")]), backend=LocalBackend(tmp_path / "r2"), journal=journal)
    assert other.ok
    (tmp_path / "gate").touch()
    assert "'d': 'COMPLETED'" in finished(process).splitlines()[-1]


def test_a_controller_that_wakes_up_after_its_lease_was_taken_appends_nothing(
    controller, local, journal, tmp_path, monkeypatch
):
    monkeypatch.setattr("matterstack.runtime.opening.LEASE_TTL_S", 1.0)
    process = controller(ttl_s=1.0)
    process.send_signal(signal.SIGSTOP)

    def taken_over():
        try:
            threading.Timer(0.5, (tmp_path / "gate").touch).start()
            return resume(backend=local(slots=4), journal=journal)
        except RunBusy:
            return None

    result = eventually(taken_over, "the lease's end")
    assert result.ok
    recorded = events(journal, "run")
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "RunBusy" in err.splitlines()[-1]
    assert "taken over" in err.splitlines()[-1]
    assert events(journal, "run") == recorded
    assert starts(tmp_path) == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_an_interrupted_attempt_pauses_and_goes_on_when_asked(controller, local, journal, tmp_path):
    process = controller()
    process.kill()
    process.wait()
    with open_journal(journal, read_only=True) as opened:
        pids = [pid for (pid,) in opened.query("SELECT pid FROM tasks WHERE state = 'RUNNING' AND pid IS NOT NULL")]
    kill_with_wrappers(pids)
    (tmp_path / "gate").touch()
    result = resume(backend=local(), journal=journal)
    assert states(result) == {"a": "INTERRUPTED", "b": "INTERRUPTED", "c": "COMPLETED", "d": "PENDING"}
    assert result.undecided == ("a", "b")
    result = resume(backend=local(), journal=journal, options=Options(retry_interrupted=True))
    assert result.ok
    assert starts(tmp_path) == {"a": 2, "b": 2, "c": 1, "d": 1}


def kill_with_wrappers(pids):
    import os

    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            os.kill(int(stat.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
        os.killpg(pid, signal.SIGKILL)


def test_what_may_have_been_lost_with_the_machine_is_never_started_by_itself(
    go, task, journal, local, tmp_path, monkeypatch
):
    """An intent of an earlier boot without a record may have run: its file may never have reached the disk."""
    gate = threading.Event()
    backend = local(slots=1)

    class Stop(BaseException):
        pass

    def stop(_progress):
        if gate.is_set():
            raise Stop

    monkeypatch.setattr(backend, "wait", lambda timeout_s, event: gate.set())  # takes jobs, starts none
    with pytest.raises(Stop):
        go(task("a"), task("b", dependencies=["a"]), backend=backend, progress=stop)
    backend.close()
    monkeypatch.setattr(processes, "boot_id", lambda: "22222222-0000-0000-0000-000000000000")
    again = local(slots=1)
    result, started = go(task("a"), task("b", dependencies=["a"]), backend=again)
    assert (states(result), started) == ({"a": "LOST", "b": "PENDING"}, {})


# ---- requests of others -------------------------------------------------------------------------


ASK = """
    import sys
    from matterstack.core import events as ev
    from matterstack.runtime.opening import open_journal
    from matterstack.runtime.requests import ask, requester
    from pathlib import Path
    with open_journal(Path(sys.argv[1])) as journal:
        ask(journal, "run", getattr(ev, sys.argv[2])(requester()), sys.argv[3:])
"""


def test_another_process_cancels_tasks_of_a_running_controller(controller, journal, tmp_path):
    process = controller()
    finished(python(ASK, journal, "CancelRequested", "a", "c", "no-such-task"))
    eventually(lambda: ("a", "TaskFailed") in events(journal, "run"), "the cancel")
    (tmp_path / "gate").touch()
    ends = finished(process).splitlines()[-1]
    assert ends == "{'a': 'CANCELLED', 'b': 'COMPLETED', 'c': 'CANCELLED', 'd': 'DEPENDENCY_FAILED'}"
    assert starts(tmp_path) == {"a": 1, "b": 1}


def test_another_process_has_a_failed_task_tried_again(controller, journal, tmp_path):
    process = controller()
    finished(python(ASK, journal, "CancelRequested", "a"))
    eventually(lambda: ("d", "TaskFailed") in events(journal, "run"), "the cancel")
    finished(python(ASK, journal, "RetryRequested", "a"))
    eventually(lambda: ("d", "TaskRetried") in events(journal, "run"), "the retry")
    (tmp_path / "gate").touch()
    assert finished(process).splitlines()[-1] == str(dict.fromkeys("abcd", "COMPLETED"))
    assert starts(tmp_path) == {"a": 2, "b": 1, "c": 1, "d": 1}


def test_requests_are_acted_on_once_and_also_by_the_next_controller(controller, local, journal, tmp_path):
    process = controller()
    process.kill()
    process.wait()
    finished(python(ASK, journal, "CancelRequested", "b"))
    (tmp_path / "gate").touch()
    result = resume(backend=local(grace_s=1), journal=journal)
    assert states(result)["b"] in ("CANCELLED", "COMPLETED")  # the gate was open already
    result = resume(backend=local(), journal=journal, options=Options(retry_failed=True))
    assert result.ok


def test_cancelling_some_leaves_the_rest_to_the_next_controller(controller, local, journal, tmp_path):
    process = controller()
    process.kill()
    process.wait()
    result = resume(backend=local(grace_s=1), journal=journal, options=Options(cancel=["a", "c"], only_cancel=True))
    assert states(result) == {"a": "CANCELLED", "b": "RUNNING", "c": "CANCELLED", "d": "DEPENDENCY_FAILED"}
    (tmp_path / "gate").touch()
    assert states(resume(backend=local(), journal=journal))["b"] == "COMPLETED"


def test_the_tables_rebuilt_from_the_events_are_those_kept_along_the_way(go, task, journal, tmp_path):
    go(task("a", "exit 1", retry="always", max_attempts=2), task("b", dependencies=["a"]), task("c"))
    go(task("a", "exit 2"), task("b", dependencies=["a"]), task("d"), retry_failed=True)
    before = tables(journal)
    with open_journal(journal) as opened:
        opened.rebuild()
    assert tables(journal) == before


def tables(path):
    with open_journal(path, read_only=True) as opened:
        names = ("runs", "tasks", "attempts", "counts")
        return {name: sorted(map(repr, opened.query(f"SELECT * FROM {name}"))) for name in names}
