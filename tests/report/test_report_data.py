"""What the page is told of a run."""

from __future__ import annotations

import os

import pytest
from page_journals import RUN, large

from matterstack.core import events as ev
from matterstack.errors import UnknownName
from matterstack.history.past import Past
from matterstack.report import collect, data, page
from matterstack.report.shown import last_lines, shown


def collected(story, **options):
    with Past(story.write()) as past:
        return collect(past, RUN, **options)


def column(told, table, name):
    values = told[table][name]
    worded = name in ("state", "stage", "reason", "detail", "profile", "node")
    return [told["words"][value] for value in values] if worded else values


@pytest.fixture
def told_of_three(story):
    """A chain of three: completed, failed after a retry, and waiting for ever."""
    for order, (name, needs) in enumerate({"a": [], "b": ["a"], "c": ["a", "b"]}.items()):
        story.task(order, name, needs)
    story.attempt("a", at=1, waits=4)
    story.completed("a", 10)
    story.attempt("b", at=11, waits=2, job_id="4711", node="n2", profile="gpu")
    story.failed("b", 20, "NODE_FAIL", None)
    story.add(21, "b", ev.TaskRetried())
    story.attempt("b", 2, at=22, waits=2)
    story.failed("b", 30, exit_code=7, detail="no more")
    return collected(story)


def test_tasks_have_their_states_needs_and_newest_attempts(told_of_three):
    assert column(told_of_three, "tasks", "name") == ["a", "b", "c"]
    assert column(told_of_three, "tasks", "state") == ["COMPLETED", "FAILED", "PENDING"]
    assert column(told_of_three, "tasks", "stage") == ["", "", "waiting"]
    assert told_of_three["edges"] == [[], [0], [0, 1]]
    assert told_of_three["edges_total"] == 3
    newest = [
        column(told_of_three, "attempts", "attempt")[i] if i >= 0 else None for i in told_of_three["tasks"]["last"]
    ]
    assert newest == [1, 2, None]
    assert told_of_three["counts"] == [1, 0, 1, 1]


def test_attempts_have_their_times_from_the_runs_creation(told_of_three):
    attempts = told_of_three["attempts"]
    assert attempts["task"] == [0, 1, 1]
    assert column(told_of_three, "attempts", "state") == ["COMPLETED", "FAILED", "FAILED"]
    assert column(told_of_three, "attempts", "profile") == ["", "gpu", ""]
    assert attempts["submitted"] == [1000, 11_000, 22_000]
    assert attempts["started"] == [5000, 13_000, 24_000]
    assert attempts["ended"] == [10_000, 20_000, 30_000]
    assert attempts["exit"] == [0, None, 7]
    assert attempts["job"] == ["=", "4711", "="]


def test_counts_over_time_end_with_how_it_stands(told_of_three):
    assert told_of_three["over_time"][0][1:] == [3, 0, 0, 0]
    assert told_of_three["over_time"][-1][1:] == told_of_three["counts"]
    times = [at for at, *_ in told_of_three["over_time"]]
    assert times == sorted(times)


def test_a_long_run_has_few_steps(story):
    story.task(0, "a")
    story.attempt("a", at=1)
    story.completed("a", 90 * 86_400)
    assert 100 < len(collected(story)["over_time"]) < 1000


def test_failures_come_newest_first_without_those_of_others(story, tmp_path):
    for order, name in enumerate("abc"):
        story.task(order, name)
    story.attempt("a", at=1)
    story.failed("a", 10)
    story.attempt("b", at=1)
    story.failed("b", 20)
    story.failed("c", 21, "DEPENDENCY_FAILED", None)
    told = collected(story)
    assert [told["attempts"]["task"][one["attempt"]] for one in told["failures"]] == [1, 0]


def test_failures_have_the_last_lines_of_both_logs(story, tmp_path):
    story.task(0, "a")
    story.attempt("a", at=1, job_id="9")
    story.failed("a", 10)
    (tmp_path / "9").mkdir()
    (tmp_path / "9/stderr.txt").write_text("".join(f"line {i}\n" for i in range(100)))
    (tmp_path / "9/stdout.txt").write_text("out\n")
    (one,) = collected(story, workdir=lambda _profile, job_id: tmp_path / job_id)["failures"]
    assert one["logs"]["stderr"] == [f"line {i}" for i in range(85, 100)]
    assert one["logs"]["stdout"] == ["out"]
    assert one["where"] == str(tmp_path / "9")


def test_an_unknown_run_is_said(story):
    with pytest.raises(UnknownName, match="other"), Past(story.write()) as past:
        collect(past, "other")


def test_too_many_dependencies_are_left_out_and_counted(story, monkeypatch):
    monkeypatch.setattr(data, "EDGES", 20)
    for i in range(10):
        story.task(i, f"t{i}", [f"t{j}" for j in range(i)])
    told = collected(story)
    assert told["edges_total"] == 45
    assert [bool(needs) for needs in told["edges"]] == [False] + [True] * 9
    assert sum(map(len, told["edges"])) <= 20


def test_too_many_attempts_leave_the_newest(story, monkeypatch):
    monkeypatch.setattr(data, "ATTEMPTS", 2)
    for i, at in enumerate([30, 10, 20]):
        story.task(i, f"t{i}")
        story.attempt(f"t{i}", at=at)
    told = collected(story)
    assert told["attempts"]["task"] == [2, 0]
    assert told["tasks"]["last"] == [1, -1, 0]
    assert told["attempts_total"] == 3


def test_ten_thousand_tasks_with_the_longest_names_and_logs_make_less_than_three_megabytes(tmp_path):
    (tmp_path / "stderr.txt").write_text(f"{'x' * 500}\n" * 50)
    journal = large(tmp_path / "journal.db", name="relax-{:05d}-".ljust(129, "n"), job_id="{:08d}")
    with Past(journal) as past:
        told = collect(past, RUN, lambda _profile, _job_id: tmp_path)
    assert len(told["tasks"]["name"][0]) == 128
    assert len(told["failures"]) == data.LOGGED
    assert len(page(told).html.encode()) < 3_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 語", "plain ü 語"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J\x00\x7f\r\n", "\\x9b2J\\x00\\x7f\\r\\n"),
        ("a\u202egnp.exe\u2066", "a\\u202egnp.exe\\u2066"),
        ("\u2028\u2029\ufeff", "\\u2028\\u2029\\ufeff"),
        ("\ud800", "\\ud800"),
        ("x" * 1000, "x" * 399 + "…"),
    ],
)
def test_text_is_shown_and_not_obeyed(text, expected):
    assert shown(text) == expected


def test_a_log_is_read_from_its_end_only(tmp_path):
    log = tmp_path / "stderr.txt"
    log.write_bytes(b"first\n" + b"x" * 100_000 + b"\n\xff\x1b]0;title\x07\nlast\r\n\n")
    assert last_lines(log, 2) == ["\ufffd\\x1b]0;title\\x07", "last"]
    log.write_bytes(b"x" * 100_000)
    assert last_lines(log, 2) == ["x" * 399 + "…"]
    log.write_bytes(b"")
    assert last_lines(log, 5) == []


def test_what_is_no_log_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "absent", "."):
        assert last_lines(tmp_path / name, 5) == []
