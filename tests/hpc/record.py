"""Record what a real Slurm answers: ``python tests/hpc/record.py`` with SLURM_CONF set, as Slurm's operator.

Writes ``recordings/slurm-<version>.json``. What is expected of each answer is written down here, from what was done
to the job, never read off the answer. Takes about two minutes, most of it for the job that runs into its limit.
"""

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from matterstack.runtime.backends.hpc import site, slurm

RECORDINGS = Path(__file__).parent / "recordings"
DEADLINE_S = 180.0
SCRIPT = '#!/bin/sh\nexec sh -c "$1"\n'
HUNGRY = "head -c 400000000 /dev/zero | tail -c 400000000 | { sleep 60; cat; } | wc -c"


def run(command: str, **more: str) -> dict:
    done = subprocess.run(
        ["sh", "-c", f"{slurm.ENVIRONMENT}{command}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env=os.environ | more,
        stdin=subprocess.DEVNULL,
    )
    return {"command": command, "exit_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def must(command: str) -> str:
    answer = run(command)
    assert answer["exit_code"] == 0, answer
    return answer["stdout"]


def wait_for(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.2)


def accounted(job: str) -> list[str]:
    return must(f"sacct -n -P -X -D -j {job} -o State").split("\n")[:-1]


def queued(job: str) -> str:
    rows = dict(row.split("|") for row in must("squeue -h -t all --me -o '%A|%T'").split("\n")[:-1])
    return rows.get(job, "")


class Recorder:
    """Jobs by short name, and the answers recorded so far."""

    def __init__(self, directory: Path, low: str, high: str, nodes: list[str]) -> None:
        self.directory, self.low, self.high, self.nodes = directory, low, high, nodes
        self.ids: dict[str, str] = {}
        self.records: list[dict] = []
        for name, text in {
            "job.sh": SCRIPT,
            "dos.sh": "#!/bin/sh\r\ntrue\r\n",
            "bare.sh": "true\n",
            "directive.sh": "#!/bin/sh\n#SBATCH --nonsense\n",
        }.items():
            (directory / name).write_text(text)

    def submit(self, name: str, command: str, options: str = "") -> None:
        fixed = f"-J {name}.ms-{name} -p {self.low} --mem=100 -o /dev/null --chdir={self.directory}"
        words = f"sbatch --parsable {fixed} {options} {self.directory}/job.sh {shlex.quote(command)}"
        self.ids[name] = must(words).strip()

    def add(self, what: str, kind: str, answer: dict, expect: object) -> None:
        shown = {key: self.plain(value) if isinstance(value, str) else value for key, value in answer.items()}
        self.records.append({"id": what, "kind": kind, **shown, "expect": expect})

    def plain(self, text: str) -> str:
        """Return the text without the names of the machine that it was recorded on."""
        text = text.replace(str(self.directory), "/campaign")
        text = text.replace(str(Path(os.environ["SLURM_CONF"]).parent), "/slurm")
        return re.sub(rf"\b{re.escape(socket.gethostname().partition('.')[0])}\b", "login1", text)

    def reply(self, what: str, options: str, expect: str, script: str = "job.sh", **more: str) -> None:
        command = f"sbatch --parsable -J reply.ms-{what} -o /dev/null {options} {self.directory}/{script} true"
        answer = run(command, **more)
        self.add(f"sbatch-{what}", "sbatch", answer, expect)
        if answer["exit_code"] == 0:
            must(f"scancel {answer['stdout'].strip()}")

    def listing(self, what: str, expect: dict[str, object], *, together: bool = False) -> None:
        command = slurm.queue_command()
        answer = run(command.replace(" -r ", " ") if together else command)
        self.add(f"queue-{what}", "queue", answer, {f"{name}.ms-{name}": word for name, word in expect.items()})

    def accounts(self, what: str, expect: dict[str, object]) -> None:
        answer = run(slurm.accounting_command([self.ids[name] for name in expect]))
        wanted = {f"{name}.ms-{name}": row for name, row in expect.items()}
        self.add(f"accounting-{what}", "accounting", answer, wanted)

    def runs(self, *names: str) -> None:
        for name in names:
            wait_for(lambda name=name: queued(self.ids[name]) == "RUNNING", f"{name} to run")


def record_jobs(r: Recorder) -> None:
    first, second = r.nodes
    r.submit("limit", "sleep 600", f"--time=1 -w {first}")
    r.submit("stubborn", "trap '' TERM; while :; do sleep 1; done", f"-w {first}")
    r.submit("late", "sleep 600", f"-w {first}")
    r.submit("frozen", "sleep 600", f"-w {first}")
    r.submit("failing", "sleep 600", f"--no-requeue -w {second}")
    r.runs("failing")
    must(f"scontrol update nodename={second} state=down reason=recording")
    wait_for(lambda: queued(r.ids["failing"]) == "NODE_FAIL", "the node's failure")
    must(f"scontrol update nodename={second} state=idle")
    r.submit("ousted", "sleep 600", f"--no-requeue -w {second} -c 8")
    r.submit("again", "sleep 600", f"--requeue -w {second} -c 8")
    r.submit("held", "true", "-H")
    r.submit("heldarray", "true", "-H --array=0-9%2")
    r.submit("early", "true", "-H")
    r.runs("stubborn", "late", "frozen", "ousted", "again", "limit")
    must(f"scancel {r.ids['early']}; scontrol suspend {r.ids['frozen']}")
    live = dict.fromkeys(("late", "stubborn", "ousted", "again", "limit"), "RUNNING")
    live |= {"held": "PENDING", "heldarray": {str(i): "PENDING" for i in range(10)}, "frozen": "SUSPENDED"}
    r.listing("live", live | {"early": "CANCELLED", "failing": "NODE_FAIL"})
    r.listing("live-together", live, together=True)
    must(f"scancel {r.ids['stubborn']} {r.ids['late']}")
    wait_for(lambda: queued(r.ids["stubborn"]) == "COMPLETING", "the stubborn one to be ended")
    r.listing("completing", {"stubborn": "COMPLETING"})
    oust(r, second)
    record_ends(r)


def oust(r: Recorder, node: str) -> None:
    cores = must(f"sinfo -h -n {node} -o %c").split()[0]
    options = f"-p {r.high} --mem=100 -w {node} -c {cores} -o /dev/null"
    urgent = must(f"sbatch --parsable {options} {r.directory}/job.sh true")
    wait_for(lambda: queued(r.ids["ousted"]) == "PREEMPTED", "one to be ousted")
    wait_for(lambda: queued(r.ids["again"]) == "PENDING", "the other to be put back")
    r.listing("preempted", {"ousted": "PREEMPTED", "again": "PENDING"})
    r.accounts("preempted-just-now", {"ousted": ["PREEMPTED", 0, 0, None]})
    wait_for(lambda: accounted(r.ids["again"]) == ["PREEMPTED", "PENDING"], "accounting to know that it waits again")
    r.accounts("put-back", {"again": ["PENDING", 0, 0, None], "held": ["PENDING", 0, 0, None]})
    wait_for(lambda: queued(urgent.strip()) == "COMPLETED", "the urgent one to end")


def record_ends(r: Recorder) -> None:
    uid = os.getuid()
    r.submit("done", "true")
    r.submit("fail", "exit 3")
    r.submit("refusing", "exit 75")
    r.submit("killed", "kill -9 $$")
    r.submit("hungry", HUNGRY)
    r.submit("nodir", "true", "-o /nonexistent/out")
    r.submit("array", "exit $SLURM_ARRAY_TASK_ID", "--array=0-3,7")
    ended: dict[str, object] = {
        "done": ["COMPLETED", 0, 0, None],
        "fail": ["FAILED", 3, 0, None],
        "refusing": ["FAILED", 75, 0, None],
        "killed": ["FAILED", 0, 9, None],
        "hungry": ["FAILED", 0, 9, None],
        "nodir": ["FAILED", 0, 53, None],
        "early": ["CANCELLED", 0, 0, uid],
        "late": ["CANCELLED", 0, 0, uid],
        "stubborn": ["CANCELLED", 0, 0, uid],
        "failing": ["NODE_FAIL", 0, 0, None],
        "ousted": ["PREEMPTED", 0, 0, None],
    }
    for name in ended:
        wait_for(lambda name=name: not {*accounted(r.ids[name])} & {"RUNNING", "PENDING"}, f"{name}'s end")
    wait_for(lambda: len(accounted(r.ids["array"])) == 5, "all elements in accounting")
    elements = {str(i): ["FAILED" if i else "COMPLETED", i, 0, None] for i in (0, 1, 2, 3, 7)}
    r.accounts("ended", ended | {"array": elements, "held": ["PENDING", 0, 0, None]})
    fresh = ("done", "fail", "refusing", "killed", "hungry", "nodir")
    words = {name: row[0] for name, row in ended.items() if name in fresh}
    r.listing("ended", words | {"array": {i: row[0] for i, row in elements.items()}})
    wait_for(lambda: queued(r.ids["limit"]) == "TIMEOUT", "the limit")
    wait_for(lambda: accounted(r.ids["limit"]) == ["TIMEOUT"], "accounting to know of it")
    r.listing("limit", {"limit": "TIMEOUT"})
    r.accounts("limit", {"limit": ["TIMEOUT", 0, 0, None]})


def record_replies(r: Recorder) -> None:
    r.reply("accepted", "-H", "Accepted")
    for what, options in {
        "partition": "-p nowhere",
        "account": "-A nobody",
        "qos": "-q none",
        "memory": "--mem=999999999",
        "feature": "-C unheard",
        "gres": "--gres=warp:1",
        "array": "--array=0-99999999",
        "dependency": "-d afterok:abc",
        "license": "-L unheard",
        "reservation": "--reservation=unheard",
        "node": "-w unheard",
        "option": "--nonsense",
        "argument": "--comment",
        "time": "--time=soon",
        "begin": "--begin=someday",
    }.items():
        r.reply(what, options if what != "argument" else "--parsable=3", "Refused")
    for script in ("dos.sh", "bare.sh", "directive.sh", "missing.sh"):
        r.reply(script.partition(".")[0], "-H", "Refused", script)
    r.reply("other-cluster", "-M elsewhere", "Held")
    held = f"sbatch --parsable -H {r.directory}/job.sh"
    must("sacctmgr -i modify qos normal set MaxSubmitJobsPerUser=2")
    try:
        wait_for(lambda: run(held)["exit_code"] != 0, "the limit to hold")
        r.reply("submit-limit", "-H", "Held")
        r.add("qos-limited", "site", run(site.QOS_COMMAND), None)
    finally:
        must("sacctmgr -i modify qos normal set MaxSubmitJobsPerUser=-1")
    must('scancel -u "$(id -un)"')
    wait_for(lambda: run(held)["exit_code"] == 0, "the limit to be lifted")
    search = slurm.accounting_by_name_command(["reply.ms-memory"], time.time() - 3600)
    wait_for(lambda: must(search), "the trace of the refused submission")
    r.add("accounting-refused", "accounting", run(search), {})
    r.listing("refused", {})


@contextmanager
def changed(**settings: str) -> Iterator[dict[str, str]]:
    """A copy of Slurm's configuration with other settings, empty for left out, as environment for its commands."""
    text = Path(os.environ["SLURM_CONF"]).read_text()
    for key, value in settings.items():
        text = re.sub(rf"^{key}=.*$", f"{key}={value}" if value else "", text, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as there:
        conf = Path(there) / "slurm.conf"
        conf.write_text(text)
        yield {"SLURM_CONF": str(conf)}


def record_silence(r: Recorder) -> None:
    """The client's own words where nobody listens, and where somebody listens who never answers."""
    sacct = slurm.accounting_command(["1"])
    with socket.create_server(("127.0.0.1", 0)) as deaf, socket.create_server(("127.0.0.1", 0)) as closed:
        hung, nobody = (str(one.getsockname()[1]) for one in (deaf, closed))
        closed.close()
        with changed(SlurmctldPort=nobody) as env:
            r.add("queue-down", "silent", run(slurm.queue_command(), **env), "silent")
            r.add("settings-down", "silent", run(site.SETTINGS_COMMAND, **env), "silent")
            r.reply("down", "-H", "Doubt", **env)
        with changed(SlurmctldPort=hung) as env:
            r.add("queue-hung", "silent", run(slurm.queue_command(), **env), "silent")
            r.reply("hung", "-H", "Doubt", **env)
        with changed(AccountingStoragePort=nobody) as env:
            r.add("accounting-down", "silent", run(sacct, **env), "silent")
            r.add("cluster-down", "silent", run(slurm.queue_command("test"), **env), "silent")
    with changed(AccountingStorageType="accounting_storage/none", AccountingStorageEnforce="") as env:
        r.add("accounting-off", "silent", run(sacct, **env), "off")
    r.add("accounting-bad-list", "silent", run("sacct -n -p -X -D -j '5_[1-3],7' -o JobID"), "silent")
    r.add("accounting-no-row", "silent", run(slurm.accounting_command(["4000000000"])), "yes")


def record_site(r: Recorder) -> None:
    for what, command in {
        "settings": site.SETTINGS_COMMAND,
        "partitions": site.PARTITIONS_COMMAND,
        "limits": site.LIMITS_COMMAND,
        "qos": site.QOS_COMMAND,
    }.items():
        answer = run(command)
        assert answer["exit_code"] == 0, answer
        r.add(what, "site", answer, None)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--low", default="work", help="partition whose jobs can be preempted")
    options.add_argument("--high", default="urgent", help="partition that preempts them")
    given = options.parse_args()
    version = re.sub(r"[^0-9.]", "", must("sinfo --version"))
    nodes = sorted(set(must("sinfo -h -N -o %N").split()))[:2]
    with tempfile.TemporaryDirectory() as there:
        directory = Path(there)
        r = Recorder(directory, given.low, given.high, nodes)
        record_site(r)
        record_silence(r)
        record_replies(r)
        record_jobs(r)
        must('scancel -u "$(id -un)"')
    RECORDINGS.mkdir(exist_ok=True)
    path = RECORDINGS / f"slurm-{version}.json"
    path.write_text(json.dumps({"slurm_version": version, "recordings": r.records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
