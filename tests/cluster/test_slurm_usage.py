"""What the real accounting says that jobs used, as the journal and the ledger have it after a run."""

from __future__ import annotations

import pytest
from campaign import backend_of

from matterstack import Task, Workflow, run_workflow
from matterstack.history.past import Past
from matterstack.runtime.backends.hpc.usage import OFF

JOURNAL = "journal.db"
# Holds 50 MB for longer than the sampling interval of a second, and computes for a second of CPU time.
# For 4.2 s or more: between whole seconds, as Slurm counts them, that is 4.
WORK = (
    'exec python3 -c "import time; x = bytearray(50_000_000); e = time.process_time() + 1.2\n'
    'while time.process_time() < e: pass\ntime.sleep(3)"'
)


def used(path=JOURNAL):
    with Past(path) as past:
        return {row.task: row for row in past.view("history_attempt_usage")}


def told(backend, workflow):
    """Return what accounting told; it may be later than a run waits for it, and the next controller asks again."""
    for _ in range(30):
        run_workflow(workflow, backend=backend, journal=JOURNAL)
        if all(row.source != "events" for row in used().values()):
            break
    return used()


@pytest.mark.timeout(200)
def test_memory_and_cpu_time_are_those_of_the_job(cluster, tmp_path):
    backend = backend_of(cluster, tmp_path / "runs", tmp_path)
    tasks = [Task(WORK, "big", memory_gb=0.2, time_limit_minutes=5), Task("exit 3", "bad")]
    rows = told(backend, Workflow("run", tasks))
    big, bad = rows["big"], rows["bad"]
    assert big.source == bad.source == "sacct"
    assert 50e6 < big.max_rss_b < 150e6
    assert 1.0 < big.cpu_s < 4.0
    assert (big.cpus, big.account, big.restarts, big.exit_code) == (1, "acct", 0, 0)
    assert big.submit <= big.start < big.end
    assert 3.0 < big.elapsed_s < 30
    assert big.nodes
    assert big.partition
    assert (bad.exit_code, bad.asked_memory_b) == (3, None)
    with Past(JOURNAL) as past:
        (row,) = past.ledger("account")
        (relative,) = past.ledger("task", task="big")
    assert (row.key, row.attempts, row.failed) == ("acct", 2, 1)
    assert 0.05 <= relative.used_memory_gb <= relative.suggested_memory_gb <= 0.3
    assert 0.05 < relative.cpu_efficiency < 1.1


@pytest.mark.timeout(200)
def test_without_accounting_it_is_null_and_says_why(private_cluster, tmp_path):
    cluster = private_cluster(accounting=False)
    backend = backend_of(cluster, tmp_path / "runs", tmp_path)
    one = told(backend, Workflow("run", [Task("true", "one")]))["one"]
    assert (one.unknown, one.source, one.max_rss_b, one.cpu_s) == (OFF, "", None, None)
    assert one.elapsed_s is not None
