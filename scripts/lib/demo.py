"""Runs the example campaign in a new directory below results/; see scripts/demo."""

import argparse
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "docs/examples/eos/workflow.py"
MATTERSTACK = Path(sys.executable).with_name("matterstack")
RUN = "eos"
KILL_AT = 20  # completed tasks
WAIT_S = 120.0


class Campaign:
    """One run in a directory of its own, asked only through the command line and the tasks' own files."""

    def __init__(self) -> None:
        self.place = new_directory(ROOT / "results")
        self.profile = ["--profile", "local"]
        self.journal = self.place / "journal.db"
        self.tasks = runpy.run_path(str(WORKFLOW))["workflow"].tasks

    def words(self, *words: str) -> list[str]:
        return [str(MATTERSTACK), *words, "--journal", str(self.journal)]

    def call(self, *words: str) -> int:
        """Run a command in view of the user; return its exit code."""
        print(f"\n$ matterstack {' '.join(words)} --journal {self.journal.relative_to(ROOT)}", flush=True)
        return subprocess.run(self.words(*words), cwd=self.place, check=False).returncode

    def ask(self, *words: str) -> list[dict]:
        """Return what a command answers as lines of JSON; nothing where it cannot answer yet."""
        answer = subprocess.run(self.words(*words, "--json"), cwd=self.place, capture_output=True, check=False)
        return [json.loads(line) for line in answer.stdout.splitlines()] if answer.returncode == 0 else []

    def run_words(self) -> list[str]:
        # The built-in profile puts its files into results/ in the current directory.
        return ["run", os.path.relpath(WORKFLOW, self.place), *self.profile]

    def started(self, task: str) -> list[str]:
        """Return the lines that the task's command itself wrote at each of its starts, in all attempts."""
        logs = (self.place / "results" / RUN / task).glob("*/starts.log")
        return [line for log in logs for line in log.read_text().splitlines()]

    def ended_at(self, task: str) -> float | None:
        """Return when the task's command wrote its result, None if it has not."""
        files = list((self.place / "results" / RUN / task).glob(f"*/{self.tasks[task].outputs[0]}"))
        return files[0].stat().st_mtime if files else None

    def at_work(self) -> dict[str, int]:
        """Return the tasks in whose directories processes are working now, with one process each."""
        found = {}
        for link in Path("/proc").glob("[0-9]*/cwd"):
            try:
                place = link.readlink()
            except OSError:  # the process is gone, or somebody else's
                continue
            if place.is_relative_to(self.place / "results" / RUN):
                found[place.parent.name] = int(link.parent.name)
        return found

    def file(self, name: str) -> Path:
        return max((self.place / "results" / RUN / "report").glob(f"*/{name}"))


def new_directory(parent: Path) -> Path:
    parent.mkdir(exist_ok=True)
    for number in count(1):
        try:
            (parent / f"demo-{number}").mkdir()
        except FileExistsError:
            continue
        return parent / f"demo-{number}"
    raise AssertionError


def say(words: str) -> None:
    print(f"\n== {words}", flush=True)


def show(campaign: Campaign) -> None:
    say("EMT beside experiment")
    print(campaign.file("comparison.txt").read_text(), end="")
    campaign.call("status", RUN)
    print()
    for what, path in (
        ("journal", campaign.journal),
        *((name, campaign.file(name)) for name in ("eos.png", "eos.csv", "comparison.csv")),
    ):
        print(f"{what:<15} {path.relative_to(ROOT)}")


def run_through(campaign: Campaign) -> int:
    begin = time.monotonic()
    code = campaign.call(*campaign.run_words())
    if code == 0:
        show(campaign)
        print(f"\n{len(campaign.tasks)} tasks in {time.monotonic() - begin:.1f} s.")
    return code


def run_until_killed(campaign: Campaign) -> float:
    """Start a controller, kill it when KILL_AT tasks have completed, and return when that was."""
    say(f"Starting a controller; it is killed when {KILL_AT} of {len(campaign.tasks)} tasks have completed")
    with subprocess.Popen(campaign.words(*campaign.run_words(), "--quiet"), cwd=campaign.place) as controller:
        deadline = time.monotonic() + WAIT_S
        shown = -1
        while True:
            for status in campaign.ask("status", RUN):
                completed = status["counts"]["COMPLETED"]
                if completed != shown:
                    print(f"   {completed} completed, {status['counts']['RUNNING']} running", flush=True)
                    shown = completed
                if completed >= KILL_AT:
                    wait_for_a_start(campaign)
                    controller.send_signal(signal.SIGKILL)
                    return time.time()
            if controller.poll() is not None or time.monotonic() > deadline:
                controller.kill()
                sys.exit(f"The controller did not get as far as {KILL_AT} completed tasks.")
            time.sleep(0.1)


def wait_for_a_start(campaign: Campaign) -> None:
    """Return right after one more task began, so that it is certainly at work for a while."""
    before, deadline = set(campaign.at_work()), time.monotonic() + 5
    while not set(campaign.at_work()) - before and time.monotonic() < deadline:
        time.sleep(0.005)


def watch_without_controller(campaign: Campaign, killed_at: float) -> bool:
    """Show what was under way at the kill, and that what ran goes on; return whether both are so."""
    # Looked at first: these tasks are short.
    alive = campaign.at_work()
    (status,) = campaign.ask("status", RUN)
    running = [task["task"] for task in status["tasks"] if task["state"] == "RUNNING"]
    queued = [task["task"] for task in status["tasks"] if task["stage"] in {"queued", "submitting"}]
    say(f"kill -9; no controller is left. The journal says: {json.dumps(status['counts'])}")
    print(f"   running  {len(running):>3}  {' '.join(running)}")
    print(f"   queued   {len(queued):>3}  {' '.join(queued)}")
    say("Tasks outlive their controller: those at work when it was killed end by themselves")
    deadline = time.monotonic() + WAIT_S
    for task, process in alive.items():
        while (ended_at := campaign.ended_at(task)) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        print(f"   {task:<8} process {process} {result_words(ended_at, killed_at)}")
    outlived = [task for task in alive if (campaign.ended_at(task) or 0) > killed_at]
    return check("tasks queued or running at the kill", len(running) + len(queued), at_least=5) & check(
        "tasks that ended after it, without a controller", len(outlived), at_least=1
    )


def result_words(ended_at: float | None, killed_at: float) -> str:
    if ended_at is None:
        return "never wrote its result"
    if ended_at < killed_at:
        return "had just written its result"
    return f"wrote its result {ended_at - killed_at:.2f} s after the kill"


def prove(campaign: Campaign) -> bool:
    """Show from the journal, and from what the tasks themselves left, that each was started once."""
    attempt: dict[str, int] = {}
    starts: Counter[tuple[str, int]] = Counter()
    completed: Counter[str] = Counter()
    for event in campaign.ask("history", RUN):
        task, kind = event["task"], event["type"]
        if kind == "SubmitRequested":
            attempt[task] = event["data"]["attempt"]
        elif kind == "JobStarted":
            starts[task, attempt[task]] += 1
        elif kind == "TaskCompleted":
            completed[task] += 1
    own = {task: len(campaign.started(task)) for task in campaign.tasks}
    all_tasks = len(campaign.tasks)
    say("Proof, from the journal (matterstack history) and from the starts.log that each task's command writes")
    return all(
        [
            check(
                "attempts with exactly one JobStarted",
                sum(n == 1 for n in starts.values()),
                exactly=all_tasks,
            ),
            check("attempts with more", sum(n > 1 for n in starts.values()), exactly=0),
            check(
                "tasks with exactly one TaskCompleted",
                sum(n == 1 for n in completed.values()),
                exactly=all_tasks,
            ),
            check("commands that ran exactly once", sum(n == 1 for n in own.values()), exactly=all_tasks),
            check("commands that ran twice or more", sum(n > 1 for n in own.values()), exactly=0),
            check("exit code of matterstack verify", campaign.call("verify"), exactly=0),
        ]
    )


def check(what: str, found: int, *, exactly: int | None = None, at_least: int | None = None) -> bool:
    wanted = f"{exactly}" if at_least is None else f"at least {at_least}"
    good = found == exactly if at_least is None else found >= at_least
    print(f"   {'ok    ' if good else 'FAILED'} {what}: {found} (wanted: {wanted})", flush=True)
    return good


def interrupt(campaign: Campaign) -> int:
    killed_at = run_until_killed(campaign)
    good = watch_without_controller(campaign, killed_at)
    say("Resuming")
    code = campaign.call("resume", RUN)
    if code == 0:
        show(campaign)
    good &= prove(campaign)
    print(f"\n{'Nothing was lost and nothing ran twice.' if good and code == 0 else 'THE PROOF FAILED.'}")
    return 0 if good and code == 0 else 1


def on_a_cluster(campaign: Campaign) -> int:
    """Run the same campaign on a private Slurm behind sshd."""
    from cluster import Cluster, ClusterError

    home = Path(tempfile.mkdtemp(prefix="ms-demo-", dir="/tmp"))
    home.chmod(0o711)
    cluster = Cluster(home / "cluster", min_job_age_s=300)
    try:
        say("A private Slurm with two nodes, behind sshd on loopback")
        cluster.up()
        ssh = Cluster(home / "cluster").ssh_config_kwargs()
        profile = {
            "backend": "slurm",
            "ssh": ssh,
            "workspace_root": str(home / "workspace"),
            # In the place of a module: jobs begin with the PATH of a login, not with ours.
            "slurm": {"account": "acct", "prologue": [f'export PATH="{MATTERSTACK.parent}:$PATH"']},
        }
        (campaign.place / "matterstack.yaml").write_text(json.dumps({"profiles": {"cluster": profile}}))
        campaign.profile = ["--profile", "cluster", "--config", "matterstack.yaml"]
        code = campaign.call("profiles", "check", "cluster", "--config", "matterstack.yaml")
        return code or run_through(campaign)
    except ClusterError as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 2
    finally:
        cluster.down()
        shutil.rmtree(home, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="The example campaign on this machine.")
    parser.add_argument(
        "--slurm", action="store_true", help="on a private Slurm behind sshd (root, and `scripts/cluster install`)"
    )
    parser.add_argument(
        "--interrupt",
        action="store_true",
        help="kill the controller half way, resume, prove that nothing ran twice",
    )
    options = parser.parse_args()
    return (on_a_cluster if options.slurm else interrupt if options.interrupt else run_through)(Campaign())


if __name__ == "__main__":
    sys.exit(main())
