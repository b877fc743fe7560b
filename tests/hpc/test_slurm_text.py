"""Slurm's commands and what they print, as text; hostile text is inert."""

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matterstack.runtime.backends.hpc import site
from matterstack.runtime.backends.hpc.accounting import AccountingRow, newest, read_accounting
from matterstack.runtime.backends.hpc.queue import QueueRow, read_own_queue, read_queue
from matterstack.runtime.backends.hpc.slurm import (
    ENVIRONMENT,
    Answer,
    accounting_by_name_command,
    accounting_command,
    answer_of,
    indices_of,
    queue_command,
    split_id,
)

NAME = "relax-Al.ms-k3abcdefghijklmnopqrstuvwx"
QUEUE = f"{NAME}#N/A|12|RUNNING|None|1795867107|.\n"
ELEMENT = f"{NAME}#3|13_3|PENDING|JobHeldUser|1795867107|.\n"
ACCOUNT = f"12|12|COMPLETED|0:0|1795867107|1795867108|1795867109|n1|{NAME}|\n"
NOISE = (
    "Welcome to the cluster!\n#|||||\n  \n--> quota: 3|4|5|6|7|8|9|10|11|12\n"
    "cluster:test\nCLUSTER: test\n\x00\x1b[1m|\n"
)
# What could come: pieces of rows in any order, and anything else.
pieces = st.sampled_from(["|", "#", ".", "\n", "\r\n", "12", "_[0-9", "]", "%", ":", "CANCELLED by 1", "N/A", NAME])
numbers = st.text("0123456789,-:%[]|#.", max_size=12)
hostile = st.lists(pieces | st.text(max_size=8) | numbers, max_size=40).map("".join)


# ---- ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("3", (3,)),
        ("0-3", (0, 1, 2, 3)),
        ("[0-9]", tuple(range(10))),
        ("[0-3%2]", (0, 1, 2, 3)),
        ("[1,3,5-7]", (1, 3, 5, 6, 7)),
        ("[0-9,12-20:2%4]", (*range(10), 12, 14, 16, 18, 20)),
        *((bad, None) for bad in ("", "[]", "x", "[1-", "1-3]", "[1-3,...]", "3-1", "-1", "1:2", "1-3:0", "[1", "%4")),
        ("0-999999999", None),
        ("0-99999,0-99999", None),
        (",".join(["0-90000"] * 100), None),
    ],
)
def test_index_lists(text, indices):
    assert indices_of(text) == indices


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("12", ("12", None)),
        (" 12 ", ("12", None)),
        ("12_3", ("12", (3,))),
        ("12_[0-2%4]", ("12", (0, 1, 2))),
        ("12+1", ("12+1", None)),
        *((bad, None) for bad in ("12.batch", "12.ext+", "12.0", "15236+", "", "x", "12_", "12_x", "12_[1-", "١٢")),
    ],
)
def test_ids_as_slurm_shows_them(text, parts):
    assert split_id(text) == parts


# ---- the queue --------------------------------------------------------------------------------------


def test_a_queue_is_read():
    assert read_queue(QUEUE + ELEMENT) == [
        QueueRow(NAME, None, "12", "RUNNING", "", 1795867107.0),
        QueueRow(NAME, 3, "13_3", "PENDING", "JobHeldUser", 1795867107.0),
    ]


def test_arrays_of_others_are_not_spread_out():
    others = "sweep#0-99999|12_[0-99999]|PENDING|None|1|.\n" * 200
    assert read_own_queue(f"{others}{QUEUE}") == read_queue(QUEUE)


def test_noise_around_the_rows_is_no_row():
    assert read_queue(NOISE + QUEUE + NOISE + ELEMENT) == read_queue(QUEUE + ELEMENT)
    assert read_queue((NOISE + QUEUE).replace("\n", "\r\n")) == read_queue(QUEUE)


def test_a_queue_that_is_cut_anywhere_gives_only_whole_rows():
    text = QUEUE + ELEMENT
    whole = read_queue(text)
    for end in range(len(text)):
        assert read_queue(text[:end]) == whole[: text[: end + 1].count("|.\n")], text[:end]


def test_elements_shown_together_are_a_row_each():
    rows = read_queue(f"{NAME}#0-3,7%2|13_[0-3,7%2]|PENDING|None|1|.\n")
    assert [(row.slurm_id, row.index) for row in rows] == [(f"13_{i}", i) for i in (0, 1, 2, 3, 7)]


def test_reasons_and_names_may_hold_the_separator():
    rows = read_queue("a|b c=d;$(id)#N/A|12|PENDING|None|1|.\nx#N/A|13|PENDING|(Nodes|down)|Unknown|.\n")
    assert [(row.name, row.reason, row.submit) for row in rows] == [("x", "(Nodes|down)", None)]


def test_a_submission_that_was_refused_is_no_job():
    assert not read_queue(f"{NAME}#N/A|12|FAILED|BadConstraints|1|.\n")
    assert read_queue(f"{NAME}#N/A|12|PENDING|BadConstraints|1|.\n")


@given(hostile)
def test_no_text_disturbs_the_reader_of_the_queue(text):
    rows = read_queue(text)
    assert all(isinstance(row.index, int | None) and row.word for row in rows)
    assert [row for row in read_queue(f"{text}\n{QUEUE}") if row.name == NAME][-1:] == read_queue(QUEUE)


# ---- accounting -------------------------------------------------------------------------------------


def test_accounting_is_read():
    (row,) = read_accounting(ACCOUNT)
    whole = AccountingRow(
        "12", "12", None, NAME, "COMPLETED", None, 0, 0, 1795867107.0, 1795867108.0, 1795867109.0, "n1"
    )
    assert row == whole
    assert row.ran
    assert not row.refused


@pytest.mark.parametrize(
    ("state", "codes", "word", "by", "code", "signal"),
    [
        ("FAILED", "3:0", "FAILED", None, 3, 0),
        ("FAILED", "0:9", "FAILED", None, 0, 9),
        ("CANCELLED by 1000", "0:15", "CANCELLED", 1000, 0, 15),
        ("CANCELLED by 0", "0:0", "CANCELLED", 0, 0, 0),
        ("CANCELLED by 4294967294", "0:0", "CANCELLED", None, 0, 0),
        ("CANCELLED", "0:0", "CANCELLED", None, 0, 0),
        ("CANCELLED+", "", "CANCELLED", None, None, None),
        ("NEWSTATE", "x:y", "NEWSTATE", None, None, None),
    ],
)
def test_states_and_codes_of_accounting(state, codes, word, by, code, signal):
    (row,) = read_accounting(ACCOUNT.replace("COMPLETED", state).replace("0:0", codes))
    assert (row.word, row.cancelled_by, row.exit_code, row.signal) == (word, by, code, signal)


def test_steps_and_lines_that_are_no_rows_are_left_out():
    steps = "".join(ACCOUNT.replace("12|12", f"{step}|{step}") for step in ("12.batch", "12.extern", "12.0", "12.ext+"))
    assert not read_accounting(steps + NOISE)


def test_accounting_that_is_cut_anywhere_gives_only_whole_rows():
    text = ACCOUNT + ACCOUNT.replace("COMPLETED", "FAILED")
    whole = read_accounting(text)
    for end in range(len(text)):
        assert read_accounting(text[:end]) == whole[: text[: end + 1].count(f"{NAME}|\n")], text[:end]


def test_a_name_with_separators_is_whole_or_not_there():
    text = ACCOUNT.replace(NAME, "a|b")
    assert [row.name for row in read_accounting(text)] == ["a|b"]
    assert not read_accounting(text.removesuffix("|\n"))


def test_waiting_elements_are_a_row_each_and_have_no_start():
    rows = read_accounting(f"6|6_[0-2%2]|PENDING|0:0|1|Unknown|Unknown|None assigned|{NAME}|\n")
    assert [(row.slurm_id, row.index, row.start, row.node) for row in rows] == [
        (f"6_{i}", i, None, "") for i in range(3)
    ]


def start(word, begun, *, submit=5, name=NAME, code="0:0", node="n1"):
    return f"12|12|{word}|{code}|{submit}|{begun}|{begun}|{node}|{name}|\n"


def test_the_newest_start_counts():
    rows = read_accounting(start("PREEMPTED", 20) + start("NODE_FAIL", 10))
    assert newest(rows)["12"].word == newest(rows[::-1])["12"].word == "PREEMPTED"


def test_a_job_that_waits_again_is_newer_than_its_starts():
    rows = read_accounting(start("PENDING", "Unknown", submit=9, node="None assigned") + start("PREEMPTED", 8))
    assert newest(rows)["12"].word == newest(rows[::-1])["12"].word == "PENDING"


def test_a_stranger_with_the_same_id_is_not_our_job():
    rows = read_accounting(start("FAILED", 10) + start("COMPLETED", 99, submit=90, name="stranger"))
    assert newest(rows, {"12": NAME})["12"].word == "FAILED"
    assert newest(rows)["12"].word == "COMPLETED"
    assert not newest(rows, {"12": "another"})


def test_a_fresh_row_without_its_name_may_be_ours_unless_it_is_an_end():
    (fresh,) = read_accounting(start("PENDING", "Unknown", name="allocation"))
    (end,) = read_accounting(start("FAILED", 10, name="allocation"))
    assert (fresh.named(NAME), end.named(NAME)) == (True, False)


def test_a_refused_submission_is_no_start():
    rows = read_accounting(start("FAILED", 10, code="1:0", node="None assigned"))
    assert rows[0].refused
    assert not newest(rows)
    assert not read_accounting(start("FAILED", 10, code="1:0"))[0].refused


@given(hostile)
def test_no_text_disturbs_the_reader_of_accounting(text):
    newest(read_accounting(text))
    assert [row for row in read_accounting(f"{text}\n{ACCOUNT}") if row.name == NAME][-1:] == read_accounting(ACCOUNT)


# ---- commands ---------------------------------------------------------------------------------------


def test_commands_are_words_of_a_shell_and_name_no_cluster_unless_asked():
    assert shlex.split(queue_command())[-1] == "%j#%K|%i|%T|%r|%V|."
    assert "-M" not in shlex.split(queue_command()) + shlex.split(accounting_command(["1"]))
    assert shlex.split(queue_command("c1"))[1:3] == ["-M", "c1"]
    assert "--name=a.ms-x,b.ms-y" in shlex.split(accounting_by_name_command(["a.ms-x", "b.ms-y"], 5.9))
    assert "uts5" in accounting_by_name_command(["a"], 5.9)


def asked(command):
    return [part.split()[0] for part in command.split(" -j ")[1:]]


def test_many_elements_of_an_array_are_asked_for_as_the_array():
    few = accounting_command(["7", "13_1", "13_2"])
    many = accounting_command(["7", *(f"13_{i}" for i in range(500))])
    assert (asked(few), asked(many)) == (["7,13_1,13_2"], ["7,13"])


def test_no_list_of_ids_is_longer_than_an_argument_may_be():
    command = accounting_command([str(10**9 + i) for i in range(10_000)])
    assert max(map(len, command.split())) < 128 * 1024
    assert sum(len(ids.split(",")) for ids in asked(command)) == 10_000
    stand_in = "sacct() { [ $# -gt 0 ] && echo asked; }\n"
    done = subprocess.run(["sh", "-c", f"{stand_in}{command} 2>/dev/null"], capture_output=True, text=True, check=True)
    assert done.stdout == "asked\n" * len(asked(command))


@pytest.mark.parametrize(
    "call",
    [
        lambda: accounting_command([]),
        lambda: accounting_command(["12", "13;rm"]),
        lambda: accounting_command(["5_[1-3]"]),  # sacct refuses the whole list over it
        lambda: accounting_command(["12_"]),
        lambda: accounting_by_name_command([], 0),
        lambda: accounting_by_name_command(["a,b"], 0),
        lambda: accounting_by_name_command(["$(id)"], 0),
        lambda: queue_command("a b"),
    ],
)
def test_what_is_no_id_or_name_never_reaches_a_command(call):
    with pytest.raises(ValueError, match=r"not a|not an id|no ids|no names"):
        call()


def test_the_environment_is_posix_sh_and_undoes_the_users():
    shown = 'echo "${SQUEUE_FORMAT-} $SLURM_TIME_FORMAT $LC_ALL $(env | grep -c "^SLURM_BITSTR_LEN=0$")"'
    done = subprocess.run(
        ["sh", "-euc", ENVIRONMENT + shown],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "SQUEUE_FORMAT": "%u", "SLURM_TIME_FORMAT": "relative"},
    )
    assert done.stdout == " %s C 1\n"


@pytest.mark.parametrize(
    ("code", "stderr", "answer"),
    [
        (0, "", Answer.YES),
        (0, "a warning\n", Answer.YES),
        (0, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", Answer.SILENT),
        (1, "", Answer.SILENT),
        (1, "slurm_load_jobs error: Socket timed out on send/recv operation\n", Answer.SILENT),
        (1, "slurm_load_jobs error: Invalid job id specified\n", Answer.YES),
        (1, "Slurm accounting storage is disabled\n", Answer.OFF),
        (137, "", Answer.SILENT),
        (127, "sh: squeue: not found\n", Answer.SILENT),
        (None, "", Answer.SILENT),
    ],
)
def test_whether_it_answered(code, stderr, answer):
    assert answer_of(code, stderr) is answer


# ---- the site ---------------------------------------------------------------------------------------


def test_settings_that_are_not_there_are_not_guessed():
    assert site.read_settings(NOISE) == site.Settings()
    assert site.read_settings("AccountingStorageType   = accounting_storage/none\r\n").accounting is False
    assert site.read_settings("AccountingStorageType   = (null)\n").accounting is False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("30:00", 1800),
        ("01:30:00", 5400),
        ("1-00:00:00", 86400),
        ("2-12", 216_000),
        ("1-06:30", 109_800),
        ("UNLIMITED", None),
        ("", None),
        ("1-", None),
    ],
)
def test_spans(text, seconds):
    assert site.seconds_of(text) == seconds


@given(hostile | st.text())
def test_no_text_disturbs_the_readers_of_the_site(text):
    site.read_settings(text)
    site.read_partitions(text)
    site.read_limits(text)
    site.read_qos(text)
    answer_of(1, text)
    indices_of(text)
    split_id(text)
