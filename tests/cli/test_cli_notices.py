import pytest

PROFILE = """\
profiles:
  local:
    backend: local
    on:
      task_failed: echo "$MATTERSTACK_TASK $MATTERSTACK_REASON" >>told
      run_finished: {end}
"""


def told(project):
    path = project.path / "told"
    return path.read_text().splitlines() if path.exists() else []


def test_commands_of_a_profile_tell_of_failures_and_of_the_end(project):
    project.write("matterstack.yaml", PROFILE.format(end='echo "$MATTERSTACK_RUN $MATTERSTACK_STATE" >>told'))
    project.workflow(("a", "exit 1"), ("b", "true"))
    project.ms("run", "wf.yaml", code=1)
    assert told(project) == ["a EXIT_CODE", "demo finished"]
    assert "NotificationDelivered" in project.ms("history").stdout
    assert "notice" not in project.ms("status").stdout
    assert project.json("status")["notices"] == []
    shown = project.ms("profiles", "show", "local").stdout
    project.write("matterstack.yaml", shown)
    assert project.ms("profiles", "show", "local").stdout == shown, "what it prints is a profile file"


def test_a_used_up_budget_is_an_end_too(project):
    project.write("matterstack.yaml", PROFILE.format(end='echo "$MATTERSTACK_STATE, $MATTERSTACK_DETAIL" >>told'))
    project.workflow(("a", "true"))
    project.ms("run", "wf.yaml", "--budget", 0, code=1)
    assert told(project) == ["budget, the budget of 0 core hours is reached, 0 are used"]


def test_what_cannot_be_told_is_in_the_status_and_resuming_tries_it_as_recorded(project):
    project.write("matterstack.yaml", PROFILE.format(end='"[ -e go ] || { echo no mail >&2; exit 7; }"'))
    project.workflow(("a", "true"))
    project.ms("run", "wf.yaml")
    line = "notice      run_finished: owed, 1 of 5 tries so far: ended with exit code 7: no mail"
    assert line in project.ms("status").stdout.splitlines()
    (notice,) = project.json("status")["notices"]
    assert (notice["tries"], notice["given_up"], notice["event"]["on"]) == (1, False, "run_finished")
    project.write("matterstack.yaml", "profiles: {}")
    for _ in range(4):
        project.ms("resume")
    line = "notice      run_finished: given up after 5 tries: ended with exit code 7: no mail"
    assert line in project.ms("status").stdout.splitlines()
    before = project.ms("history").stdout
    project.ms("resume")
    assert project.ms("history").stdout == before
    project.ms("verify")


@pytest.mark.parametrize(
    ("on", "line", "words"),
    [
        ("{task_failled: x}", 4, "unknown key 'task_failled'. Did you mean 'task_failed'?"),
        ("{task_failed: [x]}", 4, "expected text or nothing, got a list"),
        ("{task_failed: 1}", 4, "expected text or nothing, got a whole number"),
        ("{task_failed: ' '}", 4, "must be a command of the shell"),
        ("mail me", 4, "expected a mapping of keys to values, got text"),
    ],
)
def test_commands_without_sense_are_refused_with_their_line(project, on, line, words):
    project.write("matterstack.yaml", f"profiles:\n  local:\n    backend: local\n    on: {on}\n")
    project.workflow(("a", "true"))
    message = project.fails("run", "wf.yaml")
    assert f"matterstack.yaml:{line}: profiles.local.on" in message
    assert words in message
