"""The tables are what the events say, however many are folded at once; an event that does not fit is refused."""

from __future__ import annotations

import sqlite3
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import Journal, NewEvent
from journal.event import NO_HASH, RecordedEvent
from journal.projection import create_tables
from journal.verify import verify
from matterstack.core import events as ev
from matterstack.core.machine import SAME, TRANSITIONS, State
from matterstack.core.usage import Usage
from matterstack.errors import IllegalTransition
from matterstack.runtime.projections import TaskTables

TABLES = ("tasks", "past_attempts", "counts", "moves", "usage", "usage_rows", "recorded_files")
NEXT = {(kind, source): target for kind, sources, target in TRANSITIONS for source in sources}


MADE = {
    "TaskAdded": lambda n: ev.TaskAdded(order=n, spec_hash=f"{n:032x}", spec={}),
    "TaskChanged": lambda n: ev.TaskChanged(order=n, spec_hash=f"{n:032x}", spec={}),
    "SubmitRequested": lambda n: ev.SubmitRequested(attempt=n, token=f"ms-{n}", profile=("", "gpu")[n % 2]),
    "JobSubmitted": lambda n: ev.JobSubmitted(job_id=str(n)),
    "JobStarted": lambda n: ev.JobStarted(started_at=1000.0 + n, node=f"n{n}"),
    "TaskCompleted": lambda n: ev.TaskCompleted(ended_at=2000.25 + n),
    "TaskFailed": lambda n: ev.TaskFailed(reason="EXIT_CODE", exit_code=n % 100 + 1, ended_at=2000.5 + n),
    "FilesRecorded": lambda n: ev.FilesRecorded(attempt=n, files={"out": ev.FileSum(f"{n:064x}", n)}),
    "UsageRecorded": lambda n: ev.UsageRecorded(attempt=n, usage=Usage(source="sacct", cpu_s=float(n))),
}


def made(kind: str, n: int) -> ev.Event:
    """Return an event of a type with values that tell it from others."""
    return MADE[kind](n) if kind in MADE else ev.TYPES[kind]()


def recorded(position: int, subject: str, kind: str) -> RecordedEvent:
    data = ev.encode(made(kind, position))
    return RecordedEvent(position, "r", position, subject, kind, 700_000 * position, data, NO_HASH)


@st.composite
def histories(draw: st.DrawFn) -> list[RecordedEvent]:
    """Return what may happen to a few tasks, in any order that the table of transitions allows."""
    states: dict[str, State] = {}
    events: list[RecordedEvent] = []
    for _ in range(draw(st.integers(1, 60))):
        subject = f"r/t{draw(st.integers(0, 2))}"
        if subject not in states:
            kind, states[subject] = "TaskAdded", State.PENDING
        else:
            kind = draw(st.sampled_from([kind for kind, source in NEXT if source == states[subject]]))
            target = NEXT[kind, states[subject]]
            states[subject] = states[subject] if target is SAME else target
        events.append(recorded(len(events) + 1, subject, kind))
    return events


def folded(*chunks: list[RecordedEvent]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create_tables(connection, TaskTables())
    for chunk in chunks:
        TaskTables().apply(connection, chunk)
    return connection


def rows(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in TABLES}


@settings(deadline=None, max_examples=200)
@given(events=histories(), cuts=st.sets(st.integers(0, 60)))
def test_the_tables_do_not_depend_on_how_many_events_are_folded_at_once(events, cuts):
    one_by_one = rows(folded(*([event] for event in events)))
    pieces = groupby(events, key=lambda event: sum(event.position > cut for cut in cuts))
    assert rows(folded(*(list(piece) for _, piece in pieces))) == one_by_one
    assert rows(folded(events)) == one_by_one


@settings(deadline=None, max_examples=100)
@given(events=histories())
def test_counts_and_moves_are_those_of_the_tasks(events):
    connection = folded(events)
    there = dict(connection.execute("SELECT state, count(*) FROM tasks WHERE NOT dropped GROUP BY state"))
    counts = dict(connection.execute("SELECT state, n FROM counts WHERE n <> 0"))
    moved = connection.execute(
        "SELECT state, sum(n) FROM (SELECT after AS state, n FROM moves UNION ALL SELECT before, -n FROM moves)"
        " WHERE state <> '' GROUP BY state HAVING sum(n) <> 0"
    )
    assert there == counts == dict(moved)


def test_an_ended_attempt_is_counted_with_its_run_time_under_its_profile():
    kinds = ("TaskAdded", "SubmitRequested", "JobSubmitted", "JobStarted", "TaskFailed", "TaskRetried")
    again = ("SubmitRequested", "JobStarted", "JobRequeued", "JobStarted", "TaskCompleted")
    events = [recorded(n, "r/t", kind) for n, kind in enumerate((*kinds, *again), 1)]
    for chunks in ([events], [[event] for event in events]):
        assert sorted(folded(*chunks).execute("SELECT * FROM usage")) == [
            ("r", "", "FAILED", 1, 1_001_500_000),
            ("r", "gpu", "COMPLETED", 1, 1_001_250_000),
        ]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", sorted({kind for kind, _ in NEXT} - {"UsageRecorded", "FilesRecorded"}))
def test_an_event_is_refused_where_its_task_is_in_another_state(kind, state):
    ways = {
        State.PENDING: (),
        State.RUNNING: ("JobStarted",),
        State.COMPLETED: ("TaskCompleted",),
        State.FAILED: ("TaskFailed",),
    }
    before = [recorded(n, "r/t", k) for n, k in enumerate(("TaskAdded", *ways[state]), 1)]
    event = recorded(9, "r/t", kind)
    for chunks in ([before, [event]], [[*before, event]]):
        if (kind, state) in NEXT:
            folded(*chunks)
        else:
            with pytest.raises(IllegalTransition) as caught:
                folded(*chunks)
            assert f"{kind}" in str(caught.value)
            assert state.value in str(caught.value)


def test_an_event_of_a_task_that_is_not_there_is_refused():
    with pytest.raises(IllegalTransition, match="not in the run"):
        folded([recorded(1, "r/t", "JobStarted")])
    with pytest.raises(IllegalTransition, match="not in the run"):
        folded([recorded(1, "r/t", "JobStarted"), recorded(2, "r/t", "TaskAdded")])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A journal with a row in every table."""
    path = tmp_path_factory.mktemp("tables") / "journal.db"
    kinds = (
        "TaskAdded",
        "SubmitRequested",
        "JobStarted",
        "TaskFailed",
        "UsageRecorded",
        "FilesRecorded",
        "TaskRetried",
    )
    created = ev.RunCreated(key="k", name="r", version="1")
    with Journal.open(path, projections=[TaskTables()]) as journal:
        journal.append("r", [NewEvent("RunCreated", "r", ev.encode(created))])
        for task in ("r/a", "r/b"):
            journal.append("r", [NewEvent(kind, task, ev.encode(made(kind, n))) for n, kind in enumerate(kinds)])
        of_run = (ev.ContactLost("no route"), ev.NotificationDue("run_finished", "finished"))
        journal.append("r", [NewEvent(type(event).__name__, "r", ev.encode(event)) for event in of_run])
    return path


def columns(path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    tables = connection.execute("SELECT tables FROM projections").fetchone()[0].split("\n")
    kinds = dict(connection.execute("SELECT name, type FROM sqlite_master"))
    return [
        (table, column)
        for table in tables
        if kinds[table] == "table"
        for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    ]


def test_verify_finds_another_value_in_any_column_of_any_table(finished, tmp_path):
    cells = columns(finished)
    assert {table for table, _ in cells} >= {*TABLES, "runs", "contacts"}
    for table, column in cells:
        path = tmp_path / "journal.db"
        path.write_bytes(finished.read_bytes())
        raw = sqlite3.connect(path)
        raw.execute(
            f'UPDATE "{table}" SET "{column}" = 77.5 WHERE rowid = 1'
            if table == "past_attempts"
            else f'UPDATE "{table}" SET "{column}" = 77.5 WHERE ({key(raw, table)}) = '
            f'(SELECT {key(raw, table)} FROM "{table}" LIMIT 1)'
        )
        raw.commit()
        raw.close()
        with Journal.open(path, projections=[TaskTables()], read_only=True) as journal:
            problems = journal.verify().problems
        assert [problem.what.split(":")[0] for problem in problems] == [f"projection matterstack, table {table}"]


def key(connection: sqlite3.Connection, table: str) -> str:
    rows = connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk ORDER BY pk", (table,))
    return ", ".join(name for (name,) in rows)


@pytest.mark.parametrize(
    ("statement", "table"),
    [
        ("DELETE FROM tasks WHERE subject = 'r/a'", "tasks"),
        ("UPDATE tasks SET subject = 'r/c' WHERE subject = 'r/a'", "tasks"),
        ("INSERT INTO counts VALUES ('r', 'GONE', 0)", "counts"),
        ("UPDATE tasks SET detail = CAST(detail AS BLOB) WHERE subject = 'r/a'", "tasks"),
    ],
)
def test_verify_finds_rows_that_are_missing_added_renamed_or_of_another_type(finished, tmp_path, statement, table):
    path = tmp_path / "journal.db"
    path.write_bytes(finished.read_bytes())
    raw = sqlite3.connect(path)
    raw.execute(statement)
    raw.commit()
    raw.close()
    with Journal.open(path, projections=[TaskTables()], read_only=True) as journal:
        (problem,) = journal.verify().problems
    assert f"table {table}:" in problem.what


def test_verify_reports_events_that_do_not_fit_each_other(tmp_path):
    path = tmp_path / "journal.db"
    with Journal.open(path) as plain:  # a writer that does not know the tables
        plain.append("r", [NewEvent("JobStarted", "r/t", b"{}")])
    problem = next(iter(verify(str(path), [TaskTables()]).problems))
    assert problem.what == (
        "projection matterstack: its events cannot be folded: "
        + str(IllegalTransition("r/t", "JobStarted", "not in the run"))
    )
