"""``scripts/chaos``: hurt a campaign by a seed, and look whether anything was lost or ran twice."""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from cluster import Cluster

from chaos.campaign import backend_of, workflow
from chaos.relay import Relay
from matterstack import resume
from matterstack.history import History

DAEMONS = ("slurmctld", "slurmdbd", "n1", "sshd")
FAULTS = ("controller", "controller", "slurmctld", "slurmdbd", "n1", "sshd", "sessions", "reset", "stall")


class Chaos:
    """One seed: a campaign, a schedule of faults, and what must hold at the end."""

    def __init__(self, seed: int, tasks: int, *, local: bool) -> None:
        self.seed, self.tasks, self.local = seed, tasks, local
        self.chance = random.Random(seed)
        self.home = Path(tempfile.mkdtemp(prefix="ms-chaos-", dir="/tmp"))
        self.home.chmod(0o711)
        self.place = self.home / "place"
        (self.place / "log").mkdir(parents=True)
        self.faults: Counter[str] = Counter()
        self.controller: subprocess.Popen[bytes] | None = None
        self.cluster: Cluster | None = None

    def run(self, budget_s: float) -> list[str]:
        """Return what does not hold; ``budget_s``: how long faults are injected."""
        settings = {"local": self.local, "tasks": self.tasks, "seed": self.seed}
        try:
            if not self.local:
                made = Cluster(self.home / "cluster", min_job_age_s=60)
                made.up()
                self.cluster = Cluster(self.home / "cluster")
                self.relay = Relay(int(str(self.cluster.ssh_config_kwargs()["port"])))
                settings["ssh"] = {**self.cluster.ssh_config_kwargs(), "port": self.relay.port}
                known = self.cluster.home / "ssh/known_hosts"
                known.write_text(known.read_text() + self._known_line(known.read_text()))
            (self.place / "settings.json").write_text(json.dumps(settings))
            self.start_controller()
            self.hurt(time.monotonic() + budget_s)
            return self.heal_and_finish() or self.problems()
        finally:
            if self.controller is not None and self.controller.poll() is None:
                self.controller.kill()
            if self.cluster is not None:
                self.cluster.down()

    def _known_line(self, text: str) -> str:
        return f"[127.0.0.1]:{self.relay.port} {text.split(maxsplit=1)[1]}"

    def start_controller(self) -> None:
        with (self.place / "controller.log").open("ab") as log:
            words = [sys.executable, "-m", "chaos.campaign", str(self.place)]
            self.controller = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def hurt(self, until: float) -> None:
        """Inject faults until the time is over or the campaign is done."""
        while time.monotonic() < until and self.running():
            time.sleep(self.chance.uniform(1, 5))
            self.fault("controller" if self.local else self.chance.choice(FAULTS))

    def running(self) -> bool:
        assert self.controller is not None
        return self.controller.poll() is None

    def fault(self, what: str) -> None:
        self.faults[what] += 1
        pause_s = self.chance.uniform(0.2, 6)
        if what == "controller":
            assert self.controller is not None
            self.controller.send_signal(signal.SIGKILL)
            self.controller.wait()
            time.sleep(pause_s / 4)
            self.start_controller()
            return
        assert self.cluster is not None
        if what == "sessions":
            self.cluster.kill_sessions()
        elif what == "reset":
            self.relay.reset()
        elif what == "stall":
            self.relay.stall()
            time.sleep(2 * pause_s)
            self.relay.go_on()
        else:
            self.cluster.kill(what)
            time.sleep(pause_s)
            self.cluster.start(what)

    def heal_and_finish(self) -> list[str]:
        """Wait for the end of the campaign without further faults; return why it did not come."""
        if self.cluster is not None:
            for name in DAEMONS:
                self.cluster.start(name)
            self.cluster.run(["scontrol", "update", "nodename=n[1-2]", "state=resume"])
        deadline = time.monotonic() + 600
        while self.running() and time.monotonic() < deadline:
            time.sleep(0.5)
            if self.cluster is not None:  # slurmd drains a node that met a used id again
                drained = self.cluster.run(["sinfo", "-h", "-N", "-t", "drain,down", "-o", "%N"]).stdout.split()
                for node in drained:
                    self.cluster.run(["scontrol", "update", f"nodename={node}", "state=resume"])
        assert self.controller is not None
        if self.running() or self.controller.returncode != 0:
            return [f"the last controller ended with {self.controller.poll()}: {self.last_words()}"]
        return []

    def last_words(self) -> str:
        return (self.place / "controller.log").read_text(errors="replace")[-3000:]

    def left_in_the_queue(self) -> str:
        """Return what stays there: a controller that was killed learns anew from the nodes what has ended."""
        deadline = time.monotonic() + 180
        left = "?"
        while self.cluster is not None and left and time.monotonic() < deadline:
            left = self.cluster.run(["squeue", "-h", "-r"]).stdout.strip()
            time.sleep(0.5)
        return left if self.cluster is not None else ""

    def problems(self) -> list[str]:
        """Return what does not hold at the end."""
        found: list[str] = []
        settings = json.loads((self.place / "settings.json").read_text())
        backend = backend_of(self.place, settings)
        result = resume(journal=self.place / "j.db", backend=backend)
        for name in workflow(self.place, self.tasks, self.seed).tasks:
            starts = Counter((self.place / "log" / name).read_text().split())
            if result[name].state != "COMPLETED":
                found.append(f"{name} is {result[name]}")
            if any(count > 1 for count in starts.values()):
                found.append(f"{name}: starts by attempt {dict(starts)}")
            if starts[str(result[name].attempts)] != 1:
                found.append(f"{name}: completed attempt {result[name].attempts}, starts {dict(starts)}")
            if not (self.place / "results/chaos" / name / str(result[name].attempts) / "out").is_file():
                found.append(f"{name}: its result is not here")
        backend.close()
        with History(self.place / "j.db") as history:
            events = Counter(event.type for event in history.events("chaos"))
        if left := self.left_in_the_queue():
            found.append(f"left in the queue: {left}")
        print(
            f"   attempts {events['SubmitRequested']}, starts {events['JobStarted']}, retries {events['TaskRetried']}"
        )
        return found


def main() -> int:
    """Run the seeds; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--budget", type=float, default=180, help="seconds in which faults are injected")
    parser.add_argument("--local", action="store_true", help="LocalBackend; its controller is killed")
    options = parser.parse_args()
    bad = 0
    for seed in range(options.first, options.first + options.seeds):
        begin = time.monotonic()
        chaos = Chaos(seed, options.tasks, local=options.local)
        problems = chaos.run(options.budget)
        faults = ", ".join(f"{name} {count}" for name, count in sorted(chaos.faults.items()))
        verdict = "FAILED" if problems else "ok"
        print(f"{verdict} seed {seed}: {chaos.faults.total()} faults ({faults}), {time.monotonic() - begin:.0f} s")
        for problem in problems:
            print(f"   {problem}")
        bad += bool(problems)
        if problems:
            print(f"   kept: {chaos.home}")
        else:
            shutil.rmtree(chaos.home, ignore_errors=True)
        sys.stdout.flush()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
