"""SlurmBackend on a real Slurm behind a real sshd: what a user does with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from campaign import backend_of, counted, ended, eventually, mixed, starts

from matterstack import Task, Workflow, run_workflow
from matterstack.errors import SubmitRefusedError, UnknownJob
from matterstack.runtime.backends.local import LocalBackend


@pytest.fixture
def root(tmp_path):
    return tmp_path / "work space"


@pytest.fixture
def log(tmp_path):
    place = tmp_path / "log"
    place.mkdir()
    return place


@pytest.fixture
def backend(cluster, root, tmp_path):
    made = backend_of(cluster, root, tmp_path)
    yield made
    made.close()


def test_alone_a_job_is_submitted_polled_and_read(backend):
    job_id = backend.submit(Task("echo hello; echo oops >&2; exit 3", "a"))
    status = ended(backend, job_id)
    assert (status.state, status.reason, status.exit_code) == ("FAILED", "EXIT_CODE", 3)
    assert backend.get_logs(job_id) == {"stdout": "hello\n", "stderr": "oops\n"}


def test_alone_the_same_task_is_the_same_job_also_after_its_end(cluster, root, tmp_path, backend, log):
    task = counted(log, "a")
    job_id = backend.submit(task)
    assert backend.submit(task) == job_id
    assert ended(backend, job_id).state == "COMPLETED"
    other = backend_of(cluster, root, tmp_path)
    assert other.submit(task) == job_id
    assert other.poll(job_id).state == "COMPLETED"
    other.close()
    with pytest.raises(SubmitRefusedError, match="another spec"):
        backend.submit(Task("echo other", "a"))
    again = backend.submit(task, attempt=2)
    assert again != job_id
    assert ended(backend, again).state == "COMPLETED"
    assert starts(log) == {"a": 2}


def test_alone_a_running_job_is_read_and_cancelled_by_another_object(cluster, root, tmp_path, backend):
    job_id = backend.submit(Task("echo begun; sleep 300; echo no", "a"))
    eventually(lambda: backend.get_logs(job_id)["stdout"] == "begun\n", "the first line")
    assert backend.poll(job_id).state == "RUNNING"
    other = backend_of(cluster, root, tmp_path)
    other.cancel(job_id)
    assert other.poll(job_id).reason == "CANCELLED"
    other.close()
    assert backend.get_logs(job_id)["stdout"] == "begun\n"


@pytest.mark.parametrize("job_id", ["nobody/has/this", "999999@run/a/1", "12"])
def test_an_unknown_job_is_told(backend, job_id):
    with pytest.raises(UnknownJob):
        backend.poll(job_id)


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_campaign_with_files_and_failures(cluster, root, tmp_path, transport):
    backend = backend_of(cluster, root, tmp_path, transport=transport)
    flow = Workflow("flow")
    (tmp_path / "big.bin").write_bytes(bytes(range(256)) * 1000)
    first = flow.add(
        Task(
            "wc -c <big.bin >size; cat text",
            "first",
            files={"big.bin": tmp_path / "big.bin", "text": "é\n"},
            outputs=["s*"],
        )
    )
    flow.add(Task("cat size", "second", files={"size": first.output("size")}))
    flow.add(Task("exit 4", "fails"))
    flow.add(Task("true", "blocked", dependencies=["fails"]))
    flow.add(Task("cat none", "starved", files={"none": first.output("none")}))
    result = run_workflow(flow, backend=backend, journal=tmp_path / "j.db")
    backend.close()
    assert {name: r.reason or r.state for name, r in result.items()} == {
        "first": "COMPLETED",
        "second": "COMPLETED",
        "fails": "EXIT_CODE",
        "blocked": "DEPENDENCY_FAILED",
        "starved": "SUBMIT_REFUSED",
    }
    assert result["second"].logs()["stdout"].strip() == "256000"
    assert (result["first"].workdir / "size").read_text().strip() == "256000"
    assert not (result["first"].workdir / "big.bin").exists(), "inputs do not come back"
    assert "'none' of task 'first'" in result["starved"].detail


def test_elements_of_an_array_end_in_their_own_ways(cluster, root, tmp_path):
    backend = backend_of(cluster, root, tmp_path)
    ends = {"good": "true", "bad": "exit 7", "killed": "kill -9 $$", "missing": "no-such-command"}
    ends |= {"term": "kill $$; sleep 60", "shell": "kill -9 $PPID; sleep 60"}
    flow = Workflow("six", [Task(command, name) for name, command in ends.items()])
    result = run_workflow(flow, backend=backend, journal=tmp_path / "j.db")
    backend.close()
    assert len({r.job_id.partition("_")[0] for r in result.values()}) == 1, "they went as one array"
    assert {name: (r.state, r.reason, r.exit_code) for name, r in result.items() if name != "shell"} == {
        "good": ("COMPLETED", "", 0),
        "bad": ("FAILED", "EXIT_CODE", 7),
        "killed": ("FAILED", "EXIT_CODE", 137),
        "missing": ("FAILED", "EXIT_CODE", 127),
        "term": ("FAILED", "EXIT_CODE", 143),
    }
    assert result["killed"].signal == signal.SIGKILL
    assert result["shell"].state == "FAILED", "its batch shell was killed, so it left no record"


def test_one_campaign_uses_local_and_cluster_side_by_side(cluster, root, tmp_path):
    config = tmp_path / "matterstack.yaml"
    ssh = ", ".join(
        f"{k}: {str(v).lower() if isinstance(v, bool) else v}" for k, v in cluster.ssh_config_kwargs().items()
    )
    config.write_text(
        "default: here\nprofiles:\n  here: {backend: local}\n  there:\n    backend: slurm\n"
        f"    ssh: {{{ssh}}}\n    workspace_root: {root}\n    slurm: {{account: acct}}\n"
        "    waits: {poll_min_s: 0.3, poll_max_s: 1.5}\n"
    )
    flow = Workflow("both")
    first = flow.add(Task("echo 7 >n", "first", outputs=["n"]))
    second = flow.add(
        Task("echo $(($(cat n) * 6)) >m", "second", files={"n": first.output("n")}, profile="there", outputs=["m"])
    )
    flow.add(Task("cat m", "third", files={"m": second.output("m")}))
    result = run_workflow(flow, journal=tmp_path / "j.db")
    assert result["third"].logs()["stdout"] == "42\n"
    assert "@" in result["second"].job_id
    assert "@" not in result["first"].job_id


def test_results_of_many_come_back_and_nothing_runs_twice(cluster, root, tmp_path, log):
    backend = backend_of(cluster, root, tmp_path)
    result = run_workflow(mixed(log, 60), backend=backend, journal=tmp_path / "j.db")
    backend.close()
    assert result.ok
    assert starts(log) == {f"t{i:03}": 1 for i in range(60)}
    assert {name: (r.workdir / "out").read_text() for name, r in result.items()} == {
        f"t{i:03}": f"t{i:03}\n" for i in range(60)
    }


def test_an_invalid_account_is_refused_with_sbatchs_words(cluster, root, tmp_path):
    backend = backend_of(cluster, root, tmp_path, slurm={"account": "nobody"})
    result = run_workflow(Workflow("w", [Task("true", "a")]), backend=backend, journal=tmp_path / "j.db")
    backend.close()
    assert result["a"].reason == "SUBMIT_REFUSED"
    assert "Invalid account" in result["a"].detail


def test_a_job_that_an_operator_cancels_is_cancelled(cluster, root, tmp_path):
    backend = backend_of(cluster, root, tmp_path)
    # As root an operator looks like Slurm itself, which within a second of a start is taken to have failed.
    job_id = backend.submit(Task("sleep 3; echo on; sleep 300", "a"))
    eventually(lambda: backend.get_logs(job_id)["stdout"], "its start")
    cluster.run(["scancel", job_id.partition("@")[0]])
    assert ended(backend, job_id).reason == "CANCELLED"
    backend.close()


def test_patterns_that_match_nothing_are_no_failure(cluster, root, tmp_path):
    backend = backend_of(cluster, root, tmp_path)
    task = Task("true", "a", outputs=["none", "no*"])
    result = run_workflow(Workflow("w", [task]), backend=backend, journal=tmp_path / "j.db")
    backend.close()
    assert result.ok


def test_secrets_reach_the_task_and_stay_nowhere(cluster, root, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cr3t'\"$x")
    backend = backend_of(cluster, root, tmp_path)
    task = Task('printf %s "$MY_TOKEN" | md5sum', "a", secrets=["MY_TOKEN"])
    result = run_workflow(Workflow("w", [task]), backend=backend, journal=tmp_path / "j.db")
    backend.close()
    assert result.ok
    import hashlib

    assert result["a"].logs()["stdout"].split()[0] == hashlib.md5(b"s3cr3t'\"$x").hexdigest()
    for path in [*root.rglob("*"), tmp_path / "j.db", tmp_path / "j.db-wal"]:
        if path.is_file():
            assert b"s3cr3t" not in path.read_bytes(), path


@pytest.mark.parametrize("by", ["us", "an operator"])
def test_secrets_of_a_job_that_is_cancelled_while_it_waits_go_with_it(cluster, root, tmp_path, monkeypatch, by):
    monkeypatch.setenv("MY_TOKEN", "s3cr3t")
    backend = backend_of(cluster, root, tmp_path, slurm={"begin": "now+1hour"})
    job_id = backend.submit(Task("true", "a", secrets=["MY_TOKEN"]))
    (secrets,) = root.rglob("secrets")
    if by == "us":
        backend.cancel_many([job_id])
        assert ended(backend, job_id).reason == "CANCELLED"
    else:
        cluster.run(["scancel", job_id.partition("@")[0]])
    eventually(lambda: backend.poll(job_id) and not secrets.exists(), "the end of the secrets", within_s=20)
    backend.close()


def test_two_backends_of_a_run_are_the_same_place_for_both(cluster, root, tmp_path):
    local = LocalBackend(tmp_path / "local")
    backend = backend_of(cluster, root, tmp_path)
    journal = tmp_path / "j.db"
    assert run_workflow(Workflow("w", [Task("true", "a")]), backend=backend, journal=journal).ok
    assert run_workflow(Workflow("w", [Task("true", "a")]), backend=backend, journal=journal).ok
    backend.close()
    local.close()


def test_explain_asks_the_cluster_and_says_what_it_says(cluster, root, tmp_path):
    backend = backend_of(cluster, root, tmp_path)
    run_workflow(Workflow("w", [Task("exit 4", "a")]), backend=backend, journal=tmp_path / "j.db")
    backend.close()
    words = [sys.executable, "-m", "matterstack.cli.main", "explain", "w", "a", "--journal", str(tmp_path / "j.db")]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "FAILED EXIT_CODE" in told
    assert "exit_code                 4" in told
    assert "claimed                   True" in told


def test_the_command_line_runs_follows_cancels_and_cleans(cluster, root, tmp_path, log):
    settings = {
        "backend": "slurm",
        "ssh": cluster.ssh_config_kwargs(),
        "workspace_root": str(root),
        "slurm": {"account": "acct"},
        "waits": {"poll_min_s": 0.3, "poll_max_s": 1.5},
    }
    (tmp_path / "matterstack.yaml").write_text(json.dumps({"default": "there", "profiles": {"there": settings}}))
    tasks = [
        {"task_id": "quick", "command": "echo done >out", "outputs": ["out"]},
        {"task_id": "long", "command": "echo begun; sleep 300"},
        {"task_id": "wide", "command": "sleep 300", "cores": 32, "time_limit_minutes": 5},
    ]
    (tmp_path / "w.yaml").write_text(json.dumps({"name": "w", "tasks": tasks}))

    def ms(*words):
        command = [sys.executable, "-m", "matterstack.cli.main", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)

    with subprocess.Popen([sys.executable, "-m", "matterstack.cli.main", "run", "w.yaml", "-q"]) as controller:
        eventually(lambda: ms("logs", "w", "long").stdout == "begun\n", "the first line of the log")
        eventually(lambda: "1 of 3 tasks COMPLETED" in ms("status", "w").stdout, "the quick one's end")
        controller.kill()
    assert "resume" in ms("status", "w").stdout
    cancelled = ms("cancel", "w")
    assert "2 of 2 tasks have ended" in cancelled.stdout, cancelled
    done = ms("resume", "w", "--json")
    assert json.loads(done.stdout)["counts"] == {"PENDING": 0, "RUNNING": 0, "COMPLETED": 1, "FAILED": 2}
    assert (tmp_path / "results/w/quick/1/out").read_text() == "done\n"
    assert "removed" in ms("clean", "w").stdout
    assert (tmp_path / "results/w/quick/1/out").exists()
    assert not (tmp_path / "results/w/long/1/stdout.txt").exists()
