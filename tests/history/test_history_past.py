"""Questions to the journal of a real campaign, with failures, retries, a cancelled and a blocked task."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import matterstack.history
from journal import JournalError
from matterstack.core import events as ev
from matterstack.errors import MatterStackError, UnknownName
from matterstack.history import History
from matterstack.history.rows import Rows, TaskRow
from matterstack.runtime.opening import open_journal
from matterstack.runtime.views import VIEWS

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "matterstack.cli.main"]
TASKS = [
    {"task_id": "relax-1", "command": "true"},
    {"task_id": "relax-2", "command": "test -e ../../../../once || { touch ../../../../once; exit 7; }"},
    {"task_id": "broken", "command": "exit 3", "retry": "never"},
    {"task_id": "blocked", "command": "true", "dependencies": ["broken"]},
    # Says that it is there, then waits for a word that only a cancel or the test can bring.
    {"task_id": "long", "command": "echo up >../../../../up; read word <../../../../down"},
]
TASKS[1] |= {"retry": "always", "max_attempts": 3}
WAIT_S = 60


def command(place, *words, code=0):
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(place)}
    done = subprocess.run(
        [*COMMAND, *words], cwd=place, env=env, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A finished campaign; what was seen while its controller was at work is in ``seen``."""
    place = tmp_path_factory.mktemp("campaign")
    for name in ("up", "down"):
        os.mkfifo(place / name)
    (place / "wf.json").write_text(json.dumps({"name": "scan", "tasks": TASKS}))
    (place / "wf.json").rename(place / "wf.yaml")
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(place)}
    with subprocess.Popen([*COMMAND, "run", "wf.yaml"], cwd=place, env=env, stdout=-3, stderr=-3) as controller:
        try:
            (place / "up").read_text()
            with matterstack.history.open(place) as past:
                place_seen = past.tasks(run="scan", task="long")
                command(place, "cancel", "scan", "long")
                assert controller.wait(WAIT_S) == 1
                # The same open object sees what came since, and kept no snapshot that holds the log back.
                assert past.tasks(run="scan", task="long")[0].reason == "CANCELLED"
                with open_journal(place / ".matterstack/journal.db") as journal:
                    journal.checkpoint()
                assert not os.path.getsize(place / ".matterstack/journal.db-wal")
        finally:
            controller.kill()
    return place, place_seen


@pytest.fixture
def past(campaign):
    with matterstack.history.open(campaign[0]) as opened:
        yield opened


def names(rows):
    return [row.task for row in rows]


def test_it_can_be_asked_while_a_controller_works(campaign):
    (long,) = campaign[1]
    assert long.state in {"PENDING", "RUNNING"}
    assert long.attempt == 1


def test_runs_have_their_counts(past):
    (run,) = past.runs()
    assert (run.run, run.pending, run.running, run.completed, run.failed) == ("scan", 0, 0, 2, 3)
    assert run.created_at <= run.started_at <= run.stopped_at


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["relax-1", "relax-2", "broken", "blocked", "long"]),
        ({"run": "scan", "task": "relax-*"}, ["relax-1", "relax-2"]),
        ({"task": "relax-?", "state": "COMPLETED"}, ["relax-1", "relax-2"]),
        ({"task": "[bl]o*"}, ["long"]),
        ({"run": "scan", "state": "FAILED"}, ["broken", "blocked", "long"]),
        ({"state": ["FAILED", "COMPLETED"], "reason": ["CANCELLED", "EXIT_CODE"]}, ["broken", "long"]),
        ({"reason": "DEPENDENCY_FAILED"}, ["blocked"]),
        ({"profile": "elsewhere"}, []),
        ({"job_id": "no such job"}, []),
        ({"since": "2999-01-01T00:00:00Z"}, []),
        ({"until": 0}, []),
        ({"since": 0, "until": "2999-01-01T00:00:00+01:00"}, ["relax-1", "relax-2", "broken", "blocked", "long"]),
    ],
)
def test_tasks_are_chosen_by_what_is_known_of_them(past, filters, expected):
    assert names(past.tasks(**filters)) == expected


def test_tasks_are_found_by_job_token_node_and_time(past):
    for row in past.tasks(run="scan", state="COMPLETED"):
        assert past.tasks(job_id=row.job_id) == past.tasks(token=[row.token]) == [row]
        assert row in past.tasks(node=row.node)
        assert row in past.tasks(since=row.recorded_at, until=row.requested_at)
        assert row not in past.tasks(since=row.recorded_at + timedelta(microseconds=1))
        assert row not in past.tasks(until=row.requested_at - timedelta(microseconds=1))


def test_attempts_have_those_before_the_last(past):
    tried = past.attempts(task="relax-2")
    assert [(row.attempt, row.state, row.exit_code) for row in tried] == [(1, "FAILED", 7), (2, "COMPLETED", 0)]
    assert tried[0].job_id != tried[1].job_id


def test_retries_say_how_it_had_failed_and_why_it_was_tried_again(past):
    (retry,) = past.retries(run="scan")
    (event,) = past.events(type="TaskRetried")
    assert (retry.task, retry.attempt, retry.reason, retry.exit_code) == ("relax-2", 1, "EXIT_CODE", 7)
    assert (retry.retried_at, retry.why) == (event.time, event.json().get("why", ""))


def test_waits_are_those_of_every_attempt(past):
    attempts = {(row.task, row.attempt): row for row in past.attempts()}
    waits = past.waits()
    assert [(row.task, row.attempt) for row in waits] == list(attempts)
    for wait in waits:
        row = attempts[wait.task, wait.attempt]
        ran = (row.ended_at - row.started_at).total_seconds() if row.ended_at and row.started_at else None
        assert wait.run_time_s == pytest.approx(ran, abs=1e-4)


def test_usage_is_the_sum_of_the_waits(past):
    for used in past.usage("scan"):
        waits = [row for row in past.waits() if (row.profile, row.state) == (used.profile, used.state)]
        assert used.attempts == len(waits)
        assert used.run_time_s == pytest.approx(sum(row.run_time_s or 0 for row in waits), abs=1e-4)
    assert sum(used.attempts for used in past.usage()) == len(past.attempts())


def test_events_are_those_of_the_journal(past):
    with open_journal(past.path, create=False, read_only=True) as journal:
        recorded = [(r.position, r.time, r.stream, r.subject.partition("/")[2], r.type, r.data.decode())
                    for r in journal.read_all() if not r.stream.endswith("/requests")]  # fmt: skip
    assert past.events() == past.events(run="scan") == recorded
    assert past.events(run="scan", task="relax-2") == [event for event in recorded if event[3] == "relax-2"]
    assert past.events(task="relax-*") == past.events(run="scan", task="relax-*")
    assert past.events(task="relax-*") == [event for event in recorded if event[3].startswith("relax")]
    first, last = recorded[4][1], recorded[9][1]
    for run in ("scan", None):
        window = [event for event in recorded if first <= event[1] <= last]
        assert past.events(run=run, since=first, until=last) == window
    assert {event.type for event in past.events(type=["JobStarted", "TaskFailed"])} == {"JobStarted", "TaskFailed"}


def test_events_of_an_attempt_are_not_those_of_the_others(past):
    first, second = past.attempts(task="relax-2")
    events = past.events(job_id=first.job_id)
    assert [event.type for event in events][-1] == "TaskRetried"
    later = past.events(token=second.token)
    assert later == past.events(run="scan", task="relax-2")[-len(later) :]
    assert {event.task for event in past.events(state="FAILED")} == {"relax-2", "broken", "blocked", "long"}
    assert [event.task for event in past.events(reason="CANCELLED", type="TaskFailed")] == ["long"]
    assert past.events(job_id=first.job_id, until=events[0].time)[0] == events[0]
    assert past.events(job_id=first.job_id, until=events[0].time - timedelta(microseconds=1)) == []


def test_a_timeline_has_the_state_after_each_event(past):
    steps = past.timeline("scan", "relax-2")
    assert [step.state for step in steps if step.type.startswith("Task")] == [
        "PENDING",
        "FAILED",
        "PENDING",
        "COMPLETED",
    ]
    assert [step.attempt for step in steps] == sorted(step.attempt for step in steps)
    assert sum(step.after_s for step in steps) == pytest.approx((steps[-1].time - steps[0].time).total_seconds())
    (failed,) = [step for step in steps if step.type == "TaskFailed"]
    assert "exit code 7" in failed.what


def test_the_end_of_the_journal_is_the_present(past):
    assert past.at("2999-01-01T00:00:00Z", run="scan") == past.at("2999-01-01T00:00:00Z") == past.tasks(run="scan")


def test_counts_over_time_are_those_of_each_moment(past):
    rows = past.counts_over_time("scan", 1)
    for row in rows:
        states = [task.state for task in past.at(row.time - timedelta(microseconds=1), run="scan")]
        counted = tuple(states.count(state) for state in ("PENDING", "RUNNING", "COMPLETED", "FAILED"))
        assert row[1:] == counted
    assert rows[-1][1:] == (0, 0, 2, 3)


# ---- views --------------------------------------------------------------------------------------


def test_views_have_what_the_rows_have(past):
    pairs = {
        "history_runs": past.runs(), "history_tasks": past.tasks(), "history_attempts": past.attempts(),
        "history_events": past.events(), "history_waits": past.waits(), "history_retries": past.retries(),
        "history_usage": past.usage(),
    }  # fmt: skip
    assert {*pairs, "history_counts", "history_attempt_usage"} == set(VIEWS)
    for view, rows in pairs.items():
        found = past.view(view)
        assert found.kind._fields[: len(rows.kind._fields)] == rows.kind._fields
        shown = [row[: len(rows.kind._fields)] for row in found]
        assert len(shown) == len(rows), view
        for in_view, row in zip(sorted(shown, key=identity), sorted(rows, key=identity), strict=True):
            assert seconds(in_view) == pytest.approx(seconds(row), abs=0.0011), view
            assert identity(in_view) == identity(row), view
    assert past.view("history_counts", run="scan")[-1][2:] == past.counts_over_time("scan", 1)[-1][1:]


def is_time(value):
    return isinstance(value, (datetime, float)) or bool(re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", str(value)))


def identity(row):
    return [str(value) for value in map(plain, row) if not is_time(value)]


def plain(value):
    return int(value) if isinstance(value, bool) else value


def seconds(row):
    """Return the times and durations of a row as seconds; views have their times as text, to the millisecond."""
    found = [datetime.fromisoformat(value) if isinstance(value, str) else value for value in row if is_time(value)]
    return [value.timestamp() if isinstance(value, datetime) else value for value in found]


def test_views_are_open_to_any_tool(past):
    connection = sqlite3.connect(f"file:{past.path}?mode=ro", uri=True)
    for view in VIEWS:
        assert connection.execute(f"SELECT count(*) FROM {view}").fetchone()[0], view
    plan = connection.execute("EXPLAIN QUERY PLAN SELECT * FROM history_tasks WHERE subject = 'scan/long'").fetchall()
    assert "SEARCH tasks" in plan[0][3]
    connection.close()


def test_a_view_that_was_changed_by_hand_is_found(past, tmp_path):
    with open_journal(past.path, create=False, read_only=True) as journal:
        journal.backup(tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        connection.execute("DROP VIEW history_waits")
        connection.execute("CREATE VIEW history_waits AS SELECT 1")
    with open_journal(tmp_path / "copy.db", create=False, read_only=True) as journal:
        (problem,) = journal.verify().problems
    assert "history_waits" in problem.what


# ---- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda past: past.tasks(run="scn"), "no run 'scn'. Did you mean 'scan'?"),
        (lambda past: past.at(0, run="scn"), "Did you mean 'scan'?"),
        (lambda past: past.tasks(run="scan", task="relax1"), "no task 'relax1'. Did you mean 'relax-1'?"),
        (lambda past: past.tasks(task="relax1"), "Did you mean 'relax-1'?"),
        (lambda past: past.timeline("scan", "relax1"), "'relax-*' is taken, too"),
        (lambda past: past.events(run="scan", task="brokn"), "Did you mean 'broken'?"),
        (lambda past: past.events(task="brokn"), "Did you mean 'broken'?"),
        (lambda past: past.tasks(stat="FAILED"), "no filter 'stat'. Did you mean 'state'? For example state="),
        (lambda past: past.events(runs="scan"), "no filter 'runs'. Did you mean 'run'?"),
        (lambda past: past.tasks(state="FAILD"), "no state 'FAILD'. Did you mean 'FAILED'? For example state="),
        (lambda past: past.attempts(reason="TIMOUT"), "Did you mean 'TIMEOUT'?"),
        (lambda past: past.events(type="JobStartd"), "Did you mean 'JobStarted'?"),
        (lambda past: past.events(state="FAILED", type="JobStartd"), "Did you mean 'JobStarted'?"),
        (lambda past: past.view("history_task"), "Did you mean 'history_tasks'? For example view("),
        (lambda past: past.view("tasks; DROP TABLE tasks"), "no view"),
        (lambda past: past.at("yesterday"), "such as '2026-03-01T12:00:00Z'"),
        (lambda past: past.at("2026-03-01T12:00:00"), "no zone"),
        (lambda past: past.at(float("nan")), "The journal's events are from 2"),
        (lambda past: past.at(10**400), "seconds since 1970"),
        (lambda past: past.tasks(since="soon"), "no moment 'soon'"),
        (lambda past: past.counts_over_time("scan", 0), "step_s=60"),
        (lambda past: past.counts_over_time("scan", 0.5), "step_s=60"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(past, ask, message):
    with pytest.raises(UnknownName) as caught:
        ask(past)
    assert message in str(caught.value)


@pytest.mark.parametrize("time", [1e300, -1e300, 1e15, -1e15])
def test_a_moment_beyond_all_calendars_is_only_far_away(past, time):
    assert len(past.at(time, run="scan")) == (5 if time > 0 else 0)


def test_a_directory_without_a_journal_says_what_to_do(tmp_path):
    with pytest.raises(UnknownName, match=r"Nothing was created; .* `matterstack run WORKFLOW`"):
        matterstack.history.open(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("PRAGMA user_version = 99", "newer version"),
        ("DROP TABLE projections", "no such table"),
        ("PRAGMA application_id = 7", "not a journal"),
    ],
)
def test_a_file_that_cannot_be_read_says_so(past, tmp_path, damage, words):
    with open_journal(past.path, create=False, read_only=True) as journal:
        journal.backup(tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        connection.execute(damage)
    with pytest.raises(JournalError, match=words):
        matterstack.history.open(tmp_path / "copy.db")


def test_nothing_can_be_written(past):
    with pytest.raises(JournalError, match="read-only"):
        past._journal.write(lambda connection: connection.execute("DELETE FROM tasks"), "delete")


# ---- rows ---------------------------------------------------------------------------------------


def test_without_pandas_it_says_how_to_get_it(past, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MatterStackError, match="pip install pandas"):
        past.tasks().to_pandas()


def test_a_data_frame_has_the_fields_as_columns(past):
    pandas = pytest.importorskip("pandas")
    frame = past.tasks().to_pandas()
    assert list(frame.task) == names(past.tasks())
    assert isinstance(frame, pandas.DataFrame)
    assert frame.requested_at.dt.tz is not None
    assert tuple(Rows(TaskRow).to_pandas().columns) == TaskRow._fields


def test_the_history_of_the_command_line_is_as_it_was(campaign):
    with History(campaign[0] / ".matterstack/journal.db") as history:
        assert history.runs() == ["scan"]
        assert [task.task for task in history.tasks("scan")] == [task["task_id"] for task in TASKS]
        assert {event.type for event in history.events("scan", "long")} <= set(ev.TYPES)
