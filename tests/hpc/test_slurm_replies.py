"""sbatch's replies: a refusal needs proof."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matterstack.runtime.backends.hpc.replies import Accepted, Doubt, Held, Refused, read_reply

FAILED = "sbatch: error: Batch job submission failed: "
LIMIT = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)\n"


@pytest.mark.parametrize(
    ("stdout", "accepted"),
    [
        ("12\n", Accepted("12")),
        ("12;cluster\n", Accepted("12", "cluster")),
        ("\n12", Accepted("12")),
        ("Welcome to Stampede3\n--> quota 3 of 7 OK\n12\n", Accepted("12")),
        ("12\r\n", Accepted("12")),
        ("sbatch: Submitted batch job 12 on cluster c1\n", Accepted("12", "c1")),
        ("5\nSubmitted batch job 12\n", Accepted("12")),
    ],
)
def test_an_id_in_a_line_of_its_own_is_an_acceptance(stdout, accepted):
    assert read_reply(0, stdout, "") == accepted


def test_an_error_beside_an_acceptance_is_a_warning():
    said = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
    assert read_reply(0, "12\n", said) == Accepted(
        "12", "", "Slurm temporarily unable to accept job, sleeping and retrying"
    )


@pytest.mark.parametrize("stdout", ["", "\n", "job 12 is yours\n", "12\n13\n", "12 \n12;c\n", "1.2\n", "12345678901\n"])
def test_exit_code_0_without_exactly_one_id_is_a_doubt(stdout):
    reply = read_reply(0, stdout, "")
    assert isinstance(reply, Doubt)
    assert reply.words


@pytest.mark.parametrize("code", [1, 255, 137, None])
def test_an_id_with_another_exit_code_is_a_doubt(code):
    assert isinstance(read_reply(code, "12\n", f"{FAILED}Invalid partition name specified\n"), Doubt)


def test_the_sites_own_words_are_kept():
    said = "module chatter\nsbatch: error: Lab members use -A lab\nsbatch: error: Batch job submission failed: "
    assert read_reply(1, "", f"{said}Unspecified error\n") == Refused(
        "Lab members use -A lab; Batch job submission failed: Unspecified error"
    )
    assert read_reply(1, "", "Batch job submission failed: Invalid qos specification\n") == Refused(
        "Batch job submission failed: Invalid qos specification"
    )


@pytest.mark.parametrize(
    ("code", "stderr", "kind"),
    [
        (1, f"{FAILED}Unspecified error\n", Doubt),
        (1, f"{FAILED}A thing that no Slurm has said yet\n", Doubt),
        (1, f"{FAILED}Socket timed out on send/recv operation\n", Doubt),
        (1, f"{FAILED}Unable to contact slurm controller (connect failure)\n", Doubt),
        (1, f"sbatch: error: Invalid qos specification\n{FAILED}Zero Bytes were transmitted or received\n", Doubt),
        (1, "", Doubt),
        (None, "", Doubt),
        (None, f"{FAILED}Invalid qos specification\n", Doubt),
        (124, "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n", Doubt),
        (1, f"{FAILED}Resource temporarily unavailable\n", Held),
        (130, f"{FAILED}Invalid qos specification\n", Doubt),
        (137, "Killed\n", Doubt),
        (255, "Connection to login closed by remote host.\n", Doubt),
        (255, "sbatch: unrecognized option '--nonsense'\n", Refused),
        (1, f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{FAILED}{LIMIT}", Held),
        (1, f"sbatch: error: AssocGrpSubmitJobsLimit\n{FAILED}{LIMIT}", Held),
        (1, f"{FAILED}{LIMIT}", Held),
        (1, f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{FAILED}{LIMIT}", Refused),
        (1, f"sbatch: error: AssocMaxCpuPerJobLimit\n{FAILED}{LIMIT}", Refused),
        (1, f"{FAILED}MaxJobCount limit reached\n", Held),
        (127, "sh: 1: sbatch: not found\n", Held),
        (127, "bash: line 1: sbatch: command not found\n", Held),
        (1, "sbatch: fatal: Could not establish a configuration source\n", Held),
    ],
)
def test_only_proven_refusals_are_refusals(code, stderr, kind):
    assert type(read_reply(code, "", stderr)) is kind


@given(st.none() | st.integers(0, 255), st.text(max_size=200), st.text(max_size=200))
def test_no_text_disturbs_the_reader(code, stdout, stderr):
    reply = read_reply(code, stdout, stderr)
    assert isinstance(reply, Accepted) <= (code == 0)
    assert isinstance(reply, Accepted) or isinstance(reply.words, str)


LOST = ("Socket timed out", "receive failure", "Zero Bytes were transmitted", "Unexpected message received")


@given(st.integers(1, 255), st.text(max_size=50), st.sampled_from(LOST), st.text(max_size=50))
def test_where_the_answer_was_lost_nothing_else_proves_a_refusal(code, before, lost, after):
    said = f"{FAILED}Invalid qos specification {before}{lost}{after}"
    assert isinstance(read_reply(code, "", said), Doubt)
