"""``report usage``: the ledger on the command line, of real local runs."""

import json

import pytest

from journal import NewEvent
from matterstack import Task, Workflow, run_workflow
from matterstack.cli import main as command_line
from matterstack.core import events as ev
from matterstack.core.usage import Usage
from matterstack.history import ledger
from matterstack.history.past import Past
from matterstack.runtime.opening import open_journal

GB = 1_000_000_000
USED = Usage("sacct", elapsed_s=3600.0, cpus=4, cpu_s=7200.0, max_rss=2 * GB, account="acct", submit=100.0, start=160.0)


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """A local run of three tasks; of two of them what they used is recorded, as a Slurm backend would."""
    monkeypatch.chdir(tmp_path)
    tasks = [Task("true", "relax-1"), Task("exit 3", "relax-2"), Task("true", "sum", memory_gb=1.5)]
    run_workflow(Workflow("scan", tasks))
    with open_journal(tmp_path / ".matterstack/journal.db", create=False) as opened:
        for task in ("relax-1", "relax-2"):
            event = ev.UsageRecorded(1, USED, 4, 8 * GB, 7200.0)
            opened.append("scan", [NewEvent("UsageRecorded", f"scan/{task}", ev.encode(event))])
    return tmp_path


def told(capsys, *arguments):
    from matterstack.cli.main import main

    code = main(["report", *arguments])
    return code, *capsys.readouterr()


def test_the_ledger_by_task(campaign, capsys):
    code, out, _ = told(capsys, "usage", "--by", "task", "--json")
    assert code == 0
    relax, alone = json.loads(out)["rows"]
    assert (relax["key"], relax["attempts"], relax["failed"]) == ("relax-*", 2, 1)
    assert (relax["core_hours"], relax["wasted_core_hours"], relax["cpu_efficiency"]) == (8.0, 4.0, 0.5)
    assert (relax["queue_wait_mean_s"], relax["unmeasured"]) == (pytest.approx(60.0, abs=0.01), 0)
    assert (relax["asked_memory_gb"], relax["used_memory_gb"], relax["suggested_memory_gb"]) == (8.0, 2.0, 2.4)
    assert (relax["asked_minutes"], relax["used_minutes"], relax["suggested_minutes"]) == (120.0, 60.0, 72)
    assert (alone["asked_memory_gb"], alone["used_memory_gb"], alone["unmeasured"]) == (1.5, None, 1)


def test_waste_by_reason_and_only_one_account(campaign, capsys):
    rows = json.loads(told(capsys, "usage", "--by", "reason", "--account", "acct", "--json")[1])["rows"]
    assert {row["key"]: row["wasted_core_hours"] for row in rows} == {"": 0.0, "EXIT_CODE": 4.0}


def test_the_table_names_what_is_not_known(campaign, capsys):
    code, out, _ = told(capsys, "usage", "--task", "sum")
    assert code == 0
    assert "scan  1" in out
    assert "Of 1 attempt memory or CPU time is not known" in out


def test_nothing_that_fits_is_no_error(campaign, capsys):
    assert told(capsys, "usage", "--account", "none")[:2] == (0, "No attempt that fits has ended.\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["usage", "--run", "scam"], "no run 'scam'"),
        (["usage", "--task", "sun"], "no task 'sun'"),
        (["usage", "-o", "x"], "--output goes with the page"),
        (["scan", "--account", "a"], "--account goes with `matterstack report usage`"),
    ],
)
def test_bad_input_is_told(campaign, capsys, arguments, words):
    code, out, err = told(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert not list(campaign.glob("*.html"))


def test_a_second_record_of_an_attempt_changes_nothing(campaign):
    again = ev.UsageRecorded(1, Usage("sacct", cpus=99))
    with open_journal(campaign / ".matterstack/journal.db", create=False) as opened:
        opened.append("scan", [NewEvent("UsageRecorded", "scan/relax-1", ev.encode(again))])
    with Past(campaign) as past:
        assert [row.cpus for row in past.view("history_attempt_usage") if row.task == "relax-1"] == [4]
        assert past.ledger("run")[0].core_hours == pytest.approx(8.0, abs=0.01)


@pytest.mark.parametrize(
    ("task", "expected"), [("relax-007", "relax-*"), ("a1-2.5b", "a*b"), ("sum", "sum"), ("3", "*")]
)
def test_patterns(task, expected):
    assert ledger.pattern_of(task) == expected


def test_what_the_command_line_offers_is_what_the_ledger_can_sum_up_by():
    """Its parser imports nothing of the history, so that `--help` is quick."""
    assert set(command_line.BY) == set(ledger.BY)
