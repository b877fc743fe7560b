"""What somebody is told of a run, by commands of their own."""

from __future__ import annotations

import signal
import threading

import pytest
from campaigns import check_journal, events, states
from watching import eventually, finished, lives, number_in, python

from matterstack import Task, Workflow
from matterstack.core.events import NotificationDue
from matterstack.core.notices import TRIES
from matterstack.history import History
from matterstack.runtime import notices
from matterstack.runtime import run as runs
from matterstack.runtime.herald import Herald
from matterstack.runtime.opening import open_journal
from matterstack.runtime.settings import Settings


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "j.db"


@pytest.fixture
def settings(local):
    """Makes a local profile with these commands."""

    def make(on):
        profile = {"name": "local", "backend": "local", "workspace_root": str(local().root), "on": on}
        return Settings(local(), profile)

    return make


@pytest.fixture
def go(settings, journal):
    """Drives tasks as one run with these commands."""

    def drive(on, *tasks, **options):
        return runs.run(Workflow("run", tasks), journal, settings(on), None, runs.Options(**options))

    return drive


@pytest.fixture
def told(tmp_path):
    """What was told: the lines of a file that commands append to."""
    path = tmp_path / "told"
    return lambda: path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def tell(tmp_path):
    return f'echo "$MATTERSTACK_EVENT $MATTERSTACK_TASK $MATTERSTACK_STATE $MATTERSTACK_REASON" >>{tmp_path}/told'


def of_run(journal):
    return [kind for task, kind in events(journal, "run") if not task and kind.startswith("Notification")]


def test_the_end_of_a_run_and_each_failed_task_are_told_once(go, tell, told, journal):
    tasks = [
        Task("true", "fine"),
        Task("exit 3", "bad", retry="always", max_attempts=2),
        Task("exit 4", "allowed", allow_failure=True),
        Task("true", "not-run", dependencies=["bad"]),
    ]
    result = go({"task_failed": tell, "run_finished": tell}, *tasks)
    assert result["bad"].attempts == 2
    *failures, end = told()
    assert sorted(failures) == ["task_failed allowed FAILED EXIT_CODE", "task_failed bad FAILED EXIT_CODE"]
    assert end == "run_finished  finished "
    assert sorted(of_run(journal)) == ["NotificationDelivered"] * 3 + ["NotificationDue"] * 3
    go({"task_failed": tell, "run_finished": tell}, *tasks)
    assert len(told()) == 3, "a run with nothing to do tells nothing"
    check_journal(journal)


def test_a_failure_is_told_while_the_run_goes_on(go, tmp_path, tell):
    wait = f"while [ ! -e {tmp_path}/told ]; do sleep 0.02; done"
    assert states(go({"task_failed": tell}, Task("exit 1", "bad"), Task(wait, "waits")))["waits"] == "COMPLETED"


def test_a_command_that_hangs_holds_up_nothing(go, tmp_path):
    """The task after the failed one ends the command, which would else wait for ever."""
    tasks = [Task("exit 1", "bad"), Task("true", "next", dependencies=["bad"], allow_dependency_failure=True)]
    tasks.append(Task(f"touch {tmp_path}/go", "last", dependencies=["next"]))
    result = go({"task_failed": f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done"}, *tasks)
    assert result["last"].state == "COMPLETED"


def test_counts_and_the_rest_come_as_variables(go, tmp_path):
    go({"run_finished": f"env >{tmp_path}/env"}, Task("true", "a"), Task("exit 1", "b"))
    env = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert (env["MATTERSTACK_RUN"], env["MATTERSTACK_STATE"]) == ("run", "finished")
    assert (env["MATTERSTACK_N_COMPLETED"], env["MATTERSTACK_N_FAILED"]) == ("1", "1")
    assert env["MATTERSTACK_NOTICE"].startswith("run/")


def test_a_command_reads_nothing_and_its_output_does_not_reach_the_terminal(go, capfd, tmp_path):
    go({"run_finished": f"echo loud; echo louder >&2; cat >{tmp_path}/read"}, Task("true", "a"))
    assert (tmp_path / "read").read_bytes() == b""
    assert capfd.readouterr() == ("", "")


def test_what_a_backend_says_is_no_code(tmp_path):
    woken = threading.Event()
    herald = Herald({"task_failed": f'echo "$MATTERSTACK_DETAIL" >{tmp_path}/said'}, "run", woken.set)
    hostile = f"`touch {tmp_path}/a` $(touch {tmp_path}/b); touch {tmp_path}/c \"; touch {tmp_path}/d; '"
    herald.tell(1, NotificationDue("task_failed", "FAILED", detail=hostile))
    assert woken.wait(20)
    assert herald.collect() == [(1, "")]
    assert (tmp_path / "said").read_text() == hostile + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["said"]
    herald.stop()


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    woken = threading.Event()
    herald = Herald({"task_failed": f"sleep 600 & echo $! >{tmp_path}/pid; wait"}, "run", woken.set, limit_s=0.5)
    herald.tell(1, NotificationDue("task_failed", "FAILED"))
    assert woken.wait(20)
    assert herald.collect() == [(1, "took longer than 0.5 s")]
    pid = number_in(tmp_path / "pid")
    eventually(lambda: not lives(pid), "the end of its child")
    herald.stop()


def test_stopping_ends_the_command_at_hand_and_counts_it_for_nothing(tmp_path):
    herald = Herald({"task_failed": f"echo $$ >{tmp_path}/pid; sleep 600"}, "run", lambda: None)
    herald.tell(1, NotificationDue("task_failed", "FAILED"))
    pid = number_in(tmp_path / "pid")
    herald.stop()
    assert not lives(pid)
    assert herald.collect() == []


def test_a_command_that_fails_fails_nothing_and_is_given_up_after_some_tries(go, tmp_path, journal):
    on = {"run_finished": f"echo try >>{tmp_path}/tries; echo no mail here >&2; exit 9"}
    for tries in range(1, TRIES + 1):
        assert go(on, Task("true", "a")).ok
        with History(journal) as history:
            (notice,) = history.notices("run")
        assert (notice.tries, notice.given_up) == (tries, tries == TRIES)
        assert notice.detail == "ended with exit code 9: no mail here"
    assert go(on, Task("true", "a")).ok
    assert len((tmp_path / "tries").read_text().splitlines()) == TRIES
    check_journal(journal)


def test_what_failed_is_delivered_by_a_later_controller(go, tmp_path, journal, told, tell):
    go({"run_finished": "exit 1"}, Task("true", "a"))
    go({"run_finished": tell}, Task("true", "a"))
    assert told() == ["run_finished  finished "]
    assert of_run(journal) == ["NotificationDue", "NotificationFailed", "NotificationDelivered"]
    with History(journal) as history:
        assert history.notices("run") == []


def test_a_controller_tries_again_by_itself_after_longer_and_longer(journal, go):
    go({"run_finished": "exit 1"}, Task("true", "a"))

    class Deaf:
        def __init__(self):
            self.told, self.answers = [], []

        def tell(self, due, _event):
            self.told.append(now[0])
            self.answers.append((due, "nobody there"))

        def collect(self):
            answers, self.answers = self.answers, []
            return answers

    now, deaf = [0.0], Deaf()
    with open_journal(journal) as opened:
        notifier = notices.Notifier(opened, "run", deaf, lambda: now[0])
        for _ in range(600):
            for event in notifier.turn():
                opened.append("run", [runs.NewEvent(type(event).__name__, "run", runs.ev.encode(event))])
            now[0] += 1
        assert notices.load_notices(opened, "run", owed=True) == []
        assert notices.load_notices(opened, "run")[0].given_up
    gaps = [later - sooner for sooner, later in zip(deaf.told, deaf.told[1:], strict=False)]
    assert len(deaf.told) == TRIES - 1, "one try was made before"
    assert gaps == sorted(gaps)
    assert gaps[0] >= notices.AGAIN_S


def test_without_commands_nothing_is_recorded_of_it(go, journal):
    go({}, Task("exit 1", "a"))
    assert of_run(journal) == []


def test_cancelling_tells_nothing(go, settings, journal, tell, told):
    on = {"run_finished": tell, "task_failed": tell}
    go(on, Task("true", "a"), Task("true", "b"), budget=0)
    assert len(told()) == 1
    options = runs.Options(cancel=["a"], only_cancel=True)
    assert runs.resume("run", journal, lambda *_: settings(on), options)["a"].reason == "CANCELLED"
    assert len(told()) == 1


SCRIPT = """
    import sys
    from pathlib import Path
    from matterstack import Task, Workflow, run_workflow
    home = Path(sys.argv[1])
    command = f'echo "$MATTERSTACK_NOTICE" >>{home}/told; [ -e {home}/spare ] || kill -9 $PPID'
    profile = {"backend": "local", "on": {sys.argv[2]: command}}
    Path("profiles.py").write_text(f"profiles = {dict(local=profile)!r}")
    tasks = [Task(f"echo line >>{home}/ran; exit 1", "bad"), Task("true", "good")]
    result = run_workflow(Workflow("run", tasks), journal=home / "j.db", config="profiles.py")
    print(result.counts["FAILED"])
"""


@pytest.mark.parametrize("on", ["task_failed", "run_finished"])
def test_a_controller_killed_between_a_command_and_its_record_has_it_told_again(tmp_path, journal, told, on):
    for times in (1, 2):
        process = python(SCRIPT, tmp_path, on, cwd=tmp_path)
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        assert len(told()) == times
    (tmp_path / "spare").touch()
    assert finished(python(SCRIPT, tmp_path, on, cwd=tmp_path)) == "1\n"
    assert len(told()) == 3
    assert len(set(told())) == 1, "the same notice, told again"
    assert of_run(journal) == ["NotificationDue", "NotificationDelivered"]
    assert finished(python(SCRIPT, tmp_path, on, cwd=tmp_path)) == "1\n"
    assert len(told()) == 3, "what is recorded as delivered is not told again"
    assert (tmp_path / "ran").read_text() == "line\n"
    check_journal(journal)


def test_a_controller_killed_before_it_could_say_that_all_is_over_has_it_told_by_the_next(
    tmp_path, journal, told, tell
):
    script = """
        import os, sys
        from matterstack import Task, Workflow, run_workflow

        def observe(now):
            if now.counts["COMPLETED"] and sys.argv[1] == "killed":
                os.kill(os.getpid(), 9)

        print(run_workflow(Workflow("run", [Task("true", "a")]), journal="j.db", progress=observe).ok)
    """
    (tmp_path / "matterstack.yaml").write_text(
        f"profiles:\n  local:\n    backend: local\n    on: {{run_finished: '{tell}'}}"
    )
    process = python(script, "killed", cwd=tmp_path)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert "RunStopped" not in [kind for _, kind in events(journal, "run")]
    assert finished(python(script, "spared", cwd=tmp_path)) == "True\n"
    assert finished(python(script, "spared", cwd=tmp_path)) == "True\n"
    assert told() == ["run_finished  finished "]
