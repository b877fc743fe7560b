"""The commands of `fake_slurm`: ``fake_slurm_commands.py DIRECTORY COMMAND ARGUMENT…``.

A job is a directory ``jobs/<id>`` or ``jobs/<id>_<index>`` with one file a fact. Faults, as files in ``faults``:
``ctld``: the controller does not answer; ``lose``: the next sbatch is accepted and answers that it timed out;
``refuse``: sbatch says this text and refuses; ``hold``: jobs wait; ``dbd``: accounting does not answer; ``off``: it
is disabled; ``purge``: the queue shows no job that has ended; ``late``: accounting shows no job of this name yet.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE, COMMAND, ARGUMENTS = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
JOBS, FAULTS = HERE / "jobs", HERE / "faults"
TIMED_OUT = "Socket timed out on send/recv operation"


def fault(name):
    return (FAULTS / name).exists()


def option(name, default=""):
    for place, word in enumerate(ARGUMENTS):
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
        if word == f"--{name}" or (len(name) == 1 and word == f"-{name}"):
            return ARGUMENTS[place + 1]
    return default


def fact(job, name, default=""):
    try:
        return (job / name).read_text()
    except OSError:
        return default


def put(job, name, value):
    part = job / f".{name}.{os.getpid()}"
    part.write_text(str(value))
    part.rename(job / name)


def indices(text):
    found = []
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def next_id():
    with (HERE / "last").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = int(file.read() or 0) + 1
        file.truncate(0)
        file.write(str(number))
    return number


def directive(script, name):
    found = re.search(rf"^#SBATCH --{name}=(.*)$", script, re.MULTILINE)
    return found[1].strip("\"'") if found else ""


def sbatch():
    if fault("ctld"):
        fail(f"sbatch: error: Batch job submission failed: {TIMED_OUT}")
    if fault("refuse"):
        fail((FAULTS / "refuse").read_text())
    path = Path(ARGUMENTS[-1]).resolve()
    script = path.read_text()
    number, array = next_id(), option("array")
    for index in indices(array) if array else [None]:
        job = JOBS / (f"{number}_{index}" if array else f"{number}")
        job.mkdir()
        put(job, "name", directive(script, "job-name"))
        put(job, "script", path)
        put(job, "cwd", os.getcwd())
        put(job, "submit", int(time.time()))
        put(job, "word", "PENDING")
    if not fault("hold"):
        schedule()
    if fault("lose"):
        (FAULTS / "lose").unlink()
        fail(f"sbatch: error: Batch job submission failed: {TIMED_OUT}")
    print(number)


def schedule():
    for job in JOBS.iterdir():
        if fact(job, "word") == "PENDING" and not (job / "pid").exists():
            try:
                (job / "taken").mkdir()
            except FileExistsError:
                continue
            put(job, "pid", start(job))


def start(job):
    """Return the pid of the process that runs the job and writes down its end."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    put(job, "word", "RUNNING")
    put(job, "start", int(time.time()))
    number, _, index = job.name.partition("_")
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    environment |= {"SLURM_JOB_ID": number, "SLURM_JOB_NAME": fact(job, "name"), "SLURMD_NODENAME": "n1"}
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index, "SLURM_JOB_ID": f"{number}{index}0"}
    code = subprocess.call(["/bin/sh", fact(job, "script")], cwd=fact(job, "cwd"), env=environment)
    put(job, "code", code)
    put(job, "end", int(time.time()))
    if fact(job, "word") != "CANCELLED":
        put(job, "word", "COMPLETED" if code == 0 else "FAILED")
    os._exit(0)


def fail(words, code=1):
    print(words, file=sys.stderr)
    sys.exit(code)


def wanted(names):
    return [job for job in JOBS.iterdir() if not names or fact(job, "name") in names]


def squeue():
    if fault("ctld"):
        fail(f"slurm_load_jobs error: {TIMED_OUT}")
    if not fault("hold"):
        schedule()
    names = option("name").split(",") if option("name") else []
    for job in wanted(names):
        word = fact(job, "word")
        if fault("purge") and word not in ("PENDING", "RUNNING"):
            continue
        values = {"j": fact(job, "name"), "K": job.name.partition("_")[2] or "N/A", "i": job.name, "T": word}
        values |= {"r": "None", "V": fact(job, "submit"), "A": job.name.partition("_")[0], "u": "root"}
        print(re.sub("%([a-zA-Z])", lambda found, values=values: values[found[1]], option("o")))


def sacct():
    if fault("off"):
        fail("Slurm accounting storage is disabled")
    if fault("dbd"):
        fail("sacct: error: Problem talking to the database: Connection refused")
    names = option("name").split(",") if option("name") else []
    ids = option("j").split(",") if option("j") else option("jobs").split(",") if option("jobs") else []
    for job in wanted(names):
        number, _, index = job.name.partition("_")
        if (ids and job.name not in ids and number not in ids) or fault("late"):
            continue
        code = int(fact(job, "code", "0"))
        values = {"JobIDRaw": f"{number}{index and index + '0'}", "JobID": job.name, "JobName": fact(job, "name")}
        values |= {"State": fact(job, "word"), "ExitCode": f"{code}:0", "Submit": fact(job, "submit")}
        values |= {"ElapsedRaw": "1", "AllocCPUS": "1", "AllocTRES": "cpu=1,mem=1G", "Account": "acct"}
        values |= {"Start": fact(job, "start") or "Unknown", "End": fact(job, "end") or "Unknown", "NodeList": "n1"}
        fields = (option("o") or option("format")).split(",")
        print("|".join(values.get(field.partition("%")[0], "") for field in fields) + "|" * ("-p" in ARGUMENTS))


def scancel():
    if fault("ctld"):
        fail("scancel: error: slurm_kill_job2() failed Unable to contact slurm controller (connect failure)")
    for word in ARGUMENTS:
        if word.startswith("-"):
            continue
        for job in JOBS.iterdir():
            if job.name != word and job.name.partition("_")[0] != word:
                continue
            before = fact(job, "word")
            if before in ("PENDING", "RUNNING"):
                put(job, "word", "CANCELLED")
                put(job, "end", int(time.time()))
            if before == "RUNNING":
                with suppress(ProcessLookupError, ValueError):
                    os.killpg(int(fact(job, "pid")), signal.SIGKILL)


def scontrol():
    if fault("ctld"):
        fail("slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)")
    print("MaxArraySize            = 1001\nMinJobAge               = 300 sec\nSLURM_VERSION           = 22.05.8")


if __name__ == "__main__":
    with (HERE / f"{COMMAND}.calls").open("a") as log:
        log.write(" ".join(ARGUMENTS) + "\n")
    {"sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scancel": scancel, "scontrol": scontrol}[COMMAND]()
