import os
import pty
import select
import signal
import subprocess
import time

import pytest
from cli_project import COMMAND, WAIT_S


class Terminal:
    """A command on a pseudo-terminal of its own, which is its controlling terminal: ``\\x03`` is a real Ctrl-C."""

    def __init__(self, project, *arguments):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.chdir(project.path)
            os.execve(COMMAND[0], [*COMMAND, *arguments], project.env | {"COLUMNS": "200"})
        self.pid, self.screen, self.code = pid, "", None

    def read(self):
        """Add what came to the screen; return False at the end."""
        if not select.select([self.fd], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)

    def until(self, words):
        deadline = time.monotonic() + WAIT_S
        while words not in self.screen:
            assert time.monotonic() < deadline, f"no {words!r} on the screen:\n{self.screen}"
            self.read()

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        """Return the exit code."""
        deadline = time.monotonic() + WAIT_S
        while self.read():
            assert time.monotonic() < deadline, f"it goes on:\n{self.screen}"
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        assert "Traceback" not in self.screen, self.screen
        return self.code

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(project):
    made = []

    def open_terminal(*arguments):
        made.append(Terminal(project, *arguments))
        return made[-1]

    yield open_terminal
    for one in made:
        one.close()


@pytest.fixture
def waiting(project):
    """A project whose three tasks wait for the file ``go``, two at a time; two more come after them."""
    wait = "echo waiting; while [ ! -e ../../../../go ]; do sleep 0.02; done"
    first = [(f"t{i}", project.counted(f"t{i}", wait)) for i in range(3)]
    later = [(f"u{i}", project.counted(f"u{i}"), {"dependencies": ["t0", "t1"]}) for i in range(2)]
    project.workflow(*first, *later)
    project.write("matterstack.yaml", "profiles: {local: {backend: local, max_concurrent_tasks: 2, grace_s: 1}}")
    return project


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
