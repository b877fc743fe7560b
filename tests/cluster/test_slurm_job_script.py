"""The job script under a real Slurm: what sbatch reads in its header, and what Slurm does to a job."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from campaign import backend_of, ended, eventually

from matterstack import Task

sys.path.append(str(Path(__file__).parents[1] / "hpc"))

from job_place import Place

VALUES = [
    *("a b", "a  b", "it's", 'say "x"', "back\\slash", "\\", "#x", "a#b", " lead", "trail ", "$HOME `id` $(id)"),
    *("'\"'", "é😀", "a=b;c&d|e", "--account=x", "=", ":", "[1-3]", "~!*?", "\xa0x", "%j %u", "x" * 900),
]


def submit(cluster, job, *options):
    """Return the id of a job that lies ready, submitted from its workspace."""
    script = f".matterstack/submissions/{job.token}/job.sh"
    done = cluster.run(["sbatch", "--parsable", *options, f"--chdir={job.place.root}", str(job.place.root / script)])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def word(cluster, slurm_id):
    """Return what the queue says of a job."""
    return cluster.run(["squeue", "-h", "-j", slurm_id, "-t", "all", "-o", "%T"]).stdout.strip()


def over(cluster, slurm_id):
    """Return the queue's word for a job that has ended."""
    return eventually(
        lambda: (w := word(cluster, slurm_id)) not in ("PENDING", "RUNNING", "COMPLETING") and w, f"end of {slurm_id}"
    )


def test_sbatch_reads_each_value_of_an_option_as_it_was_given(cluster, tmp_path):
    for number, value in enumerate(VALUES):
        job = Place(tmp_path / str(number), account="acct", comment=value).lone("true")
        slurm_id = submit(cluster, job, "--hold")
        found = cluster.run(["squeue", "-h", "-j", slurm_id, "-o", "%k|%a|%j|"]).stdout
        cluster.run(["scancel", slurm_id])
        assert found == f"{value}|acct|a.ms-a|\n"


@pytest.mark.parametrize("name", ["it's", 'say "x"', "é😀 #x", "$HOME `id`", "-rf", "ends ", "a;b&c"])
def test_a_workspace_may_be_called_nearly_anything(cluster, tmp_path, name):
    backend = backend_of(cluster, tmp_path / name, tmp_path)
    status = ended(backend, job_id := backend.submit(Task("pwd; exit 3", "a")))
    assert (status.state, status.reason, status.exit_code) == ("FAILED", "EXIT_CODE", 3)
    assert backend.get_logs(job_id)["stdout"] == f"{tmp_path / name}/_alone/a/1\n"
    backend.close()


def test_a_module_that_does_not_load_is_told_with_its_words(cluster, tmp_path):
    backend = backend_of(cluster, tmp_path / "w", tmp_path, slurm={"modules": ["no-such-module/1"]})
    status = ended(backend, job_id := backend.submit(Task("echo no", "a")))
    assert (status.state, status.reason) == ("FAILED", "SUBMIT_REFUSED")
    assert backend.get_logs(job_id)["stdout"] == ""
    assert "the command was not started" in backend.get_logs(job_id)["stderr"]
    backend.close()


def test_a_cancelled_job_has_time_to_record_its_end(cluster, tmp_path):
    job = Place(tmp_path / "w", account="acct").lone("echo begun; exec sleep 300")
    slurm_id = submit(cluster, job)
    job.says("begun")
    cluster.run(["scancel", slurm_id])
    assert over(cluster, slurm_id) == "CANCELLED"
    assert (job.exit.exit_code, job.exit.slurm_id, job.exit.flags) == (143, slurm_id, frozenset())


def test_slurm_s_warning_comes_before_the_end_and_not_at_once(cluster, tmp_path):
    """The shortest limit there is, asked for as a user does."""
    job = Place(tmp_path / "w", account="acct").lone("date +%s >began; exec sleep 300", time_limit_minutes=1)
    slurm_id = submit(cluster, job)
    eventually((job.records / "limit-near").exists, "the warning", within_s=110)
    assert word(cluster, slurm_id) == "RUNNING"
    assert (job.records / "limit-near").stat().st_mtime - int((job.directory / "began").read_text()) > 10
    cluster.run(["scancel", slurm_id])
