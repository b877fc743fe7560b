"""What is known of each attempt, as records, lines and a table."""

from __future__ import annotations

import csv
import hashlib
import io
import json

import pytest
from provenance_run import PLOT, SHA

from journal import NewEvent
from matterstack.core import events as ev
from matterstack.errors import UnknownName
from matterstack.history.past import Past
from matterstack.provenance import collect, lines
from matterstack.provenance.records import Controller, Input
from matterstack.runtime import heads, outputs
from matterstack.runtime.opening import open_journal


def by_attempt(run):
    return {(one.task, one.attempt): one for one in run.attempts}


def test_each_attempt_has_who_started_it_from_where_and_with_which_version(journal_path):
    found = by_attempt(collect(journal_path, "scan"))
    assert set(found) == {("relax", 1), ("relax", 2), ("plot", 1)}
    assert found["relax", 1].controller == Controller("ada", "front1", 11, "boot1", "0.1.0")
    assert found["relax", 2].controller == Controller("grace", "front2", 12, "boot2", "0.2.0")
    assert (found["relax", 1].state, found["relax", 1].reason, found["relax", 1].signal) == (
        "FAILED",
        "OUT_OF_MEMORY",
        9,
    )
    assert (found["relax", 2].node, found["relax", 2].job_id) == ("nid2", "72")


def test_resources_modules_and_container_are_those_of_the_profile_that_ran_it(journal_path):
    found = by_attempt(collect(journal_path))
    relax, plot = found["relax", 2], found["plot", 1]
    assert relax.resources == {"cores": 16, "account": "m1", "partition": "regular"}
    assert (relax.modules, relax.container, relax.backend) == (["module load vasp/6.3"], "docker://vasp:6", "slurm")
    assert (plot.modules, plot.container, plot.backend) == ([], "", "local")  # which ignores an image
    assert relax.usage["cpu_s"] == 100.0
    assert relax.environment == {"OMP_NUM_THREADS": "1"}


def test_hashes_of_inputs_command_and_outputs(journal_path):
    found = by_attempt(collect(journal_path))
    text = Input("INCAR", hashlib.sha256(b"ENCUT = 500\n").hexdigest(), 12)
    assert found["relax", 2].inputs == [text, Input("POSCAR", SHA, 7, "/home/u/POSCAR")]
    assert found["relax", 2].outputs["run.xml"].sha256 == "cd" * 32
    assert found["relax", 1].outputs is None  # not recorded is not nothing
    assert found["plot", 1].inputs == [Input("in", "cd" * 32, 99, task="relax", output="run.xml")]
    assert found["plot", 1].command_sha256 == hashlib.sha256(b"plot 'a b'").hexdigest()


def test_the_head_is_that_of_the_run_and_the_events_are_all_of_it(journal_path):
    run = collect(journal_path, events=True)
    with open_journal(journal_path) as journal:
        end = journal.head("scan")
    assert run.head == f"ms1:scan:{end.version}:{end.hash.hex()}"
    assert json.loads(run.events[-1])["hash"] == end.hash.hex()
    assert len(run.events) == end.version


@pytest.mark.parametrize(
    ("owner", "name"), [(outputs, "recorded"), (Past, "view"), (Past, "attempts"), (Past, "runs"), (heads, "head")]
)
def test_a_controller_may_go_on_meanwhile(journal_path, monkeypatch, owner, name):
    asked = getattr(owner, name)

    def overtaken(*arguments, **options):
        found = asked(*arguments, **options)
        with open_journal(journal_path) as journal:
            for event in (ev.TaskChanged(1, "h3", PLOT), ev.SubmitRequested(2, "t4")):
                journal.append("scan", [NewEvent(type(event).__name__, "scan/plot", ev.encode(event))])
        return found

    monkeypatch.setattr(owner, name, overtaken)
    run = collect(journal_path, events=True)
    assert run.head.split(":")[2] == str(len(run.events))


def test_nothing_of_the_way_to_the_cluster_is_exported(journal_path):
    assert "secret" not in "".join(lines.jsonl(collect(journal_path)))


def test_lines_and_table_tell_the_same(journal_path):
    run = collect(journal_path)
    told = [json.loads(line) for line in lines.jsonl(run)]
    rows = list(csv.DictReader(io.StringIO("".join(lines.table(run)))))
    assert len(told) == len(rows) == 3
    for record, row in zip(told, rows, strict=True):
        assert (row["task"], int(row["attempt"])) == (record["task"], record["attempt"])
        assert json.loads(row["inputs"]) == record["inputs"]
        assert row["outputs"] == ("" if record["outputs"] is None else row["outputs"])
        assert row["controller_user"] == record["controller"]["user"]


def test_an_unknown_run_is_refused(journal_path):
    with pytest.raises(UnknownName, match="scan"):
        collect(journal_path, "scam")
