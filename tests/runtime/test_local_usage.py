"""What local attempts used: CPU time from the shells that ran them, and a reason where it is not known."""

from __future__ import annotations

import sys

import pytest
from watching import ended, eventually, number_in, running

from journal import NewEvent
from matterstack import Task, Workflow, run_workflow
from matterstack.core import events as ev
from matterstack.history.past import Past
from matterstack.runtime.backends.local import LocalBackend, processes, record
from matterstack.runtime.opening import open_journal

# Uses 0.3 s of CPU time, and leaves in a file how much it was exactly.
BURN = f"""{sys.executable} -c '
import time
while time.process_time() < 0.3: pass
open("burnt", "w").write(f"{{time.process_time() * 1000:.0f}}\\n")'"""
BURN_S = 0.3
START = f"start 1 2 3 4 {processes.boot_id()} -\n"
BEFORE = "0m7.000s 0m7.000s\n0m1.500s 1m0.250s\n"
AFTER = "0m9.000s 0m9.000s\n0m2.000s 2m1.750s\n"
END = "\nexit 0 end\n"
MEMORY = "memory: of a local task nobody measures it"
SIGNAL = "CPU time: processes that a signal ends are not all waited for"


def used(tmp_path, *tasks, slots=1):
    """Run the tasks; return their rows of the view by name and attempt, and the ledger's row of the run."""
    journal = tmp_path / "j.db"
    backend = LocalBackend(tmp_path / "results", slots, grace_s=1)
    run_workflow(Workflow("run", list(tasks)), backend=backend, journal=journal)
    backend.close()
    with Past(journal) as past:
        rows = {(row.task, row.attempt): row for row in past.view("history_attempt_usage")}
        return rows, past.ledger("run")[0]


def test_a_task_and_the_children_it_waits_for_are_measured_and_no_other_task(tmp_path):
    tasks = [
        Task(f"{BURN}; exit 3", "child", allow_failure=True),
        Task("true", "nothing"),
        Task(f"{BURN} & wait", "background", cores=2),
    ]
    rows, total = used(tmp_path, *tasks, slots=2)
    for name in ("child", "background"):
        burnt = number_in(tmp_path / f"results/run/{name}/1/burnt") / 1000
        assert burnt <= rows[name, 1].cpu_s + 0.002 < burnt + BURN_S
    assert 0 <= rows["nothing", 1].cpu_s < BURN_S
    for row in rows.values():
        assert (row.source, row.unknown, row.max_rss_b, row.cpus) == ("record", MEMORY, None, None)
        assert row.elapsed_s > 0
        assert row.nodes == processes.host()
    assert [(rows[name, 1].exit_code, rows[name, 1].asked_cores) for name in ("child", "background")] == [
        (3, 1),
        (0, 2),
    ]
    core_s = sum(row.elapsed_s * row.asked_cores for row in rows.values())
    cpu_s = sum(row.cpu_s for row in rows.values())
    assert total.cpu_hours == pytest.approx(cpu_s / 3600)
    assert total.cpu_efficiency == pytest.approx(cpu_s / core_s)
    assert total.core_hours == pytest.approx(core_s / 3600)


def test_each_attempt_has_its_own(tmp_path):
    again = Task(
        f"[ ! -e {tmp_path}/once ] || exit 0; touch {tmp_path}/once; {BURN}; exit 1",
        "a",
        retry="always",
        max_attempts=2,
    )
    rows, total = used(tmp_path, again)
    assert rows["a", 1].cpu_s >= BURN_S > rows["a", 2].cpu_s
    assert total.cpu_hours == pytest.approx((rows["a", 1].cpu_s + rows["a", 2].cpu_s) / 3600)


def test_of_what_a_signal_ended_it_is_not_known(tmp_path):
    tasks = [
        Task(f"{BURN}; kill -KILL $$", "killed", allow_failure=True),
        Task("trap 'exit 4' TERM; sleep 60 & wait", "late", time_limit_minutes=0.005, allow_failure=True),
    ]
    rows, total = used(tmp_path, *tasks)
    assert [(row.cpu_s, row.source, row.unknown) for row in rows.values()] == [
        (None, "events", f"{MEMORY}; {SIGNAL}")
    ] * 2
    assert (rows["killed", 1].signal, rows["late", 1].exit_code, rows["late", 1].reason) == (9, 4, "TIMEOUT")
    assert (total.cpu_hours, total.cpu_efficiency, total.unmeasured) == (None, None, 2)


def test_children_that_are_left_behind_do_not_count(local, tmp_path):
    backend = local(slots=1)
    left = backend.submit(Task(f"{BURN} >/dev/null 2>&1 & exit 0", "left"))
    assert ended(backend, left).cpu_s < BURN_S
    number_in(backend.workdir(left) / "burnt")
    assert ended(backend, backend.submit(Task("true", "next"))).cpu_s < BURN_S


def test_what_a_detached_task_used_is_known_to_whoever_looks_next(local, root, tmp_path):
    gate = tmp_path / "gate"
    backend = local(slots=1)
    ended(backend, backend.submit(Task(BURN, "before")))
    job_id = backend.submit(Task(f"while [ ! -e {gate} ]; do sleep 0.02; done; {BURN}", "a"))
    running(backend, job_id)
    backend.close()
    gate.touch()
    status = ended(local(), job_id)
    burnt = number_in(root / job_id / "burnt") / 1000
    assert burnt <= status.cpu_s + 0.002 < burnt + BURN_S


def test_a_task_that_reaches_for_the_shells_names_is_measured_all_the_same(local):
    backend = local(slots=1)
    for name in ("TIMEFORMAT", "ms_r", "LC_ALL"):
        job_id = backend.submit(Task(BURN, f"a-{name}", env={name: "x"}))
        assert ended(backend, job_id).cpu_s >= BURN_S


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BEFORE + START + AFTER + END, 62.0),
        (BEFORE + START + "timeout\n" + AFTER + END, 62.0),
        ((BEFORE + START + AFTER + END).replace(".", ","), 62.0),
        (BEFORE + START + AFTER.replace("2.000", "1.499").replace("2m1.750", "1m0.251") + END, 0.0),
        (BEFORE + START + "0m3.000s 0m1." + AFTER + END, 62.0),  # tried again after the disk was full
        (START + END, None),  # of an earlier version
        (START + AFTER + END, None),
        (BEFORE + START + END, None),
        (BEFORE.splitlines(keepends=True)[0] + START + AFTER + END, None),
        (BEFORE + START + AFTER.splitlines(keepends=True)[0] + END, None),
        (AFTER + START + BEFORE + END, None),
        (BEFORE + START + AFTER, None),
    ],
)
def test_what_a_record_says_of_the_time(text, expected):
    found = record.parse(text.encode(), 0)
    assert found.cpu_s == expected
    assert found.exit_code == (0 if text.endswith(END) else None)


def test_every_cut_of_a_record_is_no_time_and_no_end():
    whole = (BEFORE + START + AFTER + END).encode()
    for cut in range(len(whole)):
        found = record.parse(whole[:cut], 0)
        assert (found.cpu_s, found.exit_code) == (None, None), whole[:cut]


def test_the_end_of_a_task_that_an_earlier_version_started_is_read(local):
    backend = local(slots=1)
    gate = backend.submit(Task("sleep 60", "gate"))
    running(backend, gate)
    job_id = backend.submit(Task("true", "old"))
    eventually(lambda: backend.workdir(job_id).is_dir())
    (backend.workdir(job_id) / record.RECORD).write_text(START + END)
    status = backend.poll(job_id)
    assert (status.state, status.cpu_s) == ("COMPLETED", None)
    backend.cancel(gate)


def test_an_attempt_that_was_refused_does_not_take_the_time_of_the_one_before(tmp_path):
    used(tmp_path, Task(f"{BURN}; exit 1", "a", allow_failure=True))
    more = [ev.TaskRetried(), ev.SubmitRequested(2, "ms-2"), ev.SubmitRefused("no room")]
    with open_journal(tmp_path / "j.db", create=False) as opened:
        opened.append("run", [NewEvent(type(event).__name__, "run/a", ev.encode(event)) for event in more])
    with Past(tmp_path / "j.db") as past:
        first, second = past.view("history_attempt_usage")
    assert first.cpu_s >= BURN_S
    assert (second.attempt, second.cpu_s) == (2, None)
    assert second.unknown == "memory and CPU time: nobody recorded them"
