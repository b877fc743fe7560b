"""``matterstack explain``: beliefs, witnesses, what is awaited."""

import json
import signal

import pytest
from cli_project import WAIT_S, until

from journal import NewEvent
from matterstack import Task
from matterstack.core import events as ev
from matterstack.core.spec import to_spec
from matterstack.runtime.opening import open_journal

ONE_AT_A_TIME = """
    profiles:
      local: {backend: local, workspace_root: results, max_concurrent_tasks: 1}
"""


def test_it_tells_of_a_running_task_what_its_witnesses_say_and_what_is_awaited(project):
    project.workflow(("one", project.counted("one", "exec sleep 60")), ("two", "true", {"dependencies": ["one"]}))
    project.start("run", "wf.yaml", "-q")
    project.until_state("one", "RUNNING")
    words = project.ms("explain", "demo", "one").stdout
    assert "attempt 1: RUNNING" in words
    assert "SubmitRequested" in words
    assert "adds up to                RUNNING" in words
    assert "awaited     its exit record" in words
    other = project.ms("explain", "demo", "two").stdout
    assert "PENDING (waiting)" in other
    assert "awaited     the end of one" in other
    project.ms("cancel", "demo")


def test_it_tells_of_an_ended_task_that_nothing_is_awaited(project):
    project.workflow(("one", "exit 3"))
    project.ms("run", "wf.yaml", code=1)
    words = project.ms("explain", "demo", "one").stdout
    assert "FAILED EXIT_CODE" in words
    assert "awaited     nothing" in words
    found = json.loads(project.ms("explain", "demo", "one", "--json").stdout)
    assert found["evidence"]["exit_code"] == 3
    assert [fact["type"] for fact in found["facts"]] == ["SubmitRequested", "JobSubmitted", "JobStarted", "TaskFailed"]


def test_without_asking_it_answers_from_the_journal_alone(project):
    project.workflow(("one", "true"))
    project.ms("run", "wf.yaml")
    assert "asked now" not in project.ms("explain", "demo", "one", "--no-ask").stdout


def test_an_unknown_task_is_told_with_the_nearest(project):
    project.workflow(("one", "true"))
    project.ms("run", "wf.yaml")
    assert "Did you mean 'one'?" in project.fails("explain", "demo", "onee")


def test_a_task_that_was_taken_back_awaits_a_controller_and_no_dependencies(project):
    """Ctrl-C takes back what was offered to the backend and has not started."""
    project.write("matterstack.yaml", ONE_AT_A_TIME)
    project.workflow(("one", project.counted("one", "exec sleep 60")), ("two", "true"))
    controller = project.start("run", "wf.yaml", "-q")
    project.until_state("one", "RUNNING")
    until(lambda: "JobSubmitted" in project.ms("history", "demo", "two").stdout, "two to be offered")
    controller.send_signal(signal.SIGINT)
    controller.communicate(timeout=WAIT_S)
    words = project.ms("explain", "demo", "two").stdout
    assert "PENDING (waiting)" in words
    assert "awaited     a controller that submits it again: `matterstack resume demo`; taken back before it" in words
    assert "depends" not in words
    assert project.json("explain", "demo", "two")["awaited"].startswith("a controller")
    project.ms("cancel", "demo")


def test_a_task_whose_turn_has_not_come_awaits_its_controller(project):
    project.write("matterstack.yaml", ONE_AT_A_TIME)
    many = [(f"t{i:02}", "true") for i in range(40)]  # more than are offered ahead
    project.workflow(("one", project.counted("one", "exec sleep 60")), *many)
    project.start("run", "wf.yaml", "-q")
    project.until_state("one", "RUNNING")
    words = project.ms("explain", "demo", "t39").stdout
    assert "awaited     that its controller submits it, when its turn comes" in words
    project.ms("cancel", "demo")


def test_a_task_behind_an_unknown_end_awaits_a_decision(project):
    project.workflow(("one", "kill -9 $PPID $$; sleep 60"), ("two", "true", {"dependencies": ["one"]}))
    project.ms("run", "wf.yaml", code=1)
    assert "FAILED INTERRUPTED" in project.ms("explain", "demo", "one").stdout
    words = project.ms("explain", "demo", "two").stdout
    assert (
        "awaited     your decision on one, of which it is not known how it ended: `matterstack resume demo --" in words
    )


def left_with(project, *more):
    """Return the project with a run of one requested task, these events of it, and no controller."""
    profile = {"name": "local", "backend": "local", "workspace_root": "results", "max_concurrent_tasks": 1}
    facts = [
        ("demo", ev.RunCreated("k", "demo", "0", profile)),
        ("demo/one", ev.TaskAdded(0, "h", to_spec(Task("true", "one"), {}))),
        ("demo/one", ev.SubmitRequested(1, "ms-1")),
        *[("demo/one", event) for event in more],
    ]
    with open_journal(project.path / ".matterstack/journal.db") as journal:
        journal.append("demo", [NewEvent(type(e).__name__, subject, ev.encode(e)) for subject, e in facts])
    return project


@pytest.fixture
def stalled(project):
    """A run whose job the scheduler will not start; the profile's host is not asked."""
    return left_with(project, ev.JobSubmitted("7@demo/one/1"), ev.JobStalled("PartitionNodeLimit", 1_700_000_000.0))


def test_a_task_whose_submission_is_in_doubt_awaits_a_controller_that_asks(project):
    left_with(project, ev.SubmitUnknown("the answer of sbatch was lost"))
    words = project.ms("explain", "demo", "one", "--no-ask").stdout
    assert "awaited     a controller that asks whether it was submitted: `matterstack resume demo`" in words
    assert "has no job: it is PENDING (submitting)" in project.ms("logs", "demo", "one").stderr


def test_status_tells_which_jobs_the_scheduler_will_not_start_why_and_since_when(stalled):
    words = stalled.ms("status", "demo").stdout
    assert "stalled     1 queued task since 2023-11-14T22:13:20Z: Slurm says PartitionNodeLimit: one\n" in words
    assert "`matterstack explain demo one` asks Slurm; mend" in words
    assert "one   PENDING (queued)  1              PartitionNodeLimit\n" in stalled.ms("status", "demo", "--all").stdout
    expected = [{"task": "one", "reason": "PartitionNodeLimit", "since": 1_700_000_000.0}]
    assert stalled.json("status", "demo")["stalled"] == expected


def test_what_a_stalled_job_awaits_is_told_without_asking(stalled):
    words = stalled.ms("explain", "demo", "one", "--no-ask").stdout
    assert "awaited     its start; Slurm will not start it as it is: PartitionNodeLimit." in words
    assert "`matterstack cancel demo one` ends it" in words
