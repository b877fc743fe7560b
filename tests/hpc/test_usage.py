"""What accounting says that jobs used: rows of the real sacct, and what is made of them."""

import pytest

from matterstack.core.usage import Usage
from matterstack.errors import BackendUnavailable
from matterstack.runtime.backends.hpc.usage import OFF, UNSTARTED, ask_usage, read_usage, size, span

TIMES = "1700000000|1700000001|1700000005|1700000015|10"


def row(slurm_id="12", *, word="COMPLETED", code="0:0", times=TIMES, rss="", cpu="00:03.500", node="n1", name="a.ms-1"):
    tres = "billing=2,cpu=2,mem=1G,node=1"
    return f"{slurm_id}|{word}|{code}|{times}|2|{tres}|{rss}|{cpu}|{node}|acct|part|normal|{name}|\n"


class Answering:
    """Stands where the cluster is: says what sacct would."""

    def __init__(self, text, code="0", errors=""):
        self.text, self.code, self.errors, self.scripts = text, code, errors, []

    def ask(self, script):
        from matterstack.runtime.backends.hpc.remote import Part

        self.scripts.append(script)
        return [Part(["usage"], self.text), Part(["code", self.code], self.errors)]


def test_steps_are_added_to_the_job_before_them():
    text = (
        row()
        + row("12.batch", rss="51200K", cpu="00:01.500", name="batch")
        + row("12.0", rss="2M", cpu="00:02", name="x")
    )
    (found,) = ask_usage(Answering(text), {"12@r/a/1": ("12", "a.ms-1")}).values()
    assert found == Usage(
        "sacct", "", 1700000000.0, 1700000001.0, 1700000005.0, 1700000015.0, 10.0, 2, 2**30, 52428800, 3.5, "n1",
        "acct", "part", "normal", 0, 0, None,
    )  # fmt: skip


def test_a_job_that_was_not_sampled_is_marked():
    text = row() + row("12.batch", rss="0", cpu="00:01.500")
    (found,) = ask_usage(Answering(text), {"a": ("12", "")}).values()
    assert (found.max_rss, found.cpu_s) == (None, 1.5)
    assert found.unknown == "memory: the cluster took no sample of it"


def test_the_newest_start_counts_and_the_others_are_its_restarts():
    text = row(word="NODE_FAIL") + row("12.batch", rss="9M") + row() + row("12.batch", rss="2M", cpu="00:01")
    (found,) = ask_usage(Answering(text), {"a": ("12", "")}).values()
    assert (found.restarts, found.max_rss, found.cpu_s) == (1, 2 << 20, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        row(word="RUNNING"),
        row(times="1|1|1|Unknown|5"),
        row(name="b.ms-2"),
        row()[:-3],
        row("13"),
    ],
    ids=["nothing", "runs", "no end", "a stranger's", "cut", "another"],
)
def test_what_is_not_known_yet_is_left_out(text):
    assert ask_usage(Answering(text), {"a": ("12", "a.ms-1")}) == {}


def test_one_that_never_started_has_used_nothing_and_says_so():
    (found,) = ask_usage(Answering(row(word="CANCELLED by 7", node="None assigned")), {"a": ("12", "")}).values()
    assert (found.unknown, found.start, found.cpus, found.max_rss) == (UNSTARTED, None, None, None)


def test_accounting_that_is_off_is_told_at_once_and_one_that_is_silent_is_not():
    off = Answering("", "1", "Slurm accounting storage is disabled\n")
    assert ask_usage(off, {"a": ("12", "")}) == {"a": Usage(unknown=OFF)}
    with pytest.raises(BackendUnavailable, match="did not answer"):
        ask_usage(Answering("", "1", "sacct: error: Problem talking to the database"), {"a": ("12", "")})


def test_many_jobs_are_one_question():
    remote = Answering("")
    ask_usage(remote, {str(n): (str(n), "") for n in range(1, 500)})
    (script,) = remote.scripts
    assert script.count("sacct ") == 1


def test_a_name_may_hold_anything():
    assert read_usage(row(name="a|b"))[0].name == "a|b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("51200K", 52428800), ("1.5G", 1610612736), ("12", 12), ("", None), ("-", None), ("1Kc", None), ("4Gn", 2**32)],
)
def test_sizes(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("00:01.500", 1.5), ("02:00:01", 7201.0), ("1-00:00:01", 86401.0), ("", None), ("INVALID", None)],
)
def test_spans(text, expected):
    assert span(text) == expected
