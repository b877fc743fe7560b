"""Submission that happens once, against a Slurm that loses replies, refuses, holds and forgets."""

from __future__ import annotations

import time

import pytest

from matterstack import Task
from matterstack.errors import (
    AccessError,
    BackendUnavailable,
    SubmitAbsentError,
    SubmitHeld,
    SubmitInDoubt,
    SubmitRefusedError,
    TransportError,
)
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc.batch import batches, index_list
from matterstack.runtime.backends.hpc.layout import job_name
from matterstack.runtime.backends.hpc.remote import Remote
from matterstack.runtime.backends.hpc.submitting import Submitter
from matterstack.runtime.backends.hpc.waits import Waits
from matterstack.runtime.transports.local import LocalTransport

REFUSAL = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n"
LIMIT = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)\n"
)


@pytest.fixture
def slurm(slurm):
    slurm.order("hold")
    return slurm


@pytest.fixture
def submitter(tmp_path):
    """Makes submitters, each as another controller would."""

    def make(transport=None, staged=None, **waits):
        root = tmp_path / "workspace"

        def stage(todo):
            for batch in todo:
                if staged is not None:
                    staged.append(batch.name)
                place = root / ".matterstack/submissions" / batch.token
                place.mkdir(parents=True, exist_ok=True)
                (place / "job.sh").write_text(f"#!/bin/sh\n#SBATCH --job-name={batch.name}\nexit 0\n")
            return {}

        remote = Remote(transport or LocalTransport(), str(root), 60)
        return Submitter(remote, Waits(**{"settle_s": 1000.0, "again_s": 0.2, **waits}), stage)

    return make


def lone(task_id="a", gen=1, **more):
    return Submission(Task("true", task_id), "run", 1, f"ms-{task_id}", gen=gen, **more)


def elements(count, **more):
    return [
        Submission(Task("true", f"t{i}"), "run", 1, f"ms-t{i}", array="ms-array", index=i, **more) for i in range(count)
    ]


class LosingTransport(LocalTransport):
    """Carries out what it is given, and then loses the answer once."""

    lost = False

    def run(self, script, **more):
        reply = super().run(script, **more)
        if "try_one submit" in script and not self.lost:
            self.lost = True
            raise TransportError("host", "cut", started=True)
        return reply


def test_a_submission_gives_slurms_id_and_its_directory(slurm, submitter):
    assert submitter().submit([lone()]) == ["1@run/a/1"]
    assert [job.name for job in slurm.jobs()] == ["1"]


def test_an_array_is_one_call_with_an_id_for_each_element(slurm, submitter):
    assert submitter().submit(elements(3)) == ["1_0@run/t0/1", "1_1@run/t1/1", "1_2@run/t2/1"]
    assert slurm.calls("sbatch") == 1


def test_many_submissions_are_one_remote_command(slurm, submitter):
    class Counting(LocalTransport):
        calls = 0

        def run(self, script, **more):
            Counting.calls += 1
            return super().run(script, **more)

    answers = submitter(Counting()).submit([lone(f"x{i}") for i in range(7)])
    assert sorted(answers) == [f"{i + 1}@run/x{i}/1" for i in range(7)]
    assert Counting.calls == 1


@pytest.mark.parametrize("what", [lone(), *elements(1)])
def test_submitting_again_gives_the_same_job(slurm, submitter, what):
    (first,) = submitter().submit([what])
    again = Submission(**{**{f: getattr(what, f) for f in what.__struct_fields__}, "again": True})
    assert submitter().submit([again]) == [first]
    assert slurm.calls("sbatch") == 1


def test_a_lost_answer_is_read_from_the_receipt(slurm, submitter):
    losing = submitter(LosingTransport())
    with pytest.raises(TransportError):
        losing.submit([lone(), lone("b")])
    assert losing.submit([lone(again=True), lone("b", again=True)]) == ["1@run/a/1", "2@run/b/1"]
    assert slurm.calls("sbatch") == 2


def test_a_job_that_sbatch_denied_is_found_by_its_name(slurm, submitter):
    slurm.order("lose")
    (answer,) = submitter().submit([lone()])
    assert isinstance(answer, SubmitInDoubt)
    assert submitter().submit([lone(again=True)]) == ["1@run/a/1"]
    assert slurm.calls("sbatch") == 1


def test_a_job_that_only_accounting_shows_is_found(slurm, submitter):
    slurm.order("lose")
    submitter().submit([lone()])
    (job,) = slurm.jobs()
    for name, text in {"word": "COMPLETED", "start": "1000", "end": "1003"}.items():
        (job / name).write_text(text)
    slurm.order("purge")
    assert submitter().submit([lone(again=True)]) == ["1@run/a/1"]


def test_a_job_that_only_its_own_claim_shows_is_found(slurm, submitter, tmp_path):
    slurm.order("lose")
    slurm.order("off")
    submitter().submit([lone()])
    slurm.forget(slurm.jobs()[0])
    records = tmp_path / "workspace/run/a/1/.matterstack"
    records.mkdir(parents=True)
    (records / "claim").write_text("ms1 ms-a 1 0 100.0 n1 77 .\n")
    assert submitter().submit([lone(again=True)]) == ["1@run/a/1"]
    assert slurm.calls("sbatch") == 1


def test_a_claim_of_another_attempt_is_not_believed(slurm, submitter, tmp_path):
    slurm.order("lose")
    submitter().submit([lone()])
    slurm.forget(slurm.jobs()[0])
    records = tmp_path / "workspace/run/a/1/.matterstack"
    records.mkdir(parents=True)
    (records / "claim").write_text("ms1 ms-other 1 0 100.0 n1 77 .\n")
    assert isinstance(submitter().submit([lone(again=True)])[0], SubmitInDoubt)


def test_nothing_is_submitted_again_before_the_settling_time(slurm, submitter):
    slurm.order("lose")
    one = submitter()
    one.submit([lone()])
    slurm.forget(slurm.jobs()[0])
    for _ in range(3):
        assert isinstance(one.submit([lone(again=True)])[0], SubmitInDoubt)
    assert slurm.calls("sbatch") == 1


def settled(one, submission, within_s=30.0):
    """Ask until it is settled; return the answer."""
    deadline = time.monotonic() + within_s
    while True:
        (answer,) = one.submit([submission])
        if not isinstance(answer, SubmitInDoubt):
            return answer
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)


def test_what_is_absent_after_it_is_submitted_once_more(slurm, submitter):
    one = submitter(settle_s=0.0)
    slurm.order("lose")
    one.submit([lone()])
    slurm.forget(slurm.jobs()[0])
    assert settled(one, lone(again=True)) == "2@run/a/1"
    assert slurm.calls("sbatch") == 2
    assert submitter().submit([lone(again=True)]) == ["2@run/a/1"]


@pytest.mark.parametrize("silent", ["ctld", "dbd"])
def test_absence_counts_only_when_every_witness_answered(slurm, submitter, silent):
    one = submitter(settle_s=0.0)
    slurm.order("lose")
    one.submit([lone()])
    slurm.forget(slurm.jobs()[0])
    slurm.order(silent)
    for _ in range(4):
        (answer,) = one.submit([lone(again=True)])
        assert isinstance(answer, SubmitInDoubt)
        time.sleep(0.25)
    assert slurm.calls("sbatch") == 1
    slurm.mend(silent)
    assert settled(one, lone(again=True)) == "2@run/a/1"


def asleep(tmp_path):
    """Leave what a shell of attempt ms-a leaves that sleeps between its fence and sbatch; return where."""
    place = tmp_path / "workspace/.matterstack/submissions/ms-a"
    (place / "claim.1.1").mkdir(parents=True)
    (place / "claim.1.1/indices").write_text("\n")
    return place


@pytest.fixture
def records(tmp_path):
    """The records of attempt ms-a, which lies ready."""
    made = tmp_path / "workspace/run/a/1/.matterstack"
    made.mkdir(parents=True)
    (made / "secrets").write_text("KEY=1\n")
    return made


def test_a_late_shell_finds_the_fence_and_does_not_submit(slurm, submitter, tmp_path):
    """A shell that took the claim and was stopped before sbatch, and wakes up after it was given up."""
    place = asleep(tmp_path)
    one = submitter(settle_s=0.0)
    assert settled(one, lone(again=True)) == "1@run/a/1"
    assert (place / "fence.1.1").exists()
    assert (place / "receipt.1.2").exists()


def test_absence_is_looked_at_again_when_the_cluster_could_not_be_reached_since(slurm, submitter, tmp_path):
    """A shell that is past its fence may submit in the meantime."""

    class Late(LocalTransport):
        cuts = 2

        def run(self, script, **more):
            if "try_one submit" in script and Late.cuts:
                Late.cuts -= 1
                if Late.cuts == 0:
                    hidden.rename(slurm.directory / "jobs/1")
                    raise TransportError("host", "cut", started=False)
            return super().run(script, **more)

    one = submitter(Late(), settle_s=0.0)
    slurm.order("lose")
    one.submit([lone()])
    hidden = slurm.jobs()[0].rename(tmp_path / "hidden")
    with pytest.raises(TransportError):
        settled(one, lone(again=True))
    assert settled(one, lone(again=True)) == "1@run/a/1"
    assert slurm.calls("sbatch") == 1


@pytest.mark.parametrize("same", [True, False])
def test_a_shell_that_wakes_up_behind_later_tries_is_found(slurm, submitter, tmp_path, same):
    """It was past its fence; tries after it were refused for now, which says nothing of it."""
    asleep(tmp_path)
    one = submitter(settle_s=0.0)
    slurm.order("refuse", "sbatch: error: QOSMaxSubmitJobPerUserLimit")
    for tries in (1, 2):
        while slurm.calls("sbatch") < tries:
            (answer,) = one.submit([lone(again=True)])
            assert isinstance(answer, SubmitInDoubt)  # not held: who cancels it now must have it withdrawn
            time.sleep(0.05)
        assert "QOSMaxSubmitJobPerUserLimit" in answer.detail
    slurm.mend("refuse")
    late = slurm.directory / "jobs/7"
    late.mkdir()
    for name, text in {"name": job_name("a", "ms-a"), "word": "PENDING", "submit": "1000", "pid": ""}.items():
        (late / name).write_text(text)
    assert settled(one if same else submitter(settle_s=0.0), lone(again=not same)) == "7@run/a/1"
    assert slurm.calls("sbatch") == tries


class AwakesBefore(LocalTransport):
    """A shell that slept submits, and its job begins, before the command that has these words is run; once."""

    def __init__(self, words, records, claim="ms1 ms-a 7 0 100.0 n1 77 .\n"):
        super().__init__()
        self.words, self.records, self.claim = words, records, claim

    def run(self, script, **more):
        if self.words in script and not (self.records / "claim").exists():
            (self.records / "claim").write_text(self.claim)
        return super().run(script, **more)


OVER = {
    "refused": ({}, SubmitRefusedError, "SUBMIT_REFUSED"),
    "cancelled": ({"cancelled": True}, SubmitAbsentError, "CANCELLED"),
}


@pytest.mark.parametrize("how", OVER)
def test_what_is_over_begins_no_more_though_a_shell_may_still_submit_it(slurm, submitter, tmp_path, records, how):
    more, error, reason = OVER[how]
    asleep(tmp_path)
    slurm.order("refuse", REFUSAL)
    assert isinstance(settled(submitter(settle_s=0.0), lone(again=True, **more)), error)
    assert (records / "claim").read_text() == f"ms1 over ms-a {reason} .\n"
    assert not (records / "secrets").exists()


@pytest.mark.parametrize("how", OVER)
def test_what_has_begun_before_it_was_called_over_is_taken_up(slurm, submitter, tmp_path, records, how):
    asleep(tmp_path)
    slurm.order("refuse", REFUSAL)
    one = submitter(AwakesBefore("ms1 over", records), settle_s=0.0)
    assert settled(one, lone(again=True, **OVER[how][0])) == "7@run/a/1"


def test_what_an_earlier_submission_of_the_attempt_may_begin_is_over_with_a_later_one(
    slurm, submitter, tmp_path, records
):
    asleep(tmp_path)
    one = submitter(settle_s=0.0)
    assert settled(one, lone(again=True)) == "1@run/a/1"
    slurm.order("refuse", REFUSAL)
    (answer,) = submitter().submit([lone(gen=2)])
    assert isinstance(answer, SubmitRefusedError)
    assert (records / "claim").read_text() == "ms1 over ms-a SUBMIT_REFUSED .\n"


def test_what_is_refused_without_a_doubt_can_be_submitted_when_that_is_mended(slurm, submitter, records):
    slurm.order("refuse", REFUSAL)
    for again in (False, True):
        assert isinstance(submitter().submit([lone(again=again)])[0], SubmitRefusedError)
    assert not (records / "claim").exists()


def test_an_element_that_a_shell_has_begun_before_it_was_called_over_is_taken_up(slurm, submitter, tmp_path):
    """Of an array whose later try, without it, is in the queue."""
    claim = tmp_path / "workspace/.matterstack/submissions/ms-array/claim.1.1"
    claim.mkdir(parents=True)
    (claim / "indices").write_text("0-1\n")
    records = tmp_path / "workspace/run/t1/1/.matterstack"
    records.mkdir(parents=True)
    one = submitter(AwakesBefore("ms1 over", records, "ms1 ms-t1 7_1 0 100.0 n1 77 .\n"), settle_s=0.0)
    left = dict(enumerate([elements(2, again=True)[0], elements(2, cancelled=True)[1]]))
    jobs = {}
    while left:
        answers = dict(zip(left, one.submit(list(left.values())), strict=True))
        jobs |= {index: answer for index, answer in answers.items() if isinstance(answer, str)}
        left = {index: member for index, member in left.items() if index not in jobs}
        time.sleep(0.05)
    assert jobs == {0: "1_0@run/t0/1", 1: "7_1@run/t1/1"}


def test_a_withdrawal_that_was_done_twice_is_one(slurm, submitter, tmp_path):
    for number in (1, 2):
        claim = tmp_path / f"workspace/.matterstack/submissions/ms-a/claim.1.{number}"
        claim.mkdir(parents=True)
        (claim / "withdrawn").touch()
    assert isinstance(submitter().submit([lone(cancelled=True)])[0], SubmitAbsentError)


def test_of_two_jobs_the_first_is_taken_and_the_other_ended(slurm, submitter):
    slurm.order("lose")
    submitter().submit([lone()])
    (first,) = slurm.jobs()
    second = first.with_name("9")
    second.mkdir()
    for file in first.iterdir():
        (second / file.name).write_text(file.read_text())
    assert submitter().submit([lone(again=True)]) == ["1@run/a/1"]
    assert (second / "word").read_text() == "CANCELLED"
    assert (first / "word").read_text() == "PENDING"


def test_a_refusal_has_sbatchs_own_words(slurm, submitter):
    slurm.order("refuse", REFUSAL)
    (answer,) = submitter().submit([lone()])
    assert isinstance(answer, SubmitRefusedError)
    assert "Invalid account or account/partition combination" in str(answer)


def test_one_refusal_does_not_keep_the_others_from_being_tried(slurm, submitter):
    slurm.order("refuse", REFUSAL)
    answers = submitter().submit([lone(f"x{i}") for i in range(3)])
    assert all(isinstance(answer, SubmitRefusedError) for answer in answers)


def test_a_limit_holds_and_is_tried_again(slurm, submitter):
    one = submitter(held_s=7.0)
    slurm.order("refuse", LIMIT)
    answers = one.submit([lone("x"), lone("y")])
    assert all(isinstance(answer, SubmitHeld) and answer.again_s == 7.0 for answer in answers), answers
    assert "QOSMaxSubmitJobPerUserLimit" in str(answers[1])
    assert slurm.calls("sbatch") == 1
    slurm.mend("refuse")
    assert one.submit([lone("x"), lone("y")]) == ["1@run/x/1", "2@run/y/1"]


def test_what_a_limit_holds_is_staged_once(slurm, submitter):
    """Thousands may wait behind a limit, and are tried every minute."""
    staged: list[str] = []
    one = submitter(staged=staged)
    slurm.order("refuse", LIMIT)
    for again in (False, True, True):
        one.submit([lone("x", again=again), lone("y", again=again)])
    assert staged == ["x.ms-x", "y.ms-y"]
    slurm.mend("refuse")
    assert one.submit([lone("x", again=True), lone("y", again=True)]) == ["1@run/x/1", "2@run/y/1"]
    assert staged == ["x.ms-x", "y.ms-y"]


def test_a_new_controller_tries_again_what_a_limit_held(slurm, submitter):
    slurm.order("refuse", LIMIT)
    submitter().submit([lone()])
    slurm.mend("refuse")
    assert submitter().submit([lone(again=True)]) == ["1@run/a/1"]


def test_after_an_answer_without_meaning_the_rest_waits(slurm, submitter):
    slurm.order("ctld")
    first, second = submitter().submit([lone("x"), lone("y")])
    assert isinstance(first, SubmitInDoubt)
    assert isinstance(second, SubmitHeld)
    assert slurm.calls("sbatch") == 1


def test_what_was_cancelled_before_it_was_submitted_never_is(slurm, submitter):
    (answer,) = submitter().submit([lone(cancelled=True)])
    assert isinstance(answer, SubmitAbsentError)
    assert isinstance(submitter().submit([lone(again=True)])[0], SubmitAbsentError)
    assert slurm.calls("sbatch") == 0


def test_what_was_cancelled_while_in_doubt_is_found_and_handed_over(slurm, submitter):
    slurm.order("lose")
    submitter().submit([lone()])
    assert submitter().submit([lone(cancelled=True)]) == ["1@run/a/1"]


def test_cancelled_elements_are_left_out_of_the_array(slurm, submitter):
    first, second, third = elements(3)
    second = elements(3, cancelled=True)[1]
    answers = submitter().submit([first, second, third])
    assert answers[::2] == ["1_0@run/t0/1", "1_2@run/t2/1"]
    assert isinstance(answers[1], SubmitAbsentError)
    assert [job.name for job in slurm.jobs()] == ["1_0", "1_2"]


def test_an_element_that_was_not_in_the_array_is_told(slurm, submitter):
    submitter().submit(elements(2))
    late = elements(3, again=True)[2]
    (answer,) = submitter().submit([late])
    assert isinstance(answer, SubmitAbsentError)


def test_a_later_try_of_the_journal_is_a_submission_of_its_own(slurm, submitter):
    submitter().submit([lone()])
    assert submitter().submit([lone(gen=2)]) == ["2@run/a/1"]
    assert submitter().submit([lone(gen=2, again=True)]) == ["2@run/a/1"]
    assert slurm.calls("sbatch") == 2


def test_noise_around_the_answer_changes_nothing(slurm, submitter):
    class Noisy(LocalTransport):
        def run(self, script, **more):
            return super().run(f"echo Welcome to the cluster; echo 'ms-fake end'\n{script}\necho bye", **more)

    assert submitter(Noisy()).submit([lone()]) == ["1@run/a/1"]


@pytest.mark.parametrize("kept", [0, 10, 60])
def test_a_cut_answer_is_no_answer(slurm, submitter, kept):
    class Cut(LocalTransport):
        def run(self, script, **more):
            reply = super().run(script, **more)
            return type(reply)(0, reply.stdout[: min(kept, len(reply.stdout) - 5)], b"")

    with pytest.raises(TransportError):
        submitter(Cut()).submit([lone()])
    assert submitter().submit([lone(again=True)]) == ["1@run/a/1"]


def test_without_sbatch_the_run_stops_and_says_so(tmp_path, submitter, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "head", "mkdir", "cat", "stat", "date"):
        (tools / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))

    class NoProfile(LocalTransport):
        def run(self, script, **more):
            return super().run(script.replace("/etc/profile", "/dev/null"), **more)

    with pytest.raises(AccessError, match="no sbatch in PATH"):
        submitter(NoProfile()).submit([lone()])


def test_a_workspace_that_cannot_be_made_is_told(slurm, tmp_path):
    (tmp_path / "file").write_text("")
    remote = Remote(LocalTransport(), str(tmp_path / "file/below"), 60)
    with pytest.raises(AccessError, match="workspace_root"):
        remote.ask("say hello")


def test_staging_trouble_submits_nothing(slurm, tmp_path):
    def stage(_todo):
        raise BackendUnavailable("host", "stage", "disk quota exceeded")

    one = Submitter(Remote(LocalTransport(), str(tmp_path / "w"), 60), Waits(), stage)
    with pytest.raises(BackendUnavailable, match="quota"):
        one.submit([lone()])
    assert slurm.calls("sbatch") == 0


def test_what_cannot_be_staged_is_left_out(slurm, tmp_path, submitter):
    one = submitter()
    stage = one._stage
    one._stage = lambda todo: {**stage(todo), "ms-y": SubmitRefusedError("no such input")}
    answers = one.submit([lone("x"), lone("y"), lone("z")])
    assert answers[::2] == ["1@run/x/1", "2@run/z/1"]
    assert isinstance(answers[1], SubmitRefusedError)


def test_index_lists_are_short():
    assert index_list([3, 1, 2, 7, 9, 10]) == "1-3,7,9-10"


def test_elements_of_an_array_go_together_and_others_alone():
    found = batches([lone("x"), *elements(2), lone("y")])
    assert [batch.token for batch in found] == ["ms-x", "ms-array", "ms-y"]
    assert [batch.indices for batch in found] == ["", "0-1", ""]
