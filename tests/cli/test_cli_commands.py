import json
import os
import signal
import sqlite3
import subprocess

import pytest
from cli_project import COMMAND

from matterstack.runtime.backends.base import LOG_BYTES

SLEEP = "exec sleep 60"


@pytest.fixture
def ended(project):
    """A project whose run has ended: one task completed, one failed, one failed with it."""
    project.workflow(
        ("one", project.counted("one", "date > now; echo hello; echo oh >&2"), {"outputs": ["now"]}),
        ("two", "cat now > copy; echo no luck >&2; exit 3", {"files": {"now": {"task": "one", "output": "now"}}}),
        ("three", "true", {"dependencies": ["two"]}),
    )
    project.run = project.ms("run", "wf.yaml", code=1)
    return project


def test_a_run_that_completes_ends_with_0_and_says_so(project):
    project.workflow(("one", "true"), ("two", "true", {"dependencies": ["one"]}))
    done = project.ms("run", "wf.yaml")
    assert done.stdout == "demo: 2 of 2 tasks COMPLETED\n"
    assert "2 of 2 tasks COMPLETED" in done.stderr


def test_a_run_that_fails_ends_with_1_and_says_what_failed_where_and_what_to_do(ended):
    assert ended.run.stdout.startswith("demo: 1 of 3 tasks COMPLETED, 2 FAILED\n")
    assert "two: EXIT_CODE, exit code 3" in ended.run.stdout
    assert f"in {ended.path}/results/demo/two/1" in ended.run.stdout
    assert "| no luck" in ended.run.stdout
    assert "1 task failed because of others" in ended.run.stdout
    assert "`matterstack retry demo`" in ended.run.stderr


def test_running_the_same_again_runs_nothing_again(ended):
    again = ended.ms("run", "wf.yaml", code=1)
    assert again.stdout == ended.run.stdout
    assert ended.ran("one") == 1


def test_a_changed_task_runs_again_with_what_depends_on_it_and_nothing_else(project):
    def tasks(word):
        return (
            ("one", project.counted("one")),
            ("two", project.counted("two", f"echo {word}")),
            ("three", project.counted("three"), {"dependencies": ["two"]}),
        )

    project.workflow(*tasks("first"))
    project.ms("run", "wf.yaml")
    project.workflow(*tasks("second"))
    project.ms("run", "wf.yaml")
    assert [project.ran(task) for task in ("one", "two", "three")] == [1, 2, 2]


def test_retry_failed_runs_what_failed_again(ended):
    project = ended
    project.ms("run", "wf.yaml", "--retry-failed", code=1)
    assert project.json("status")["tasks"][1]["attempt"] == 2
    assert project.ran("one") == 1


def test_another_run_id_is_another_run(project):
    project.workflow(("one", project.counted("one")))
    for run in ("first", "second"):
        assert project.json("run", "wf.yaml", "--run", run)["run"] == run
    assert project.ran("one") == 2


def test_fail_fast_submits_nothing_after_a_failure(project):
    tasks = [("bad", "false"), *((f"t{i}", project.counted(f"t{i}"), {"dependencies": ["gate"]}) for i in range(3))]
    project.workflow(*tasks, ("gate", "sleep 0.5"))
    project.ms("run", "wf.yaml", "--fail-fast", code=1)
    assert [project.ran(f"t{i}") for i in range(3)] == [0, 0, 0]


def test_resume_needs_no_workflow_file(project):
    project.workflow(("one", project.counted("one", "test -e go")), ("two", "true", {"dependencies": ["one"]}))
    project.ms("run", "wf.yaml", code=1)
    (project.path / "wf.yaml").unlink()
    assert project.json("resume", "demo", "--retry-failed", code=1)["counts"]["FAILED"] == 2
    assert project.ran("one") == 2


def test_resume_takes_the_newest_run(project):
    for name in ("old", "new"):
        project.workflow(("one", "true"), name=name)
        project.ms("run", "wf.yaml")
    assert project.json("resume")["run"] == "new"


def test_a_killed_controller_is_resumed_and_nothing_runs_twice(project):
    wait = "while [ ! -e ../../../../go ]; do sleep 0.02; done"
    names = [f"t{i}" for i in range(8)]
    project.workflow(*((name, project.counted(name, wait)) for name in names))
    project.write("matterstack.yaml", "profiles: {local: {backend: local, max_concurrent_tasks: 3}}")
    controller = project.start("run", "wf.yaml")
    project.until_ran("t0", "t1", "t2")
    controller.send_signal(signal.SIGKILL)
    controller.wait()
    (project.path / "go").touch()
    assert project.json("resume")["counts"] == {"PENDING": 0, "RUNNING": 0, "COMPLETED": 8, "FAILED": 0}
    assert [project.ran(name) for name in names] == [1] * 8


def test_json_of_run_and_resume(ended):
    expected = {
        "run": "demo",
        "ok": False,
        "counts": {"PENDING": 0, "RUNNING": 0, "COMPLETED": 1, "FAILED": 2},
        "journal": f"{ended.path}/.matterstack/journal.db",
    }
    assert ended.json("run", "wf.yaml", code=1) == expected
    assert ended.json("resume", code=1) == expected


def test_status_for_people(ended):
    lines = ended.ms("status").stdout.splitlines()
    assert lines[0] == "run         demo  (finished)"
    assert lines[1] == "tasks       1 of 3 tasks COMPLETED, 2 FAILED"
    assert f"local  {ended.path}/results" in lines[2]
    assert [line.split()[0] for line in lines[-2:]] == ["two", "three"]
    assert "EXIT_CODE, exit code 3" in lines[-2]
    assert "DEPENDENCY_FAILED" in lines[-1]
    assert "one " in ended.ms("status", "--all").stdout


def test_status_for_machines(ended):
    found = ended.json("status", "demo")
    assert found["run"] == "demo"
    assert found["counts"] == {"PENDING": 0, "RUNNING": 0, "COMPLETED": 1, "FAILED": 2}
    assert found["why"] == "finished"
    assert found["controller"] is None
    assert found["created_at"] <= found["started_at"] <= found["stopped_at"]
    one, two, three = found["tasks"]
    assert (one["task"], one["state"], one["exit_code"], one["job_id"]) == ("one", "COMPLETED", 0, "demo/one/1")
    assert (two["reason"], two["exit_code"]) == ("EXIT_CODE", 3)
    assert (three["reason"], three["attempt"], three["job_id"]) == ("DEPENDENCY_FAILED", 0, None)


def test_status_of_a_run_whose_controller_is_alive_or_gone(project):
    project.workflow(("one", project.counted("one", SLEEP)), ("two", "true", {"dependencies": ["one"]}))
    controller = project.start("run", "wf.yaml")
    project.until_ran("one")
    assert f"driven by pid {controller.pid} on" in project.ms("status").stdout
    controller.kill()
    controller.wait()
    assert "its controller is gone; `matterstack resume demo` goes on" in project.ms("status").stdout


def test_history_has_the_events_in_order(ended):
    events = [json.loads(line) for line in ended.ms("history", "--json").stdout.splitlines()]
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "RunCreated"
    assert events[-1]["type"] == "RunStopped"
    assert [event["type"] for event in events if event["task"] == "one"] == [
        "TaskAdded",
        "SubmitRequested",
        "JobSubmitted",
        "JobStarted",
        "TaskCompleted",
        "FilesRecorded",
    ]
    assert [json.loads(line) for line in ended.ms("history", "demo", "one", "--json").stdout.splitlines()] == [
        event for event in events if event["task"] == "one"
    ]


def test_history_for_people_has_a_line_an_event(ended):
    lines = ended.ms("history", "demo", "two").stdout.splitlines()
    assert [line.split()[3] for line in lines] == [
        "TaskAdded",
        "SubmitRequested",
        "JobSubmitted",
        "JobStarted",
        "TaskFailed",
    ]
    assert '"exit_code":3' in lines[-1]


def test_a_reader_who_has_read_enough_is_no_error(ended):
    ours, theirs = os.pipe()
    os.close(ours)
    reading = ended.start("history", stdout=theirs)
    os.close(theirs)
    assert reading.wait(20) == 0
    assert not reading.stderr.read()


def test_logs_print_what_a_task_wrote(ended):
    assert ended.ms("logs", "demo", "one").stdout == "hello\n"
    assert ended.ms("logs", "demo", "one", "--stderr").stdout == "oh\n"
    assert ended.ms("logs", "demo", "two", "--stderr").stdout == "no luck\n"


def test_logs_that_are_longer_than_what_is_read_at_once_come_whole(project):
    """From the middle of the one page to that of the next."""
    size = LOG_BYTES + LOG_BYTES // 2
    project.workflow(("one", f"head -c {size - 3} /dev/zero; printf end"))
    project.ms("run", "wf.yaml")
    command = [*COMMAND, "logs", "demo", "one"]
    shown = subprocess.run(command, cwd=project.path, env=project.env, capture_output=True, check=True).stdout
    assert (len(shown), shown[-3:]) == (size, b"end")


def test_logs_of_a_task_that_was_never_submitted(ended):
    done = ended.ms("logs", "demo", "three")
    assert not done.stdout
    assert "task 'three' has no job: it is FAILED DEPENDENCY_FAILED" in done.stderr


def test_logs_follow_a_task_to_its_end(project):
    wait = "echo first; while [ ! -e ../../../../go ]; do sleep 0.02; done; printf 'sécond'; echo; echo third"
    project.workflow(("one", project.counted("one", wait)))
    controller = project.start("run", "wf.yaml")
    project.until_ran("one")
    follower = project.start("logs", "demo", "one", "--follow")
    assert follower.stdout.readline() == "first\n"
    (project.path / "go").touch()
    assert follower.stdout.read() == "sécond\nthird\n"
    assert follower.wait() == 0
    assert controller.wait() == 0


def test_cancel_from_a_second_terminal_reaches_the_controller(project):
    project.workflow(
        ("one", project.counted("one", SLEEP)),
        ("two", project.counted("two")),
        ("three", "true", {"dependencies": ["one"]}),
    )
    controller = project.start("run", "wf.yaml")
    project.until_ran("one", "two")
    asked = project.ms("cancel", "demo", "one")
    assert "asked its controller" in asked.stderr
    assert controller.wait(20) == 1
    one, two, three = project.json("status")["tasks"]
    assert (one["state"], one["reason"]) == ("FAILED", "CANCELLED")
    assert two["state"] == "COMPLETED"
    assert three["reason"] == "DEPENDENCY_FAILED"


def test_cancel_without_a_controller_ends_the_tasks_itself(project):
    project.workflow(("one", project.counted("one", SLEEP)), ("two", "true", {"dependencies": ["one"]}))
    controller = project.start("run", "wf.yaml")
    project.until_ran("one")
    controller.kill()
    controller.wait()
    assert "2 of 2 tasks have ended" in project.ms("cancel", "demo").stdout
    assert {task["reason"] for task in project.json("status")["tasks"]} == {"CANCELLED"}
    assert "nothing to cancel" in project.ms("cancel", "demo").stdout


def test_retry_from_a_second_terminal_reaches_the_controller(project):
    project.workflow(
        ("bad", project.counted("bad", "test -e ../../../../good")), ("long", project.counted("long", SLEEP))
    )
    controller = project.start("run", "wf.yaml")
    project.until_ran("bad", "long")
    project.until_state("bad", "FAILED")
    (project.path / "good").touch()
    assert "asked its controller" in project.ms("retry", "demo", "bad").stderr
    project.until_state("bad", "COMPLETED")
    assert project.ran("bad") == 2
    project.ms("cancel", "demo")
    assert controller.wait(20) == 1


def test_retry_without_a_controller_drives_the_run(ended):
    ended.write("note", "")
    done = ended.ms("retry", "demo", "two", code=1)
    assert "1 of 3 tasks COMPLETED, 2 FAILED" in done.stdout
    assert [task["attempt"] for task in ended.json("status")["tasks"]] == [1, 2, 0]


def test_retry_of_a_run_without_failures_says_so(project):
    project.workflow(("one", "true"))
    project.ms("run", "wf.yaml")
    assert "no task has failed" in project.ms("retry", "demo").stdout


def test_verify_of_a_sound_journal(ended):
    assert "events in 1 stream" in ended.ms("verify").stdout
    found = ended.json("verify")
    assert found["ok"]
    assert found["problems"] == []


def test_verify_names_the_event_that_was_altered_by_hand(ended):
    database = sqlite3.connect(ended.path / ".matterstack/journal.db")
    triggers = database.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events'"
    ).fetchall()
    for (name,) in triggers:
        database.execute(f"DROP TRIGGER {name}")
    (position,) = database.execute("SELECT position FROM events WHERE data LIKE '%\"exit_code\":3%'").fetchone()
    database.execute("UPDATE events SET data = replace(data, ':3', ':0') WHERE position = ?", (position,))
    database.commit()
    database.close()
    done = ended.ms("verify", code=1)
    assert f"event {position}, stream 'demo'" in done.stdout
    assert f"can be trusted up to version {position - 1}" in done.stdout
    found = ended.json("verify", code=1)
    assert not found["ok"]
    assert position in [problem["position"] for problem in found["problems"]]


def test_a_backup_is_a_journal(ended):
    ended.ms("backup", "copy.db")
    there, copy = ended.json("status"), ended.json("status", "--journal", "copy.db")
    assert copy.pop("journal") == f"{ended.path}/copy.db"
    assert there.pop("journal")
    assert copy == there
    assert ended.json("verify", "--journal", "copy.db")["ok"]


def test_a_backup_overwrites_nothing(ended):
    ended.write("copy.db", "mine")
    assert "exists already" in ended.fails("backup", "copy.db")
    assert (ended.path / "copy.db").read_text() == "mine"


def files_of(project, task):
    where = project.path / "results/demo" / task / "1"
    return sorted(path.name for path in where.iterdir()) if where.exists() else []


def test_clean_keeps_declared_outputs(project):
    project.workflow(("one", "date > now; date > scratch", {"outputs": ["n*"]}), ("two", "true"))
    project.ms("run", "wf.yaml")
    before = files_of(project, "one")
    assert "would remove" in project.ms("clean", "demo", "--dry-run").stdout
    assert files_of(project, "one") == before
    project.ms("clean", "demo")
    assert files_of(project, "one") == ["now"]
    assert files_of(project, "two") == []
    project.ms("clean", "demo", "--all")
    assert files_of(project, "one") == []


def test_clean_keeps_what_a_task_that_has_not_completed_takes(project):
    takes = {"files": {"now": {"task": "one", "output": "now"}}}
    project.workflow(("one", "date > now"), ("two", f"test -e {project.path}/mended", takes))
    project.ms("run", "wf.yaml", code=1)
    project.ms("clean", "demo", "--all")
    assert files_of(project, "one") == ["now"]
    project.write("mended", "")
    project.ms("retry", "demo")


def test_clean_never_touches_a_live_attempt(project):
    project.workflow(("one", project.counted("one", SLEEP)), ("two", project.counted("two")))
    project.start("run", "wf.yaml")
    project.until_ran("one", "two")
    project.until_state("two", "COMPLETED")
    before = files_of(project, "one")
    assert "kept 1 attempt that may still run" in project.ms("clean", "demo", "--all").stdout
    assert files_of(project, "one") == before
    assert files_of(project, "two") == []


def test_the_journal_is_found_from_directories_below(ended):
    below = ended.path / "a/b"
    below.mkdir(parents=True)
    assert "run         demo" in ended.ms("status", cwd=below).stdout
    ended.ms("run", "../../wf.yaml", cwd=below, code=1)
    assert ended.ran("one") == 1
    assert not (below / ".matterstack").exists()


def test_a_journal_can_be_anywhere(project):
    project.workflow(("one", "true"))
    project.ms("run", "wf.yaml", "--journal", "deep/er/my.db")
    assert project.json("status", "--journal", "deep/er/my.db")["counts"]["COMPLETED"] == 1
    assert not (project.path / ".matterstack").exists()


def test_a_profile_is_chosen_by_name(project):
    project.write("matterstack.yaml", "profiles: {there: {backend: local, workspace_root: ./there}}")
    project.workflow(("one", "true"))
    project.ms("run", "wf.yaml", "--profile", "there")
    assert (project.path / "there/demo/one/1/stdout.txt").exists()


def test_control_characters_of_a_task_do_not_reach_the_terminal(project):
    project.workflow(("one", "printf '\\033[2Jgone\\n' >&2; exit 1"))
    done = project.ms("run", "wf.yaml", code=1)
    assert "\\x1b[2Jgone" in done.stdout
    assert "\x1b" not in done.stdout


def test_quiet_prints_the_result_only(project):
    project.workflow(("one", "true"))
    done = project.ms("run", "wf.yaml", "--quiet")
    assert done.stdout == "demo: 1 of 1 tasks COMPLETED\n"
    assert not done.stderr


def test_a_python_workflow_runs(project):
    project.write(
        "scan.py",
        """\
        from matterstack import Task, Workflow

        workflow = Workflow("scan")
        first = workflow.add(Task("echo 5 > n", "first"))
        workflow.add(Task("test $(cat n) = 5", "second", files={"n": first.output("n")}))
        """,
    )
    assert project.ms("run", "scan.py").stdout == "scan: 2 of 2 tasks COMPLETED\n"


def test_umask_and_a_read_only_home_do_not_matter(project):
    project.workflow(("one", "true"))
    project.ms("run", "wf.yaml", env={"HOME": "/proc/nowhere"})
    assert os.path.exists(project.path / "results/demo/one/1")


def test_what_changes_and_keeps_things_speaks_json_too(ended):
    assert ended.json("cancel", "demo") == {"run": "demo", "tasks": []}
    assert ended.json("backup", "copy.db")["copy"] == "copy.db"
    cleaned = ended.json("clean", "demo", "--dry-run")
    assert (cleaned["run"], cleaned["dry_run"], cleaned["attempts"]) == ("demo", True, 2)


def test_a_task_that_failed_with_others_is_not_tried_by_itself(ended):
    assert "none of these tasks has failed by itself" in ended.ms("retry", "demo", "three").stdout


def test_events_removed_from_the_end_are_told_by_verify_and_stop_everything_else(ended):
    connection = sqlite3.connect(ended.path / ".matterstack/journal.db")
    for (name,) in connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'events'"
    ).fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("DELETE FROM events WHERE position > (SELECT max(position) - 3 FROM events)")
    connection.commit()
    connection.close()
    assert "later ones were removed" in ended.ms("verify", code=1).stdout
    for command in (("run", "wf.yaml"), ("status",), ("resume",)):
        assert "some were deleted" in ended.fails(*command)


def test_a_named_task_runs_again_although_it_is_done(project):
    project.workflow(
        ("one", project.counted("one", "date > now"), {"outputs": ["now"]}),
        ("two", project.counted("two"), {"files": {"now": {"task": "one", "output": "now"}}}),
    )
    project.ms("run", "wf.yaml")
    (project.path / "results/demo/one/1/now").unlink()
    again = project.ms("run", "wf.yaml", "--rerun", "one")
    assert "changed: one; to run again with them: two" in again.stderr
    assert (project.path / "results/demo/one/2/now").exists()
    assert (project.path / "results/demo/two/2/now").exists()
    assert "no task 'onee'. Did you mean 'one'? Nothing was started" in project.fails(
        "run", "wf.yaml", "--rerun", "onee"
    )


def test_logs_are_the_bytes_that_were_written_and_following_ends_without_a_controller(project):
    project.workflow(
        ("one", "printf '\\377\\000x'"), ("two", f"while [ ! -e {project.path}/gate ]; do sleep 0.02; done; echo over")
    )
    process = project.start("run", "wf.yaml")
    project.until_state("one", "COMPLETED")
    project.until_state("two", "RUNNING")
    command = [*COMMAND, "logs", "demo", "one"]
    assert (
        subprocess.run(command, cwd=project.path, env=project.env, capture_output=True, check=True).stdout == b"\xff\0x"
    )
    process.kill()
    process.wait()
    project.write("gate", "")
    assert project.ms("logs", "demo", "two", "--follow").stdout == "over\n"
