"""A project in a directory of its own, and the command line in it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "matterstack.cli.main"]
WAIT_S = 30


def until(holds, what):
    """Wait until ``holds()`` is true, and return what it gave."""
    deadline = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
        time.sleep(0.01)
    return found


class Project:
    """A directory with a workflow, and the command line in it, as real processes."""

    def __init__(self, path, env):
        self.path, self.env = path, env
        self.started = []

    def write(self, name, text):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def workflow(self, *tasks, name="demo"):
        """Write ``wf.yaml`` with these tasks, given as (id, command, other fields)."""
        entries = [{"task_id": one[0], "command": one[1], **(one[2] if len(one) > 2 else {})} for one in tasks]
        return self.write("wf.yaml", json.dumps({"name": name, "tasks": entries}))

    def ms(self, *arguments, code=0, **options):
        """Run a command to its end, and expect its exit code and no traceback."""
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=options.pop("cwd", self.path),
            env=self.env | options.pop("env", {}),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            stdin=subprocess.DEVNULL,
            check=False,
            **options,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def fails(self, *arguments, **options):
        """Run a command that cannot work; return its message."""
        done = self.ms(*arguments, code=2, **options)
        assert done.stderr.startswith("matterstack: ")
        assert not done.stdout
        return done.stderr

    def json(self, *arguments, code=0):
        return json.loads(self.ms(*arguments, "--json", code=code).stdout)

    def start(self, *arguments, **options):
        """Start a command in the background."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=self.path, env=self.env, text=True, **pipes)
        self.started.append(process)
        return process

    def states(self):
        """Return state by task, and {} before there is a run."""
        if not (self.path / ".matterstack/journal.db").exists():
            return {}
        done = subprocess.run(
            [*COMMAND, "status", "--json"], cwd=self.path, env=self.env, capture_output=True, text=True, check=False
        )
        return {t["task"]: t["state"] for t in json.loads(done.stdout)["tasks"]} if done.returncode == 0 else {}

    def ran(self, task):
        """Return how often a task that appends to ``ran/<task>`` was started."""
        path = self.path / "ran" / task
        return len(path.read_text().splitlines()) if path.exists() else 0

    def counted(self, task, then="true"):
        """Return a command that leaves a line each time it is started."""
        (self.path / "ran").mkdir(exist_ok=True)
        return f"echo started >> '{self.path}/ran/{task}'; {then}"

    def until_state(self, task, state):
        until(lambda: self.states().get(task) == state, f"{task} to be {state}")

    def until_ran(self, *tasks):
        until(lambda: all(self.ran(task) for task in tasks), f"the start of {tasks}")


def end_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
