"""The public corpus of Slurm's outputs, read where it lies; no answer in it may lead to a false end."""

import json
import re
from pathlib import Path

import pytest

from matterstack.core.evidence import Absence, SlurmEvidence
from matterstack.core.machine import COMPLETED, FAILED, PENDING, RUNNING
from matterstack.core.reconcile import slurm_status, slurm_verdict
from matterstack.core.slurm_words import END, ENDING, UNKNOWN, WAITING, kind_of, plain_word
from matterstack.core.slurm_words import RUNNING as RUNS
from matterstack.runtime.backends.hpc.accounting import read_accounting
from matterstack.runtime.backends.hpc.queue import read_queue
from matterstack.runtime.backends.hpc.replies import Accepted, Doubt, Held, Refused, read_reply
from matterstack.runtime.backends.hpc.slurm import Answer, answer_of, split_id

CORPUS = Path(__file__).parents[2] / "../shared/corpus/slurm"
HERE = (CORPUS / "cases.json").is_file()
pytestmark = pytest.mark.skipif(not HERE, reason="the corpus of Slurm outputs is not beside this repository")
CASES = json.loads((CORPUS / "cases.json").read_text()) if HERE else []
STATES = json.loads((CORPUS / "states.json").read_text())["states"] if HERE else []
# Flags that are never shown alone: where one stands as a word, it says nothing.
HIDDEN = {"LAUNCH_FAILED", "GETENV_FAILED", "POWER_UP_NODE", "RECONFIG_FAIL", "UPDATE_DB", "?"}


def cases(*kinds):
    return [pytest.param(case, id=case["id"]) for case in CASES if case["kind"] in kinds]


def text_of(case):
    return case["stdout"] or "", case["stderr"] or ""


# ---- states -----------------------------------------------------------------------------------------

MEANING = {WAITING: "pending", RUNS: "running", ENDING: "running", UNKNOWN: "unknown"}


def meaning(word):
    """Return what a word means in the corpus' coarse terms."""
    kind = kind_of(word)
    ends = {"COMPLETED": "completed", "CANCELLED": "cancelled", "REVOKED": "cancelled"}
    return MEANING[kind] if kind is not END else ends.get(plain_word(word), "failed")


@pytest.mark.parametrize("state", [pytest.param(state, id=state["name"]) for state in STATES])
def test_every_state_of_slurm_means_what_it_should(state):
    if state["name"] in HIDDEN:
        assert kind_of(state["name"]) is UNKNOWN
        return
    forms = [state["name"], *([state["compact"]] if re.fullmatch(r"[A-Z]+", state["compact"]) else [])]
    for form in forms:
        assert meaning(form) == state["state"], form
        if state["final"] is False:
            assert kind_of(form) is not END, form
        if state["final"] is True:
            assert kind_of(form) is END, form


# ---- submissions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("sbatch"))
def test_replies_of_sbatch(case):
    expect = case["expect"]
    reply = read_reply(case["exit_code"], *text_of(case))
    outcome = {Accepted: "accepted", Refused: "rejected", Held: "rejected", Doubt: "ambiguous"}[type(reply)]
    assert outcome in {expect["outcome"], *expect.get("accept", ())} | (
        {"accepted"} if expect["outcome"] == "test_only" else set()
    ), reply
    if isinstance(reply, Accepted):
        assert (reply.slurm_id, reply.cluster) == (expect["job_id"], expect.get("cluster") or "")
    if isinstance(reply, Refused):
        assert expect["retryable"] in (False, *expect.get("accept_retryable", ())), reply
    if isinstance(reply, Held):
        assert expect["retryable"] is True, reply


# ---- failing queries --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for c in CASES if "query_ok" in c["expect"]])
def test_a_query_that_failed_is_no_answer(case):
    answer = answer_of(case["exit_code"], case["stderr"] or "")
    if case["expect"].get("error_class") == "malformed_output":
        return  # exit code 0 and a cut row: the readers leave it out
    if case["expect"].get("error_class") == "accounting_disabled":
        assert answer is Answer.OFF
    else:
        assert (answer is Answer.YES) == case["expect"]["query_ok"]


@pytest.mark.parametrize("case", cases("error", "squeue", "sacct", "scontrol", "scancel", "sbatch"))
def test_an_output_of_another_format_is_no_row_of_ours(case):
    for text in text_of(case):
        assert not read_queue(text)
        assert not read_accounting(text)


# ---- job states -------------------------------------------------------------------------------------


def judged():
    for case in CASES:
        for job, expect in (case["expect"].get("jobs") or {}).items():
            if case["kind"] in ("squeue", "sacct", "scontrol") and expect.get("slurm_state"):
                yield pytest.param(case, job, expect, id=f"{case['id']}-{job}")


JUDGED = list(judged())
ABSENT_FOR = [Absence.BRIEF, Absence.GRACE]


@pytest.mark.parametrize(("case", "job", "expect"), JUDGED)
def test_no_answer_leads_to_a_false_end(case, job, expect):
    """Each word as the corpus has it, as the only witness, in the place where it was said."""
    words = [expect["slurm_state"], *expect.get("flags", ())]
    word = next((flag for flag in words[1:] if kind_of(flag) is not END), words[0])  # a flag is shown before the state
    state = meaning(word)
    assert state in {expect["state"], *expect.get("accept", ())}, word
    place = "accounting" if case["kind"] == "sacct" else "queue"
    for claimed in (False, True):
        for absent in ABSENT_FOR:
            e = SlurmEvidence(
                **{place: word},
                claimed=claimed,
                accounting_answered=place == "accounting",
                accounting_exit_code=expect.get("exit_code"),
                accounting_signal=expect.get("signal"),
                by_user=expect.get("cancelled_by_uid") is not None,
                absent=absent,
            )
            verdict = slurm_verdict(e)
            assert verdict is not COMPLETED, "only our own record tells that"
            if expect["final"] is not True:
                assert verdict in (PENDING, RUNNING, "as before"), (expect, e)
            elif verdict is FAILED and expect["state"] == "failed":
                assert slurm_status(e).reason not in ("CANCELLED", "LOST"), e


@pytest.mark.parametrize(("case", "job", "expect"), JUDGED)
def test_ids_are_read_in_every_form(case, job, expect):
    assert split_id(job) is not None
    for row in case["expect"].get("ignore_rows", ()):
        assert split_id(row) is None


@pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for c in CASES if "job_id_ranges" in c["expect"]])
def test_ranges_of_elements(case):
    shown = split_id(case["stdout"].splitlines()[1])
    wanted = [
        index
        for _, *span in case["expect"]["job_id_ranges"]
        for index in (range(span[0], span[-1] + 1) if span else ())
    ]
    assert shown == (str(case["expect"]["job_id_ranges"][0][0]), tuple(wanted) or None)


def test_a_row_that_is_cut_is_no_row():
    for case in (case for case in CASES if case["expect"].get("error_class") == "malformed_output"):
        assert not read_accounting(case["stdout"])


def test_the_corpus_is_all_there():
    assert len(CASES) >= 124
    assert len(JUDGED) > 100
