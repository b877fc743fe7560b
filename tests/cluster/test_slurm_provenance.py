"""What is recorded, proved and exported of a campaign on a real Slurm, with a failure and a budget."""

from __future__ import annotations

import getpass
import json

import pytest
from campaign import backend_of

from matterstack import OutputRef, Task, Workflow, resume, run_workflow
from matterstack.cli.main import main
from matterstack.provenance import collect

JOURNAL = "journal.db"


def said(capsys, *words):
    """Return exit code and answer of a command in JSON."""
    code = main([words[0], "--journal", JOURNAL, *words[1:], "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.timeout(300)
def test_outputs_are_recorded_proved_and_exported(cluster, tmp_path, capsys):
    backend = backend_of(cluster, tmp_path / "runs", tmp_path, slurm={"modules": []})
    tasks = [
        Task("echo 4 >n", "make", outputs=["n"]),
        Task("cat n n >twice", "sum", outputs=["twice"], files={"n": OutputRef("make", "n")}),
        Task("exit 3", "bad"),
    ]
    assert not run_workflow(Workflow("run", tasks), backend=backend, journal=JOURNAL).ok
    code, answer = said(capsys, "verify", "run", "--files", "--head")
    assert (code, answer["files"]["files"], answer["files"]["findings"]) == (0, 2, [])
    records = {record.task: record for record in collect(JOURNAL).attempts}
    assert records["sum"].inputs[0].sha256 == records["make"].outputs["n"].sha256
    assert records["sum"].resources["account"] == "acct"
    assert records["bad"].controller.user == getpass.getuser()
    assert (records["bad"].exit_code, records["bad"].node[:1]) == (3, "n")
    assert said(capsys, "verify", "run", "--expect", answer["head"])[1]["expected"]["ok"]
    (kept,) = (tmp_path / "results").rglob("twice")
    kept.write_text("44\n")
    code, answer = said(capsys, "verify", "run", "--files")
    assert (code, [one["what"] for one in answer["files"]["findings"]]) == (1, ["changed"])


@pytest.mark.timeout(300)
def test_a_budget_holds_back_what_is_not_submitted(cluster, tmp_path):
    """Each task uses a core for some seconds, and there is a budget of less than the first one."""
    backend = backend_of(cluster, tmp_path / "runs", tmp_path)
    tasks = [Task("sleep 2", "t0"), *(Task("true", f"t{n}", dependencies=[f"t{n - 1}"]) for n in (1, 2))]
    stopped = run_workflow(Workflow("run", tasks), backend=backend, journal=JOURNAL, budget_core_hours=1e-4)
    assert [str(stopped[f"t{n}"].state) for n in range(3)] == ["COMPLETED", "PENDING", "PENDING"]
    assert stopped.budget
    assert resume("run", backend=backend, journal=JOURNAL, budget_core_hours=1.0).ok
