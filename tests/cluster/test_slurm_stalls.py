"""Jobs that Slurm will not start as they are: the running controller records it, and ``status`` asks nobody."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from campaign import backend_of, ended, eventually

from journal import JournalError
from matterstack import Task, Workflow, run_workflow
from matterstack.history import History
from matterstack.runtime import worker
from matterstack.runtime.opening import open_journal
from matterstack.runtime.stalls import Stalls

JOURNAL = "journal.db"


def stalled():
    with History(Path(JOURNAL)) as history:
        return [(one.task, one.reason) for one in history.stalled("run")]


def submitted():
    try:
        with open_journal(JOURNAL, create=False, read_only=True) as opened:
            return next((job_id for (job_id,) in opened.query("SELECT job_id FROM tasks") if job_id), None)
    except JournalError:  # it is being made
        return None


@pytest.mark.timeout(200)
def test_a_held_job_is_told_until_it_is_released(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "Stalls", lambda: Stalls(1.0))
    backend = backend_of(cluster, tmp_path / "runs", tmp_path, slurm={"begin": "now+1hour"}, retrieve="none")
    results = []

    def drive():
        results.append(run_workflow(Workflow("run", [Task("true", "one")]), backend=backend, journal=JOURNAL))

    controller = threading.Thread(target=drive)
    controller.start()
    job_id = eventually(submitted, "the submission")
    slurm_id = job_id.partition("@")[0]
    cluster.run(["scontrol", "uhold", slurm_id])
    assert eventually(stalled, "the stall to be recorded") == [("one", "JobHeldUser")]
    cluster.run(["scontrol", "release", slurm_id])
    cluster.run(["scontrol", "update", f"jobid={slurm_id}", "starttime=now"])
    assert ended(backend_of(cluster, tmp_path / "runs", tmp_path), job_id).state == "COMPLETED"
    controller.join(60)
    assert results[0].ok
    assert not stalled()
    with open_journal(JOURNAL, create=False, read_only=True) as opened:
        assert sum(event.type == "JobStalled" for event in opened.read("run")) <= 2
