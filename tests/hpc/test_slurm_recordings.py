"""What a real Slurm said (``record.py`` tells how it was asked), read by the parsers and concluded from."""

import json
from pathlib import Path

import pytest

from matterstack.core.evidence import Absence, SlurmEvidence
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING
from matterstack.core.reconcile import Verdict, slurm_status, slurm_verdict
from matterstack.core.slurm_words import ENDING, UNKNOWN, WAITING, kind_of
from matterstack.runtime.backends.hpc import site
from matterstack.runtime.backends.hpc.accounting import newest, read_accounting
from matterstack.runtime.backends.hpc.queue import read_queue
from matterstack.runtime.backends.hpc.replies import read_reply
from matterstack.runtime.backends.hpc.slurm import answer_of

RECORDINGS = {
    f"{path.stem}-{record['id']}": record
    for path in sorted((Path(__file__).parent / "recordings").glob("*.json"))
    for record in json.loads(path.read_text())["recordings"]
}


def recorded(*kinds):
    return [pytest.param(record, id=name) for name, record in RECORDINGS.items() if record["kind"] in kinds]


def one(what):
    return next(record for name, record in RECORDINGS.items() if name.endswith(f"-{what}"))


def by_name(rows):
    """Return what the rows say by name, and by index within it for the elements of arrays."""
    found = {}
    for row in rows:
        if row.index is None:
            found[row.name] = row
        else:
            found.setdefault(row.name, {})[str(row.index)] = row
    return found


def matched(expect, found, value):
    return expect == {
        name: {index: value(row) for index, row in found[name].items()}
        if isinstance(found.get(name), dict)
        else value(found[name])
        for name in expect
    }


def test_everything_that_was_planned_is_recorded():
    assert {record["kind"] for record in RECORDINGS.values()} == {"queue", "accounting", "sbatch", "silent", "site"}
    assert len(RECORDINGS) > 40


@pytest.mark.parametrize("record", recorded("queue"))
def test_the_queue_is_read(record):
    assert answer_of(record["exit_code"], record["stderr"]) == "yes"
    assert matched(record["expect"], by_name(read_queue(record["stdout"])), lambda row: row.word)


@pytest.mark.parametrize("record", recorded("accounting"))
def test_accounting_is_read(record):
    assert answer_of(record["exit_code"], record["stderr"]) == "yes"
    rows = newest(read_accounting(record["stdout"])).values()
    found = by_name(rows)
    if "allocation" in found:  # accounting had just heard of it, and knew its end before its name
        (name,) = record["expect"]
        found[name] = found.pop("allocation")
    assert matched(record["expect"], found, lambda row: [row.word, row.exit_code, row.signal, row.cancelled_by])


@pytest.mark.parametrize("record", recorded("sbatch"))
def test_replies_of_sbatch_are_read(record):
    reply = read_reply(record["exit_code"], record["stdout"], record["stderr"])
    assert type(reply).__name__ == record["expect"], reply


@pytest.mark.parametrize("record", recorded("silent"))
def test_whether_it_answered_is_known(record):
    assert answer_of(record["exit_code"], record["stderr"]) == record["expect"]
    assert not read_queue(record["stdout"])
    assert not read_accounting(record["stdout"])


@pytest.mark.parametrize("record", recorded("queue", "accounting"))
def test_recorded_words_are_all_known(record):
    rows = read_queue(record["stdout"]) + read_accounting(record["stdout"])
    assert UNKNOWN not in {kind_of(row.word) for row in rows}


def test_a_refused_submission_leaves_traces_that_are_no_jobs():
    traces = one("accounting-refused")["stdout"]
    assert [(row.word, row.refused) for row in read_accounting(traces)][-1] == ("FAILED", True)
    assert not newest(read_accounting(traces))
    queue = one("queue-refused")["stdout"]
    assert "reply.ms-memory#" in queue
    assert "reply.ms-memory" not in by_name(read_queue(queue))


def row_of(what, name):
    record = one(what)
    read = read_queue if record["kind"] == "queue" else lambda text: newest(read_accounting(text)).values()
    return by_name(read(record["stdout"]))[f"{name}.ms-{name}"]


def evidence(name, queue="", accounting="accounting-ended", **more):
    """Return what Slurm said of a job at some moment, with our own witnesses as given."""
    row = row_of(queue, name) if queue else None
    account = row_of(accounting, name) if accounting else None
    return SlurmEvidence(
        row.word if row else "",
        row.reason if row else "",
        account.word if account else "",
        account.exit_code if account else None,
        account.signal if account else None,
        account is not None and account.cancelled_by is not None,
        accounting_answered=account is not None,
        **{"absent": Absence.NO if row and kind_of(row.word) is not WAITING else Absence.BRIEF} | more,
    )


def ended(name, **more):
    status = slurm_status(evidence(name, **{"claimed": True} | more))
    return status.state, status.reason, status.exit_code, status.signal


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [
        ("done", {"exit_code": 0}, (COMPLETED, "", 0, None)),
        ("fail", {"exit_code": 3}, (FAILED, "EXIT_CODE", 3, None)),
        ("fail", {}, (FAILED, "EXIT_CODE", 3, None)),
        ("killed", {}, (FAILED, "EXIT_CODE", None, 9)),
        ("hungry", {}, (FAILED, "EXIT_CODE", None, 9)),
        ("nodir", {"claimed": False}, (FAILED, "SUBMIT_REFUSED", None, None)),
        ("early", {"claimed": False}, (FAILED, "CANCELLED", None, None)),
        ("late", {}, (FAILED, "CANCELLED", None, None)),
        ("stubborn", {"exit_code": 137}, (FAILED, "CANCELLED", 137, 9)),
        ("failing", {"absent": Absence.SETTLED}, (FAILED, "NODE_FAIL", None, None)),
        ("ousted", {"absent": Absence.SETTLED}, (FAILED, "PREEMPTED", None, None)),
        ("limit", {"accounting": "accounting-limit"}, (FAILED, "TIMEOUT", None, None)),
        ("limit", {"accounting": "accounting-limit", "exit_code": 143}, (FAILED, "TIMEOUT", 143, 15)),
    ],
)
def test_recorded_ends_add_up(name, more, expected):
    assert ended(name, **more) == expected


@pytest.mark.parametrize("name", ["done", "failing", "ousted", "refusing"])
def test_recorded_ends_that_might_not_be_are_waited_for(name):
    assert slurm_verdict(evidence(name, claimed=True)) is Verdict.AS_BEFORE


def test_recorded_live_jobs_are_live():
    states = {
        name: slurm_status(evidence(name, "queue-live", "", absent=Absence.NO)).state
        for name in ("late", "limit", "frozen", "held")
    }
    assert states == {"late": RUNNING, "limit": RUNNING, "frozen": RUNNING, "held": PENDING}


def test_a_job_being_ended_is_not_over():
    e = evidence("stubborn", "queue-completing", "", claimed=True, absent=Absence.NO)
    assert kind_of(e.queue) is ENDING
    assert slurm_verdict(e) is RUNNING


def test_a_preempted_job_that_waits_again_has_not_ended():
    e = evidence("again", "queue-preempted", "", claimed=True, requeue=True, absent=Absence.NO)
    assert (e.queue, slurm_verdict(e)) == ("PENDING", PENDING)
    assert slurm_verdict(evidence("again", accounting="accounting-put-back", claimed=True)) is Verdict.AS_BEFORE
    starts = [row.word for row in read_accounting(one("accounting-put-back")["stdout"]) if row.name == "again.ms-again"]
    assert sorted(starts) == ["PENDING", "PREEMPTED"]


def test_the_site_is_read():
    settings = site.read_settings(one("settings")["stdout"])
    assert settings.version.count(".") == 2
    assert settings.accounting
    assert min(settings.min_job_age_s, settings.message_timeout_s, settings.max_array_size, settings.max_job_count) > 1
    partitions = site.read_partitions(one("partitions")["stdout"])
    assert [(found.name, found.up, found.default, found.nodes) for found in partitions] == [
        ("work", True, True, 2),
        ("urgent", True, False, 2),
    ]
    assert partitions[0].time_limit_s is None
    assert site.read_limits(one("limits")["stdout"])[0].default_qos in ("", "normal")
    (normal,) = site.read_qos(one("qos-limited")["stdout"])
    assert (normal.name, normal.max_submit, normal.max_jobs) == ("normal", 2, None)
