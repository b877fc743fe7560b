import json
import os
import resource
import shutil
import sqlite3
import subprocess

import pytest
from cli_project import COMMAND, WAIT_S

READING = [["status"], ["history"], ["logs", "demo", "one"], ["verify"], ["backup", "copy.db"], ["clean", "demo"]]
WRITING = [["run", "wf.yaml"], ["resume"], ["cancel", "demo"], ["retry", "demo"]]
COMMANDS = [*READING, *WRITING]
JOURNAL = ".matterstack/journal.db"


def name_of(arguments):
    return arguments[0]


@pytest.fixture
def ended(project):
    project.workflow(("one", project.counted("one")), ("two", "false"))
    project.ms("run", "wf.yaml", code=1)
    return project


# ---- the journal ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", COMMANDS, ids=name_of)
def test_a_journal_that_is_a_directory(project, arguments):
    project.workflow(("one", project.counted("one")))
    (project.path / "dir.db").mkdir()
    assert "dir.db: is a directory" in project.fails(*arguments, "--journal", "dir.db")
    assert project.ran("one") == 0


@pytest.mark.parametrize("arguments", COMMANDS, ids=name_of)
def test_a_journal_that_is_not_sqlite(project, arguments):
    project.workflow(("one", project.counted("one")))
    text = "these are my notes, not a database\n" * 100
    project.write("notes.txt", text)
    assert "notes.txt: could not open it: it is not an SQLite file" in project.fails(
        *arguments, "--journal", "notes.txt"
    )
    assert (project.path / "notes.txt").read_text() == text
    assert project.ran("one") == 0


@pytest.mark.parametrize("arguments", COMMANDS, ids=name_of)
def test_a_database_that_is_something_else(project, arguments):
    project.workflow(("one", project.counted("one")))
    database = sqlite3.connect(project.path / "other.db")
    database.execute("CREATE TABLE mine (x)")
    database.close()
    before = (project.path / "other.db").read_bytes()
    message = project.fails(*arguments, "--journal", "other.db")
    assert "other.db" in message
    assert (project.path / "other.db").read_bytes() == before
    assert project.ran("one") == 0


@pytest.mark.parametrize("arguments", COMMANDS, ids=name_of)
def test_a_journal_of_a_newer_version(ended, arguments):
    database = sqlite3.connect(ended.path / JOURNAL)
    (version,) = database.execute("PRAGMA user_version").fetchone()
    database.execute(f"PRAGMA user_version = {version + 1}")
    database.commit()
    database.close()
    assert "newer" in ended.fails(*arguments)
    assert ended.ran("one") == 1


@pytest.mark.parametrize("arguments", [*READING, *WRITING[1:]], ids=name_of)
def test_a_journal_that_is_not_there(project, arguments):
    assert "there is no journal here" in project.fails(*arguments, "--journal", "no/journal.db")
    assert not (project.path / "no").exists()


@pytest.mark.parametrize("arguments", COMMANDS, ids=name_of)
def test_a_journal_below_a_file(project, arguments):
    project.workflow(("one", "true"))
    project.write("file", "")
    assert "file/journal.db" in project.fails(*arguments, "--journal", "file/journal.db")


def read_only(project, *arguments):
    """Run a command that sees the journal's directory read-only, also as root, and only for itself."""
    bind = 'mount --bind .matterstack .matterstack && mount -o remount,bind,ro .matterstack && exec "$@"'
    if os.geteuid() != 0:
        (project.path / ".matterstack").chmod(0o500)
        (project.path / JOURNAL).chmod(0o400)
        command = [*COMMAND, *arguments]
    else:
        command = ["unshare", "--mount", "sh", "-c", bind, "sh", *COMMAND, *arguments]
        can = ["unshare", "--mount", "sh", "-c", bind, "sh", "true"]
        if not shutil.which("unshare") or subprocess.run(can, cwd=project.path, check=False).returncode:
            pytest.skip("as root, only a read-only mount shows this, and none can be made here")
    return subprocess.run(
        command, cwd=project.path, env=project.env, capture_output=True, text=True, timeout=WAIT_S, check=False
    )


@pytest.mark.parametrize(
    "arguments", [["run", "wf.yaml"], ["retry", "demo"], ["resume", "--retry-failed"]], ids=name_of
)
def test_a_read_only_journal_starts_nothing(ended, arguments):
    ended.workflow(("one", ended.counted("one", "echo changed")), ("two", "false"))
    done = read_only(ended, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("matterstack: ")
    assert "read-only" in done.stderr
    assert "Traceback" not in done.stderr
    assert ended.ran("one") == 1


def test_a_read_only_journal_can_be_read(ended):
    assert "run         demo" in read_only(ended, "status").stdout
    assert "RunStopped" in read_only(ended, "history").stdout


def limited(project, *arguments, limit):
    """Run a command that can write no file beyond ``limit`` bytes: to SQLite that is a full quota."""

    def limit_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=project.path,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        preexec_fn=limit_files,  # no threads here
    )


@pytest.mark.parametrize("limit", [1_000, 150_000, 600_000, 900_000])
def test_a_full_disk_stops_the_run_and_loses_nothing(project, limit):
    names = [f"t{i}" for i in range(400)]
    project.workflow(*((name, project.counted(name)) for name in names))
    done = limited(project, "run", "wf.yaml", "--quiet", limit=limit)
    assert "Traceback" not in done.stderr
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("matterstack: ")
    started = sum(project.ran(name) for name in names)
    assert limit < 900_000 or 0 < started < 400
    assert project.json("run", "wf.yaml")["counts"]["COMPLETED"] == 400
    assert [project.ran(name) for name in names] == [1] * 400
    assert project.json("verify")["ok"]


def test_a_full_file_system_says_so(project):
    """The real thing, where a small file system can be mounted."""
    project.workflow(*((f"t{i}", project.counted(f"t{i}")) for i in range(400)))
    (project.path / "small").mkdir()
    mount = "mount -t tmpfs -o size=300k none small"
    can = ["unshare", "--mount", "sh", "-c", mount]
    if not shutil.which("unshare") or subprocess.run(can, cwd=project.path, check=False, stderr=-3).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'{mount} && "$@"',
            "sh",
            *COMMAND,
            "run",
            "wf.yaml",
            "--journal",
            "small/j.db",
        ],
        cwd=project.path,
        env=project.env,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr


# ---- runs, tasks, profiles --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "dmo"],
        ["history", "dmo"],
        ["logs", "dmo", "one"],
        ["cancel", "dmo"],
        ["retry", "dmo"],
        ["resume", "dmo"],
        ["clean", "dmo"],
    ],
    ids=name_of,
)
def test_an_unknown_run_is_answered_with_the_nearest(ended, arguments):
    assert "no run 'dmo'. Did you mean 'demo'?" in ended.fails(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [["history", "demo", "oen"], ["logs", "demo", "oen"], ["cancel", "demo", "oen"], ["retry", "demo", "two", "oen"]],
    ids=name_of,
)
def test_an_unknown_task_is_answered_with_the_nearest(ended, arguments):
    assert "no task 'oen'. Did you mean 'one'?" in ended.fails(*arguments)


def test_an_unknown_profile_is_answered_with_the_nearest(ended):
    for arguments in (["run", "wf.yaml"], ["resume"], ["retry", "demo"]):
        assert "no profile 'locl'. Did you mean 'local'?" in ended.fails(*arguments, "--profile", "locl")


def test_a_journal_without_a_run_says_how_to_start_one(project):
    project.workflow(("one", "true", {"files": {"x": {"path": "missing"}}}))
    project.fails("run", "wf.yaml")
    message = project.fails("status")
    assert "`matterstack run WORKFLOW`" in message or "there is no journal here" in message


@pytest.mark.parametrize("run", ["../x", "a b", "é", "a\nb", "x" * 300, "-x"])
def test_a_run_id_that_is_no_name_of_a_directory_is_refused(project, run):
    project.workflow(("one", project.counted("one")))
    assert "must be 1 to 128 characters out of" in project.fails("run", "wf.yaml", f"--run={run}")
    assert project.ran("one") == 0


def test_a_second_controller_of_a_run_is_refused(project):
    project.workflow(("one", project.counted("one", "while [ ! -e ../../../../go ]; do sleep 0.02; done")))
    first = project.start("run", "wf.yaml")
    project.until_ran("one")
    for arguments in (["run", "wf.yaml"], ["resume"]):
        message = project.fails(*arguments)
        assert f"run 'demo' is driven by process {first.pid}" in message
        assert "Nothing was started" in message
    (project.path / "go").touch()
    assert first.wait(WAIT_S) == 0
    assert project.ran("one") == 1


def test_a_change_to_a_live_task_is_refused_unless_it_is_to_be_replaced(project):
    project.workflow(("one", project.counted("one", "exec sleep 60")))
    first = project.start("run", "wf.yaml")
    project.until_ran("one")
    first.kill()
    first.wait()
    project.workflow(("one", project.counted("one", "true")))
    assert "changes tasks that are submitted or running: one" in project.fails("run", "wf.yaml")
    assert project.ran("one") == 1
    project.ms("run", "wf.yaml", "--replace")
    assert project.ran("one") == 2


# ---- workflows and tasks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("missing.py", None, "missing.py: there is no such file"),
        ("w.py", "this is no Python\n", "w.py:1: not valid Python"),
        ("w.py", "x = 1\n", "w.py: defines no workflow"),
        ("w.py", "\n1 / 0\n", "w.py:2: ZeroDivisionError"),
        ("w.yaml", "tasks: {a: b}\n", "w.yaml:1: tasks: expected a list, got a mapping"),
        ("w.yaml", "tasks:\n  - {task_id: ../x, command: y}\n", "w.yaml:2: tasks[0]: task '../x': task_id: must be"),
        ("w.yaml", "tasks:\n  - {task_id: a, command: y, dependencies: [a]}\n", "tasks wait for each other: a -> a"),
        ("w.yaml", "tasks:\n  - {task_id: a, command: y, dependencies: [b]}\n", "depends on 'b', which is not in the"),
        ("w.yaml", "tasks:\n  - {task_id: a, command: y, files: {x: {path: gone}}}\n", "does not exist"),
        ("w.yaml", "tasks:\n  - {task_id: a, command: y, files: {x: {path: .}}}\n", "is a directory"),
        ("w.txt", "", "a workflow is a .py, .yaml or .yml file"),
    ],
)
def test_a_bad_workflow_is_told_and_leaves_no_run(project, file, text, words):
    if text is not None:
        project.write(file, text)
    assert words in project.fails("run", file)
    assert not (project.path / "results").exists()


def test_a_bad_profile_is_told_with_its_line(project):
    project.workflow(("one", "true"))
    project.write("matterstack.yaml", "profiles:\n  local:\n    backend: local\n    max_tasks: 3\n")
    assert "matterstack.yaml:4: profiles.local: unknown key 'max_tasks'" in project.fails("run", "wf.yaml")


def test_a_workspace_that_is_a_file_is_told(project):
    project.workflow(("one", "true"))
    project.write("results", "not a directory")
    assert f"local: could not open the workspace '{project.path}/results'" in project.fails("run", "wf.yaml")


def test_a_command_that_cannot_start_fails_with_the_shells_words(project):
    project.write("data", "not a program")
    project.workflow(("missing", "./no-such-program --x"), ("data", f"{project.path}/data"))
    done = project.ms("run", "wf.yaml", code=1)
    assert "missing: EXIT_CODE, exit code 127" in done.stdout
    assert "no-such-program" in done.stdout
    assert "data: EXIT_CODE, exit code 126" in done.stdout


def test_output_asked_of_a_task_that_did_not_write_it_is_told(project):
    project.workflow(
        ("one", "test ! -e ../../../../good || date > energy.json"),
        ("two", project.counted("two"), {"files": {"in.json": {"task": "one", "output": "energy.json"}}}),
    )
    done = project.ms("run", "wf.yaml", code=1)
    assert "two: SUBMIT_REFUSED: task 'one' did not write 'energy.json'" in done.stdout
    assert project.ran("two") == 0


def test_a_missing_secret_is_named(project):
    project.workflow(("one", project.counted("one"), {"secrets": ["MY_TOKEN"]}))
    done = project.ms("run", "wf.yaml", code=1)
    assert "MY_TOKEN" in done.stdout
    assert project.ran("one") == 0
    project.ms("retry", "demo", env={"MY_TOKEN": "s3cret-value"})
    assert project.ran("one") == 1
    assert b"s3cret-value" not in (project.path / JOURNAL).read_bytes()


def test_a_resume_that_may_not_log_in_says_that_it_took_the_profile_as_recorded(project):
    """Who has mended the profile's file since has to say so; the journal alone knows nothing of that."""
    ssh = {"hostname": "127.0.0.1", "key_filename": "missing", "ssh_config": "/dev/null"}
    profile = {"backend": "slurm", "workspace_root": "/tmp/runs", "ssh": ssh}
    project.write("matterstack.yaml", json.dumps({"default": "far", "profiles": {"far": profile}}))
    project.workflow(("one", "true"))
    said = project.fails("run", "wf.yaml", "-q")
    assert "missing does not exist. Nothing was submitted" in said
    assert "recorded" not in said
    assert "If you have mended it since, name it: --profile NAME.\n" in project.fails("resume", "-q")
    assert "recorded" not in project.fails("resume", "-q", "--profile", "far")
    assert "awaited     a controller that asks whether it was submitted" in project.ms("explain", "demo", "one").stdout
