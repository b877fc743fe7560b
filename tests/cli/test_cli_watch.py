"""``watch`` on a pseudo-terminal, and into a pipe."""

import re
import sys
import termios

import pytest
from cli_project import ROOT

sys.path.insert(0, str(ROOT / "tests/report"))

from page_journals import RUN, Story

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202e[red]x[/red]\r\nINJECTED"
OPENED, CLOSED = "\x1b[?1049h", "\x1b[?1049l"
SIZE = (24, 80)


def frames(text):
    """Return what was drawn each time, as lines without colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return [frame.replace("\r", "").split("\n") for frame in plain.split("\x1b[H")[1:]]


@pytest.fixture
def told(project):
    """Journal of a run that never ran, in the project's directory."""
    (project.path / ".matterstack").mkdir()
    return Story(project.path / ".matterstack/journal.db")


def test_it_follows_a_run_until_q(waiting, terminal):
    controller = waiting.start("run", "wf.yaml")
    waiting.until_state("t1", "RUNNING")
    screen = terminal("watch", size=SIZE)
    before = termios.tcgetattr(screen.fd)
    screen.until("running 2")
    screen.until("JobStarted       t1")
    (waiting.path / "go").touch()
    screen.until("5 of 5 tasks COMPLETED")
    screen.until("finished")
    screen.type("q")
    assert screen.end() == 0
    assert screen.screen.index(OPENED) < screen.screen.index("running 2") < screen.screen.index(CLOSED)
    assert termios.tcgetattr(screen.fd) == before
    assert controller.wait(30) == 0


def test_ctrl_c_leaves_and_the_run_goes_on(waiting, terminal):
    controller = waiting.start("run", "wf.yaml")
    waiting.until_state("t1", "RUNNING")
    screen = terminal("watch", "demo", size=SIZE)
    screen.until("q or Ctrl-C leaves")
    screen.type("\x03")
    assert screen.end() == 130
    assert CLOSED in screen.screen
    assert controller.poll() is None
    (waiting.path / "go").touch()
    assert controller.wait(30) == 0


def test_it_fits_the_terminal_however_much_there_is(told, terminal):
    for i in range(60):
        name = f"task-{i}-" + "x" * 100
        told.task(i, name)
        told.attempt(name, at=1 + i)
        if i % 2:
            told.failed(name, 100 + i, detail="y" * 300)
    told.write()
    screen = terminal("watch", size=SIZE)
    screen.until("q or Ctrl-C leaves")
    screen.until("\x1b[H\x1b[1m")  # the frame after the first: that one is whole
    screen.type("q")
    assert screen.end() == 0
    for frame in frames(screen.screen)[:-1]:
        assert len(frame) <= SIZE[0]
        assert max(map(len, frame)) <= SIZE[1]
    whole = next(text for text in map("\n".join, frames(screen.screen)) if "running" in text)
    for part in (
        "running 30, the first 5 of them",
        "failed 30, the first 5 of them",
        "last events",
        "task-59-",
        "q or",
    ):
        assert part in whole


def test_text_of_others_does_not_act(told, terminal, project):
    told.task(0, "a")
    told.attempt("a", at=1, job_id=HOSTILE)
    told.task(1, "b")
    told.attempt("b", at=1, job_id="9")
    told.failed("b", 9, detail=HOSTILE)
    told.write()
    screen = terminal("watch", size=(24, 160))
    screen.until("q or Ctrl-C leaves")
    screen.type("q")
    assert screen.end() == 0
    piped = project.ms("watch").stdout
    for text in (screen.screen, piped):
        assert "\x1b]0;" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert text.count("\\x1b]0;owned\\x07\\x1b[2J\\u202e[red]x[/red]\\r\\nINJECTED") >= 2


def test_into_a_pipe_it_is_said_once_without_colours(told, project):
    told.task(0, "a")
    told.attempt("a", at=1)
    told.failed("a", 9, exit_code=7)
    told.write()
    done = project.ms("watch", RUN)
    assert "0 of 1 tasks COMPLETED, 1 FAILED" in done.stdout
    assert "a  EXIT_CODE, exit code 7" in done.stdout
    assert "TaskFailed" in done.stdout
    assert "\x1b" not in done.stdout


def test_an_unknown_run_is_said_before_the_screen_is_taken(told, project, terminal):
    told.write()
    assert "nothere" in project.fails("watch", "nothere")
    screen = terminal("watch", "nothere", size=SIZE)
    assert screen.end() == 2
    assert OPENED not in screen.screen
