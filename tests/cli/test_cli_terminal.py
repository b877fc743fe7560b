import signal
import subprocess

import pytest
from cli_project import WAIT_S


def test_on_a_terminal_there_is_a_bar(project, terminal):
    project.workflow(("one", "true"))
    screen = terminal("run", "wf.yaml")
    assert screen.end() == 0
    assert "━" in screen.screen
    assert "1/1" in screen.screen
    assert "demo: 1 of 1 tasks COMPLETED" in screen.screen


def test_the_bar_names_what_runs(waiting, terminal):
    screen = terminal("run", "wf.yaml")
    screen.until("t0, t1")
    (waiting.path / "go").touch()
    assert screen.end() == 0


def test_elsewhere_there_are_plain_lines(project):
    project.workflow(("one", "true"))
    assert project.ms("run", "wf.yaml").stderr.splitlines()[-1] == "1 of 1 tasks COMPLETED"


def test_trouble_of_the_backend_is_told_on_plain_lines(project):
    """Nothing moves then, so that a line for changed counts alone would never come."""
    project.workflow(("one", "true", {"files": {"d/x": "text"}}))
    project.write("results/demo/one", "a file where the task's directory has to be")
    controller = project.start("run", "wf.yaml")
    lines = []
    while not any("[paused: local: could not start" in line for line in lines):
        lines.append(controller.stderr.readline())
        assert lines[-1], lines
    assert "the run goes on by itself when this is mended" in lines[-1]
    (project.path / "results/demo/one").unlink()
    assert controller.wait(WAIT_S) == 0


def test_ctrl_c_lets_tasks_go_on_and_says_how_to_resume(waiting, terminal):
    screen = terminal("run", "wf.yaml")
    waiting.until_state("t0", "RUNNING")
    waiting.until_state("t1", "RUNNING")
    screen.type("\x03")
    assert screen.end() == 130
    assert "nothing more is submitted; 2 submitted or running tasks go on" in " ".join(screen.screen.split())
    assert "`matterstack resume demo`" in screen.screen
    found = waiting.json("status")
    assert found["why"] == "interrupted"
    assert [(t["state"], t["stage"]) for t in found["tasks"]] == [
        ("RUNNING", ""),
        ("RUNNING", ""),
        ("PENDING", "waiting"),
        ("PENDING", "waiting"),
        ("PENDING", "waiting"),
    ]
    (waiting.path / "go").touch()
    assert waiting.json("resume")["counts"] == {"PENDING": 0, "RUNNING": 0, "COMPLETED": 5, "FAILED": 0}
    assert [waiting.ran(task) for task in ("t0", "t1", "t2", "u0", "u1")] == [1] * 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_controller_but_no_task(waiting, number):
    controller = waiting.start("run", "wf.yaml")
    waiting.until_state("t0", "RUNNING")
    waiting.until_state("t1", "RUNNING")
    controller.send_signal(number)
    _, words = controller.communicate(timeout=WAIT_S)
    assert controller.returncode == 130
    assert "`matterstack resume demo` takes the run up again" in words
    assert "Traceback" not in words
    (waiting.path / "go").touch()
    waiting.ms("resume")
    assert [waiting.ran(task) for task in ("t0", "t1", "t2")] == [1] * 3


def test_a_second_ctrl_c_asks_and_y_cancels(waiting, terminal):
    screen = terminal("run", "wf.yaml")
    waiting.until_state("t0", "RUNNING")
    waiting.until_state("t1", "RUNNING")
    screen.type("\x03")
    screen.until("`matterstack resume demo`")
    screen.type("\x03")
    screen.until("Cancel the running tasks? [y/N]")
    screen.type("y\n")
    assert screen.end() == 130
    tasks = {task["task"]: task for task in waiting.json("status")["tasks"]}
    assert [tasks[name]["reason"] for name in ("t0", "t1")] == ["CANCELLED", "CANCELLED"]
    assert tasks["t2"]["stage"] == "waiting"
    assert waiting.ran("t2") == 0


@pytest.mark.parametrize("answer", ["\n", "\x03"], ids=["enter", "a third Ctrl-C"])
def test_a_second_ctrl_c_asks_and_anything_else_leaves_tasks_running(waiting, terminal, answer):
    screen = terminal("run", "wf.yaml")
    waiting.until_state("t0", "RUNNING")
    waiting.until_state("t1", "RUNNING")
    screen.type("\x03")
    screen.until("`matterstack resume demo`")
    screen.type("\x03")
    screen.until("Cancel the running tasks? [y/N]")
    screen.type(answer)
    assert screen.end() == 130
    assert waiting.states()["t0"] == "RUNNING"
    (waiting.path / "go").touch()
    waiting.ms("resume")
    assert [waiting.ran(task) for task in ("t0", "t1", "t2")] == [1] * 3


def test_a_second_signal_without_a_terminal_cancels_nothing(waiting):
    controller = waiting.start("run", "wf.yaml")
    waiting.until_state("t0", "RUNNING")
    waiting.until_state("t1", "RUNNING")
    controller.send_signal(signal.SIGINT)
    assert "Interrupted" in "".join(iter(lambda: controller.stderr.read(1), ":"))
    controller.send_signal(signal.SIGINT)
    assert controller.wait(WAIT_S) == 130
    assert waiting.states()["t0"] == "RUNNING"


def test_ctrl_c_while_following_logs_is_quiet(waiting, terminal):
    waiting.start("run", "wf.yaml", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    waiting.until_state("t0", "RUNNING")
    screen = terminal("logs", "demo", "t0", "--follow")
    screen.until("waiting")
    screen.type("\x03")
    assert screen.end() == 130
