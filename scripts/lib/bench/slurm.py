"""Runs on a private Slurm behind sshd, beside plain sbatch and scp in the same run."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cluster import Cluster
from measure import Row, progress, run

SUBJECT = Path(__file__).with_name("slurm_subject.py")
TASKS = 500
COUNTED = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr")
# Submits, waits for an empty queue, and asks accounting until it has every exit code.
RAW = """
cd {place}
clean="env -i PATH=$PATH HOME=$HOME SLURM_CONF=$SLURM_CONF"
{submit}
while [ "$(squeue -h -r --me | wc -l)" -gt 0 ]; do sleep 0.3; done
while [ "$(sacct -X -n -P -S now-1hour --name={name} -o ExitCode,State | grep -c -E 'COMPLETED|FAILED')" -lt {tasks} ]
do sleep 0.3; done
"""
LOOP = (
    "i=0; while [ $i -lt {tasks} ]; do $clean sbatch -Q --export=ALL --job-name={name} -o /dev/null job.sh;"
    " i=$((i + 1)); done"
)
ARRAY = "$clean sbatch -Q --export=ALL --array=0-{last} --job-name={name} -o /dev/null job.sh"


class Site:
    """A private cluster, with its clients' calls counted when asked for."""

    def __init__(self, min_job_age_s: int) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="ms-bench-", dir="/tmp"))
        self.home.chmod(0o711)
        self.cluster = Cluster(self.home / "cluster", min_job_age_s=min_job_age_s)
        self.cluster.up()
        self.cluster = Cluster(self.home / "cluster")
        self._calls = self.home / "calls"
        self._number = 0

    def close(self) -> None:
        self.cluster.down()
        shutil.rmtree(self.home, ignore_errors=True)

    def place(self) -> Path:
        self._number += 1
        place = self.home / f"place{self._number}"
        place.mkdir()
        (place / "job.sh").write_text("#!/bin/sh\ntrue\n")
        return place

    def ssh(self) -> list[str]:
        return ["ssh", *self._options("-p"), "root@127.0.0.1"]

    def scp(self, source: Path, target: Path) -> None:
        words = ["scp", "-q", *self._options("-P"), f"root@127.0.0.1:{source}", str(target)]
        subprocess.run(words, check=True)

    def _options(self, port: str) -> list[str]:
        at = self.cluster.ssh_config_kwargs()
        known = f"UserKnownHostsFile={at['known_hosts']}"
        return ["-F", "/dev/null", port, str(at["port"]), "-i", str(at["key_filename"]), "-o", known]

    def raw(self, how: str) -> float:
        place = self.place()
        names = {"name": f"raw{self._number}", "tasks": TASKS, "last": TASKS - 1, "place": place}
        script = RAW.format(submit=how.format(**names), **names)
        begin = time.perf_counter()
        subprocess.run([*self.ssh(), "sh -s"], input=script, text=True, check=True, capture_output=True)
        return time.perf_counter() - begin

    def count_calls(self) -> None:
        for name in COUNTED:
            real, wrapper = shutil.which(name), self.cluster.commands / name
            wrapper.write_text(f'#!/bin/sh\necho {name} >>{self._calls}\nexec {real} "$@"\n')
            wrapper.chmod(0o755)

    def stop_counting(self) -> int:
        for name in COUNTED:
            (self.cluster.commands / name).unlink()
        calls = len(self._calls.read_text().splitlines())
        self._calls.unlink()
        return calls

    def subject(self, what: str, *more: str, place: Path | None = None) -> tuple[dict[str, float], float]:
        """Return what the subject found, and its peak memory in MiB."""
        place = place or self.place()
        lib = str(Path(__file__).parents[1])
        os.environ["PYTHONPATH"] = lib
        timing = run([sys.executable, SUBJECT, what, str(self.cluster.home), str(place), *more], place)
        return json.loads((place / "found.json").read_text()), timing.peak_kb / 1024


def campaign_rows(site: Site, repeats: int, label: str) -> Iterator[Row]:
    taken: dict[str, list[float]] = {"loop": [], "array": [], "ours": [], "calls": [], "commands": [], "peak": []}
    for number in range(repeats):
        progress(f"500 tasks{label} ({number + 1} of {repeats})")
        taken["loop"].append(site.raw(LOOP))
        taken["array"].append(site.raw(ARRAY))
        site.count_calls()
        found, peak = site.subject("campaign")
        taken["calls"].append(site.stop_counting())
        taken["ours"].append(found["seconds"])
        taken["commands"].append(found["commands"])
        taken["peak"].append(peak)
    middle = {name: statistics.median(values) for name, values in taken.items()}
    yield Row(f"500 tasks{label}", middle["ours"], " s", middle["loop"], "sbatch loop", goal="1.5 (1.1)")
    yield Row(f"500 tasks{label}", middle["ours"], " s", middle["array"], "sbatch --array")
    ratios = [ours / loop for ours, loop in zip(taken["ours"], taken["loop"], strict=True)]
    yield Row(f"worst round{label}", max(ratios), " x sbatch loop", goal="1.5 (1.1)")
    yield Row(f"Slurm client calls{label}", max(taken["calls"]), "", goal="40 (15)")
    yield Row(f"remote commands{label}", max(taken["commands"]), "")
    yield Row(f"controller's peak memory{label}", max(taken["peak"]), " MiB", goal="120")


def file_rows(site: Site, repeats: int) -> Iterator[Row]:
    progress("staging")
    staged = [site.subject("staging")[0]["seconds"] for _ in range(repeats)]
    yield Row("staging 1,000 tasks x 10 inputs, 9 shared", statistics.median(staged), " s", goal="3")
    for transport, goal in (("paramiko", "0.4"), ("openssh", "0.7")):
        ours, theirs, peak = [], [], 0.0
        for number in range(repeats):
            progress(f"1 GB over {transport} ({number + 1} of {repeats})")
            place = site.place()
            big = place / "workspace/bench/big/1/big"
            big.parent.mkdir(parents=True)
            (place / "workspace/.matterstack").mkdir()
            with big.open("wb") as file:
                for _ in range(1000):
                    file.write(os.urandom(1_000_000))
            begin = time.perf_counter()
            site.scp(big, site.home / "copy")
            theirs.append(time.perf_counter() - begin)
            (site.home / "copy").unlink()
            found, memory = site.subject("retrieval", transport, place=place)
            shutil.rmtree(place)
            ours.append(found["seconds"])
            peak = max(peak, memory)
        speed = statistics.median(theirs) / statistics.median(ours)
        yield Row(f"1 GB over {transport}, speed", speed, " x scp", goal=goal)
        yield Row(f"its peak memory, {transport}", peak, " MiB", goal="120")


def rows(repeats: int, *, quick: bool) -> Iterator[Row]:
    """Yield all rows; without ``quick`` the campaigns run on a Slurm that forgets jobs after 5 s, too."""
    for age, label in ((300, ""),) if quick else ((300, ""), (5, ", MinJobAge=5")):
        site = Site(age)
        try:
            yield from campaign_rows(site, repeats, label)
            if age == 300:
                yield from file_rows(site, min(repeats, 3))
        finally:
            site.close()
