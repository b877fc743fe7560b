"""Nothing lost, nothing twice, on a real Slurm: controllers, daemons and connections that die."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time

import pytest
from campaign import backend_of, controller, counted, ended, eventually, starts

from matterstack import Task, Workflow, resume, run_workflow
from matterstack.history import History


@pytest.fixture
def root(tmp_path):
    return tmp_path / "workspace"


@pytest.fixture
def log(tmp_path):
    place = tmp_path / "log"
    place.mkdir()
    return place


def counts(journal):
    """Return the number of tasks by state; empty before the run is recorded."""
    try:
        with History(journal) as history:
            return history.status(history.run(None)).counts
    except Exception:  # noqa: BLE001  # there is no journal yet
        return {}


def lost_contacts(journal):
    """Return what the run says of backends that it cannot ask."""
    with History(journal) as history:
        return history.status(history.run(None)).lost_contacts


RUN = """
backend = backend_of(cluster, Path("workspace").absolute(), Path.cwd())
run_workflow(mixed(Path("log").absolute(), {count}, {command!r}), backend=backend, journal="j.db")
"""


@pytest.mark.timeout(300)
def test_a_controller_killed_again_and_again_loses_nothing_and_starts_nothing_twice(cluster, root, log, tmp_path):
    chance = random.Random(7)
    journal = tmp_path / "j.db"
    script = RUN.format(count=200, command="sleep 0.3; echo $MATTERSTACK_TASK >out")
    for done in (0, 20, 70, 130):
        process = controller(cluster, script, tmp_path)
        eventually(
            lambda done=done, p=process: counts(journal).get("COMPLETED", 0) > done or p.poll() is not None, "some work"
        )
        time.sleep(chance.uniform(0, 0.7))
        process.send_signal(signal.SIGKILL)
        process.wait()
    backend = backend_of(cluster, root, tmp_path)
    result = resume(journal=journal, backend=backend)
    backend.close()
    assert result.ok, result
    assert starts(log) == {f"t{i:03}": 1 for i in range(200)}
    assert all((result[name].workdir / "out").read_text() == f"{name}\n" for name in result)
    assert all(result[name].attempts == 1 for name in result)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_sshd_dies_between_acceptance_and_reply(private_cluster, root, log, tmp_path, moment):
    """The remote shell goes on, or has ended; in both cases the job is found and not submitted again."""
    cluster = private_cluster(min_job_age_s=300)
    gate, reached = tmp_path / "gate", tmp_path / "reached"
    sbatch = shutil.which("sbatch")
    stall = f"touch {reached}; while [ ! -e {gate} ]; do sleep 0.05; done"
    before, after = (stall, ":") if moment == "before" else (":", stall)
    wrapper = cluster.commands / "sbatch"
    wrapper.write_text(f'#!/bin/sh\n{before}\n{sbatch} "$@"; code=$?\n{after}\nexit $code\n')
    wrapper.chmod(0o755)
    process = controller(cluster, RUN.format(count=3, command=":"), tmp_path)
    eventually(reached.exists, "sbatch")
    cluster.kill_sessions()
    process.kill()
    process.wait()
    backend = backend_of(cluster, root, tmp_path)
    release = threading.Timer(3.0, gate.touch)
    release.start()
    result = resume(journal=tmp_path / "j.db", backend=backend)
    backend.close()
    assert result.ok
    assert starts(log) == {f"t{i:03}": 1 for i in range(3)}
    jobs = {r.job_id.partition("_")[0] for r in result.values()}
    assert len(jobs) == 1
    names = cluster.run(["sacct", "-X", "-n", "-P", "-S", "now-1hour", "-o", "JobID"]).stdout.split()
    assert {name.partition("_")[0] for name in names} <= jobs, "one array only was ever submitted"


@pytest.mark.timeout(400)
def test_slurmctld_and_slurmdbd_die_and_come_back_in_mid_campaign(private_cluster, root, log, tmp_path):
    cluster = private_cluster(min_job_age_s=300)
    process = controller(cluster, RUN.format(count=40, command="sleep 2; echo $MATTERSTACK_TASK >out"), tmp_path)
    eventually(lambda: counts(tmp_path / "j.db").get("RUNNING", 0) > 3, "running tasks")
    time.sleep(6)  # slurmctld writes its state up to 5 s late; what it forgets itself is another test
    for name in ("slurmctld", "slurmdbd"):
        cluster.kill(name)
    time.sleep(2)
    for name in ("slurmdbd", "slurmctld"):
        cluster.start(name)
    process.wait(timeout=200)
    backend = backend_of(cluster, root, tmp_path)
    result = resume(journal=tmp_path / "j.db", backend=backend)
    backend.close()
    assert result.ok, [(r, r.detail) for r in result.failed()]
    assert starts(log) == {f"t{i:03}": 1 for i in range(40)}


@pytest.mark.timeout(300)
def test_the_network_is_cut_beyond_minjobage_without_accounting(private_cluster, root, log, tmp_path):
    cluster = private_cluster(min_job_age_s=2, accounting=False)
    command = "sleep 3; echo $MATTERSTACK_TASK >out; [ $MATTERSTACK_TASK != t003 ]"
    process = controller(cluster, RUN.format(count=10, command=command).replace("acct", ""), tmp_path)
    eventually(lambda: counts(tmp_path / "j.db").get("RUNNING", 0) == 10, "running tasks")
    cluster.kill("sshd")
    eventually(lambda: lost_contacts(tmp_path / "j.db"), "the run to say that it has no contact")
    eventually(lambda: not cluster.run(["squeue", "-h", "-t", "all"]).stdout.strip(), "an empty queue", 150)
    cluster.start("sshd")
    assert process.wait(timeout=200) == 0, (tmp_path / "controller.log").read_text()
    assert lost_contacts(tmp_path / "j.db") == []
    backend = backend_of(cluster, root, tmp_path)
    result = resume(journal=tmp_path / "j.db", backend=backend)
    backend.close()
    assert {name: (r.state, r.exit_code) for name, r in result.items()} == {
        f"t{i:03}": ("FAILED", 1) if i == 3 else ("COMPLETED", 0) for i in range(10)
    }
    assert starts(log) == {f"t{i:03}": 1 for i in range(10)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("requeue", [False, True])
def test_preemption(private_cluster, root, log, tmp_path, requeue):
    cluster = private_cluster(min_job_age_s=300)
    slurm = {"partition": "main", "requeue": requeue}
    backend = backend_of(cluster, root, tmp_path, slurm=slurm)
    task = counted(log, "low", "[ $(wc -l <$0) -gt 1 ] || sleep 100".replace("$0", str(log / "low")), cores=32)
    other = counted(log, "other", "[ $(wc -l <$0) -gt 1 ] || sleep 100".replace("$0", str(log / "other")), cores=32)
    ids = [backend.submit(one) for one in (task, other)]
    eventually(lambda: all(backend.poll(one).state == "RUNNING" for one in ids), "both nodes taken")
    cluster.run(
        ["sbatch", "-p", "high", "-N2", "--ntasks-per-node=32", "-o", "/dev/null", "--wrap", "sleep 1"], cwd="/tmp"
    )
    if requeue:
        statuses = [ended(backend, one, within_s=280) for one in ids]
        assert {status.state for status in statuses} == {"COMPLETED"}
        assert starts(log) == {"low": 2, "other": 2}
    else:
        statuses = [ended(backend, one) for one in ids]
        assert {(status.state, status.reason) for status in statuses} == {("FAILED", "PREEMPTED")}
        assert starts(log) == {"low": 1, "other": 1}
    backend.close()


@pytest.mark.timeout(300)
def test_a_limit_of_the_site_holds_and_never_fails(private_cluster, root, log, tmp_path):
    cluster = private_cluster(min_job_age_s=300)
    cluster.run(["sacctmgr", "-i", "modify", "qos", "normal", "set", "MaxSubmitJobsPerUser=3"], check=True)
    backend = backend_of(cluster, root, tmp_path, slurm={"arrays": False})
    flow = Workflow("limited", [counted(log, f"t{i}", "sleep 1") for i in range(8)])
    seen = set()
    result = run_workflow(flow, backend=backend, journal=tmp_path / "j.db", progress=lambda p: seen.add(p.trouble))
    backend.close()
    assert result.ok, [(r, r.detail) for r in result.failed()]
    assert starts(log) == {f"t{i}": 1 for i in range(8)}
    assert any("QOSMaxSubmitJobPerUserLimit" in words for words in seen)


@pytest.mark.timeout(300)
def test_a_job_directory_that_was_removed_is_lost_and_told(cluster, root, tmp_path):
    backend = backend_of(cluster, root, tmp_path, waits={"absence_s": 4.0})
    job_id = backend.submit(Task("sleep 1", "a"))
    eventually(lambda: backend.poll(job_id).state == "RUNNING", "its start")
    eventually(lambda: any((root / "_alone").rglob("begun")), "its command")  # its set-up would fail of it
    shutil.rmtree(root / "_alone")
    status = ended(backend, job_id)
    backend.close()
    assert (status.state, status.reason) == ("FAILED", "LOST")
    assert "directory" in status.detail


@pytest.mark.timeout(400)
def test_a_job_that_the_controller_forgot_is_submitted_again_or_told(private_cluster, root, log, tmp_path):
    """slurmctld writes its state late; killed at once it forgets jobs, and gives their ids to others."""
    cluster = private_cluster(min_job_age_s=300)
    cluster.run(["scontrol", "update", "partition=main", "state=down"], check=True)  # so that it cannot have started
    process = controller(cluster, RUN.format(count=4, command=":"), tmp_path)
    eventually(lambda: "PENDING" in cluster.run(["squeue", "-h", "-r", "-o", "%T"]).stdout, "queued jobs")
    cluster.kill("slurmctld")
    for file in (cluster.home / "state").glob("job_state*"):
        file.unlink()
    cluster.start("slurmctld")
    cluster.run(["scontrol", "update", "partition=main", "state=up"], check=True)
    assert process.wait(timeout=200) == 0, (tmp_path / "controller.log").read_text()
    backend = backend_of(cluster, root, tmp_path)
    result = resume(journal=tmp_path / "j.db", backend=backend)
    backend.close()
    assert result.ok, [(r, r.detail) for r in result.failed()]
    assert starts(log) == {f"t{i:03}": 1 for i in range(4)}
