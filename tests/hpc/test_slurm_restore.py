"""A journal restored from an older copy finds its jobs instead of running them again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from campaigns import check_journal, states
from test_slurm_crash_points import WAITS

from matterstack import Task, Workflow, run_workflow
from matterstack.runtime.backends.hpc import SlurmBackend
from matterstack.runtime.opening import open_journal


def campaign(here):
    """Return three at once, and three after the first of them; all but the first wait for the gate."""
    wait = f"while [ ! -e {here}/gate ]; do sleep 0.05; done"
    flow = Workflow("w", [Task(f"echo started >>{here}/log/first", "first")])
    for i in range(2):
        flow.add(Task(f"echo started >>{here}/log/slow{i}; {wait}", f"slow{i}"))
    for i in range(3):
        flow.add(Task(f"echo started >>{here}/log/next{i}; {wait}", f"next{i}", dependencies=["first"]))
    return flow


def drive(here, **options):
    backend = SlurmBackend(None, str(here / "workspace"), results_root=here / "results", waits=WAITS)
    result = run_workflow(campaign(here), backend=backend, journal=here / "j.db", **options)
    backend.close()
    return result


def first_controller(here, copy_at):
    """Drive until all that can run does, copy the journal on the way, and die."""

    def watch(progress):
        counts = {str(state): n for state, n in progress.counts.items()}
        moments = {"nothing": True, "submitted": counts["RUNNING"] > 0, "first done": counts["COMPLETED"] == 1}
        if not (here / "copy.db").exists() and moments[copy_at]:
            with open_journal(here / "j.db", create=False) as opened:
                opened.backup(here / "copy.db")
        elif counts["RUNNING"] == 5:
            os._exit(9)

    drive(here, progress=watch)


@pytest.mark.parametrize("copy_at", ["nothing", "submitted", "first done"])
def test_what_was_submitted_after_the_copy_is_adopted(tmp_path, slurm, copy_at):
    (tmp_path / "log").mkdir()
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path[:0] = {[str(here), str(here.parent / 'runtime')]!r}; from pathlib import Path; "
        f"import test_slurm_restore as me; me.first_controller(Path({str(tmp_path)!r}), {copy_at!r})"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 9
    for name in ("j.db", "j.db-wal", "j.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "copy.db", tmp_path / "j.db")
    threading.Timer(2.0, (tmp_path / "gate").touch).start()
    result = drive(tmp_path)
    assert set(states(result).values()) == {"COMPLETED"}, [(one, one.detail) for one in result.values()]
    assert {path.name: path.read_text() for path in (tmp_path / "log").iterdir()} == dict.fromkeys(
        ["first", "slow0", "slow1", "next0", "next1", "next2"], "started\n"
    )
    check_journal(tmp_path / "j.db")


def test_records_of_a_run_of_this_name_in_another_journal_are_not_ours(tmp_path, slurm):
    def run(journal):
        backend = SlurmBackend(None, str(tmp_path / "workspace"), results_root=tmp_path / f"of {journal}", waits=WAITS)
        result = run_workflow(Workflow("w", [Task("echo ran", "a")]), backend=backend, journal=tmp_path / journal)
        backend.close()
        return states(result)

    assert run("one.db") == {"a": "COMPLETED"}
    assert run("two.db") == {"a": "LOST"}
