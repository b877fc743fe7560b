"""scripts/cluster itself: what it makes, what it ends, what it leaves alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from campaign import eventually
from cluster import NAMES, Cluster, ClusterError, ports, remove_abandoned
from cluster import install as installing
from cluster.processes import children, name_of

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/cluster"


@pytest.fixture
def place(tmp_path_factory):
    """A directory that does not exist yet, for one cluster, which is ended with the test."""
    place = tmp_path_factory.mktemp("c", numbered=True) / "x"
    yield place
    Cluster(place).down()


def script(place, *words, code=0, **env):
    """Return the output of the script, which ends with this code."""
    command = [SCRIPT, "--dir", place, *words]
    environment = {**os.environ, "PYTHON": sys.executable, **env}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def lives(pid):
    with suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def all_processes():
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def numbers(file):
    return {int(word) for word in file.read_text().split()}


def works(cluster):
    """Return whether a job runs to its end."""
    done = cluster.run(["srun", "--account=acct", "sh", "-c", "echo ran"], cwd="/")
    return done.stdout == "ran\n"


@pytest.fixture
def without_sbatch(tmp_path):
    """A value for PATH on which there are no clients of Slurm."""
    place = tmp_path / "commands"
    place.mkdir()
    for directory in os.environ["PATH"].split(":"):
        for command in Path(directory).glob("*"):
            if command.name != "sbatch" and not (place / command.name).is_symlink():
                (place / command.name).symlink_to(command)
    return str(place)


@pytest.mark.timeout(300)
def test_up_status_env_faults_and_down(place):
    assert "SLURM_CONF" in script(place, "up", "--min-job-age", "7")
    assert [line.split()[0] for line in script(place, "status").splitlines()] == list(NAMES)
    assert "Nothing was changed" in script(place, "up", code=2)
    env = json.loads(script(place, "env"))
    ssh = env["ssh"]
    command = ["ssh", "-F", "/dev/null", "-i", ssh["key_filename"], "-p", str(ssh["port"])]
    command += ["-o", f"UserKnownHostsFile={ssh['known_hosts']}", "-o", "BatchMode=yes", "root@127.0.0.1"]
    reply = subprocess.run([*command, "scontrol show config"], capture_output=True, text=True, check=True)
    assert "MinJobAge               = 7 sec" in reply.stdout

    cluster = Cluster(place)
    daemons = {name: pid for name, pid in cluster.status().items() if pid}
    assert list(daemons) == list(NAMES)
    for name, pid in daemons.items():
        script(place, "stop", name)
        assert f"pid {pid}, stopped" in script(place, "status")
        script(place, "kill", name)
        assert not lives(pid)
        assert "does not run" in script(place, "status", code=1)
        script(place, "start", name)
        assert cluster.status()[name] not in (None, pid)
        assert works(cluster), name
    script(place, "stop", "sshd")
    script(place, "cont", "sshd")
    assert subprocess.run([*command, "true"], check=False).returncode == 0

    last = list(cluster.status().values())
    script(place, "down")
    assert not any(lives(pid) for pid in last)
    assert not place.exists()
    script(place, "down")
    assert "there is no cluster" in script(place, "status", code=2)


@pytest.mark.timeout(300)
def test_two_side_by_side_know_nothing_of_each_other(private_cluster):
    one, two = private_cluster(), private_cluster(accounting=False)
    assert not set(one.ports.values()) & set(two.ports.values())
    assert "slurmdbd" not in two.names
    one.run(["sbatch", "--wrap", "sleep 600", "-o", "/dev/null"], check=True, cwd="/")
    assert len(one.run(["squeue", "-h"]).stdout.splitlines()) == 1
    assert two.run(["squeue", "-h"]).stdout == ""
    two.down()
    assert all(one.status().values())
    assert works(one)


@pytest.mark.timeout(300)
def test_down_ends_all_of_its_own_and_nothing_else(private_cluster, tmp_path):
    cluster = private_cluster(accounting=False)
    pids = tmp_path / "pids"
    leave = f"echo $$ >>{pids}; exec sleep 600"
    job = f"env -i setsid sh -c '{leave}' & setsid sh -c '{leave}' & {leave}"
    cluster.run(["sbatch", "--export=NONE", "--wrap", job, "-o", "/dev/null"], check=True, cwd="/")
    at = cluster.ssh_config_kwargs()
    command = ["ssh", "-F", "/dev/null", "-i", at["key_filename"], "-p", str(at["port"])]
    command += ["-o", f"UserKnownHostsFile={at['known_hosts']}", "root@127.0.0.1", f"setsid sh -c '{leave}' & {leave}"]
    client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # People export SLURM_CONF in their shells to ask the cluster.
    mine = subprocess.Popen(["sleep", "600"], env={**os.environ, **cluster.environment()})
    eventually(lambda: pids.exists() and len(pids.read_text().split()) == 5, "the job and the sessions")
    cluster.kill("n1")
    watching = [pid for pid in all_processes() if name_of(pid) == "slurmstepd" and set(children(pid)) & numbers(pids)]
    assert watching, "what watches a job outlives slurmd"
    for pid in watching:
        os.kill(pid, signal.SIGKILL)
    cluster.down()
    left = [pid for pid in numbers(pids) if lives(pid)]
    client.wait(timeout=60)
    assert mine.poll() is None
    mine.kill()
    mine.wait()
    assert left == []


def test_a_block_of_ports_is_given_once(tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "REGISTRY", tmp_path / "registry")
    monkeypatch.setattr(ports, "_BLOCKS", ports._BLOCKS[7:8])
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
        (home / "cluster.json").touch()
    given = ports.reserve(homes[0])
    with pytest.raises(ClusterError, match="no 6 free ports"):
        ports.reserve(homes[1])
    ports.release(homes[1])
    assert ports.registered() == [homes[0]]
    ports.release(homes[0])
    assert ports.reserve(homes[1]) == given
    (homes[1] / "cluster.json").unlink()  # it was removed by hand
    assert ports.reserve(homes[0]) == given


@pytest.mark.timeout(300)
def test_up_clears_what_a_killed_up_has_left(place, tmp_path):
    (tmp_path / "sinfo").write_text("#!/bin/sh\nexit 1\n")  # so that it waits for its nodes until it is killed
    (tmp_path / "sinfo").chmod(0o755)
    command = [SCRIPT, "--dir", place, "up", "--no-accounting"]
    environment = {**os.environ, "PYTHON": sys.executable, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    eventually(lambda: Cluster(place).status().get("sshd"), "the first to be at it")
    assert "is up" in script(place, "up", code=2), "it is still being made"
    first.send_signal(signal.SIGKILL)
    first.wait()
    left = [pid for pid in Cluster(place).status().values() if pid]
    script(place, "up", "--no-accounting", "--min-job-age", "44")
    assert not any(lives(pid) for pid in left)
    assert "MinJobAge=44\n" in (place / "slurm.conf").read_text()


@pytest.mark.timeout(300)
def test_clusters_of_killed_test_runs_are_removed(private_cluster, place):
    owner = subprocess.Popen(["sleep", "600"])
    orphan = Cluster(place, accounting=False, owner=owner.pid)
    orphan.up()
    other = private_cluster(accounting=False)
    assert orphan.home not in remove_abandoned()
    owner.kill()
    owner.wait()
    remove_abandoned()  # or that of a test beside this one
    eventually(lambda: not orphan.home.exists(), "its removal")
    assert all(other.status().values())


@pytest.mark.timeout(300)
def test_a_daemon_that_does_not_come_up_tells_why(private_cluster):
    cluster = private_cluster(accounting=False)
    cluster.kill("slurmctld")
    with cluster.conf.open("a") as file:
        file.write("NoSuchSetting=1\n")
    with pytest.raises(ClusterError, match=r"(?s)slurmctld ended at once.*NoSuchSetting"):
        cluster.start("slurmctld")


@pytest.mark.parametrize("words", [["up"], ["down"], ["kill", "n1"]])
def test_a_directory_with_something_else_is_left_alone(tmp_path, words):
    (tmp_path / "munge").mkdir()
    (tmp_path / "precious").write_text("a thesis")
    said = script(tmp_path, *words, code=0 if words == ["down"] else 2)
    assert words != ["up"] or "Nothing in it was touched" in said
    assert (tmp_path / "precious").read_text() == "a thesis"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["munge", "precious"]


@pytest.mark.parametrize("name", ["with space", "x" * 100, "a#b"])
def test_a_directory_that_slurm_cannot_use_is_refused(tmp_path, name):
    assert "Nothing was started" in script(tmp_path / name, "up", code=2)
    assert not (tmp_path / name).exists()


def test_an_unknown_daemon_is_told(place):
    assert "invalid choice: 'n3'" in script(place, "kill", "n3", code=2)


def test_missing_packages_are_named_with_the_command(place, without_sbatch):
    said = script(place, "up", code=2, PATH=without_sbatch)
    assert "slurm-client. Nothing was started. `scripts/cluster install`" in said


@pytest.mark.parametrize("before", [None, "#!/bin/sh\n# the machine's own\nexit 0\n"])
def test_a_failed_installation_puts_the_machines_own_rule_back(tmp_path, monkeypatch, without_sbatch, before):
    """apt is not the real one here: this machine has everything, and shall keep it."""
    policy, seen = tmp_path / "policy-rc.d", tmp_path / "seen"
    if before:
        policy.write_text(before)
        policy.chmod(0o750)
    apt = Path(without_sbatch, "apt-get")
    apt.unlink(missing_ok=True)
    apt.write_text(f'#!/bin/sh\necho "$@" >>{seen}\n{policy}; echo $? >>{seen}\necho "E: no network"\nexit 100\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", without_sbatch)
    monkeypatch.setattr(installing, "_POLICY", policy)
    with pytest.raises(ClusterError, match=r"(?s)apt-get update.*no network"):
        installing.install()
    words = seen.read_text().splitlines()
    assert words[0].endswith("slurm-client")
    assert set(words[1::2]) == {"101"}, "starts are forbidden while apt is at work"
    if before:
        assert (policy.read_text(), policy.stat().st_mode & 0o777) == (before, 0o750)
    else:
        assert not policy.exists()
    assert [path.name for path in tmp_path.glob("policy*")] == ["policy-rc.d"] * bool(before)


@pytest.mark.parametrize("ci", ["", "true"])
def test_without_packages_these_tests_are_skipped_loudly_and_fail_in_ci(without_sbatch, ci):
    tests = ROOT / "tests/cluster/test_slurm_backend.py"
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", tests, "-k", "secrets or unknown"]
    environment = {**os.environ, "CI": ci, "PATH": without_sbatch}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if ci:
        assert done.returncode == 1
        assert "was skipped, which it must not be in CI" in done.stdout
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "NOT RUN. `scripts/cluster install`" in done.stdout
