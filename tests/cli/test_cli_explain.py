"""``matterstack explain``: beliefs, witnesses, what is awaited."""

import json


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
