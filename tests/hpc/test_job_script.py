"""The job script, run by real shells: one start (G3), no false end (G6), no lost end (G7), secrets (G15)."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from file_place import fill, mounted, unmount
from job_place import PROBE, SHELLS, Place, eventually, probe_command, probed

from matterstack import Task
from matterstack.errors import AccessError
from matterstack.runtime.backends.base import Submission
from matterstack.runtime.backends.hpc.job_script import (
    SecretMissing,
    array_key,
    attempt_files,
    directives,
    format_walltime,
    secrets_file,
)
from matterstack.runtime.backends.hpc.layout import SUBMISSIONS
from matterstack.runtime.backends.hpc.options import SlurmOptions

every_shell = pytest.mark.parametrize("shell", SHELLS)


@pytest.fixture
def place(tmp_path):
    made = []

    def make(**settings):
        made.append(Place(tmp_path / "work space" / str(len(made)), **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def probe(tmp_path):
    program = tmp_path / "probe.py"
    program.write_text(PROBE)

    def command(name, *words):
        return shlex.join(probe_command(program, tmp_path / name, words))

    command.found = lambda name: probed(tmp_path / name)
    return command


# ---- ends ---------------------------------------------------------------------------------------

ENDS = [
    ("true", 0),
    ("exit 3", 3),
    ("exit 75", 75),
    ("exit 127", 127),
    ("exit 255", 255),
    ("kill -TERM $$", 143),
    ("kill -KILL $$", 137),
    ("kill -USR1 $$", 138),
    ("exec sh -c 'kill -SEGV $$'", 139),
    ("no-such-command-anywhere", 127),
    ("echo (", 2),
    ("set -e; false; echo no", 1),
    ("trap '' TERM; kill -TERM $$; exit 9", 9),
]


@every_shell
@pytest.mark.parametrize(("command", "code"), ENDS)
def test_an_end_is_recorded_and_is_the_script_s_own(place, shell, command, code):
    job = place().lone(command)
    assert job.run(shell)[0] == code
    record = job.exit
    assert (record.token, record.slurm_id, record.restart, record.exit_code) == (job.submission.token, "7", 0, code)
    assert record.node == "n1"
    assert record.flags == frozenset()
    assert 0 < record.started_at <= record.ended_at
    assert [(c.token, c.slurm_id, c.node) for c in job.claims.values()] == [(job.submission.token, "7", "n1")]


@every_shell
def test_what_the_command_has_and_what_it_leaves(place, shell):
    job = place().lone("pwd; cat; echo to stderr >&2; echo file >out")
    assert job.run(shell) == (0, "")
    assert job.stdout == f"{job.directory}\n"
    assert job.stderr == "to stderr\n"
    assert (job.directory / "out").read_text() == "file\n"
    assert sorted(path.name for path in job.directory.iterdir()) == [".matterstack", "out", "stderr.txt", "stdout.txt"]


@every_shell
def test_killing_the_script_leaves_a_claim_and_no_end(place, shell):
    job = place().lone("echo begun; exec sleep 300")
    process = job.start(shell)
    job.says("begun")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert job.exit is None
    assert list(job.claims) == [0]


@every_shell
def test_a_command_that_leaves_children_behind_has_ended(place, shell):
    job = place().lone("sleep 300 >/dev/null 2>&1 & exit 4")
    assert job.run(shell) == (4, "")


# ---- signals ------------------------------------------------------------------------------------


@every_shell
def test_the_warning_before_the_limit_is_noted_at_once_and_the_command_goes_on(place, shell):
    job = place().lone("echo begun; until [ -e go ]; do sleep 0.05; done; exit 6")
    process = job.start(shell)
    job.says("begun")
    process.send_signal(signal.SIGUSR1)
    eventually((job.records / "limit-near").exists, "the note")
    assert job.exit is None
    (job.directory / "go").touch()
    assert job.end(process) == 6
    assert job.exit.exit_code == 6
    assert job.exit.flags == {"limit-near"}


@every_shell
def test_a_warning_that_cannot_be_noted_does_no_harm(place, shell):
    """A redirection that fails ends a POSIX shell, where it is one of a special builtin."""
    job = place().lone("echo begun; until [ -e go ]; do sleep 0.05; done; exit 6")
    (job.records / "limit-near").mkdir()
    process = job.start(shell)
    job.says("begun")
    process.send_signal(signal.SIGUSR1)
    (job.directory / "go").touch()
    assert job.end(process) == 6
    assert job.exit.exit_code == 6


@every_shell
def test_a_worker_that_is_killed_leaves_no_end_that_is_none(place, shell, tmp_path):
    go = shlex.quote(str(tmp_path / "go"))
    job = place(prologue=[f"echo begun; until [ -e {go} ]; do sleep 0.05; done"]).lone(
        "echo ran; until [ -e on ]; do sleep 0.05; done"
    )
    process = job.start(shell)
    job.says("begun")
    (worker,) = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    assert job.end(process, said=False) == 137
    (tmp_path / "go").touch()
    job.says("ran")
    assert job.exit is None


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@every_shell
def test_the_warning_during_the_set_up_is_noted_at_once(place, shell, tmp_path):
    go = tmp_path / "go"
    prologue = [
        f"cd {shlex.quote(str(tmp_path))}; echo begun; until [ -e {shlex.quote(str(go))} ]; do sleep 0.05; done"
    ]
    job = place(prologue=prologue).lone("pwd")
    process = job.start(shell)
    job.says("begun")
    process.send_signal(signal.SIGUSR1)
    eventually((job.records / "limit-near").exists, "the note")
    go.touch()
    assert job.end(process) == 0
    assert job.stdout == f"begun\n{job.directory}\n"
    assert job.exit.flags == {"limit-near"}
    assert not (tmp_path / ".matterstack").exists()


@every_shell
@pytest.mark.parametrize("code", [7, 127, 138])
def test_signals_at_any_moment_do_not_change_the_code(place, shell, code):
    work = place()
    for number in range(8):
        job = work.lone(f"echo begun; exit {code}", attempt=number + 1)
        process = job.start(shell)
        eventually((job.records / "claim").exists, "the claim")
        while process.poll() is None:
            process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.001)  # a flood without any pause makes bash itself dump core
        assert job.end(process) == code
        assert job.exit.exit_code == code


@every_shell
def test_a_job_that_is_cancelled_records_how_its_command_ended(place, shell):
    """Slurm sends TERM to all of a job's processes, the script's shell too."""
    job = place().lone("echo begun; exec sleep 300")
    process = job.start(shell)
    job.says("begun")
    os.killpg(process.pid, signal.SIGTERM)
    assert job.end(process) == 143
    assert job.exit.exit_code == 143
    assert job.exit.flags == frozenset()


@every_shell
def test_a_signal_to_all_processes_of_a_job_is_the_command_s(place, shell):
    """As by ``scancel --full --signal=USR1``, for commands that save their state on it."""
    job = place().lone("trap 'echo saved; exit 5' USR1; echo begun; while :; do sleep 0.05 & wait; done")
    process = job.start(shell)
    job.says("begun")
    os.killpg(process.pid, signal.SIGUSR1)
    assert job.end(process) == 5
    assert job.exit.exit_code == 5


@every_shell
def test_a_command_that_takes_its_time_after_term_is_waited_for(place, shell):
    job = place().lone("trap 'echo saved; exit 5' TERM; echo begun; while :; do sleep 0.05; done")
    process = job.start(shell)
    job.says("begun")
    os.killpg(process.pid, signal.SIGTERM)
    assert job.end(process) == 5
    assert job.stdout == "begun\nsaved\n"
    assert job.exit.exit_code == 5


@every_shell
def test_a_job_cancelled_while_it_is_set_up_was_not_set_up_wrongly(place, shell):
    job = place(prologue=["echo begun; exec sleep 300"]).lone("echo no")
    process = job.start(shell)
    job.says("begun")
    os.killpg(process.pid, signal.SIGTERM)
    assert job.end(process) == 143
    assert job.exit.exit_code == 143
    assert job.exit.flags == frozenset()
    assert job.stdout == "begun\n"


@every_shell
def test_a_job_whose_cancel_was_lost_at_its_start_does_not_start(place, shell):
    job = place(prologue=["echo set up"]).lone("echo ran >>log")
    (job.records / "cancel").touch()
    assert job.run(shell)[0] == 143
    assert (job.exit.exit_code, job.exit.flags) == (143, frozenset())
    assert not (job.directory / "log").exists()


@every_shell
def test_a_job_cancelled_before_its_set_up_does_not_start(place, shell, tmp_path):
    """TERM comes while the claim is taken, before there is a child that could end of it."""
    tools, gate = tmp_path / "tools", tmp_path / "gate"
    tools.mkdir()
    (tools / "ln").write_text(
        f'#!/bin/sh\necho >"{gate}.in"; until [ -e "{gate}" ]; do sleep 0.05; done; exec /usr/bin/ln "$@"\n'
    )
    (tools / "ln").chmod(0o755)
    job = place().lone("echo ran >>log")
    process = job.start(shell, PATH=f"{tools}:{os.environ['PATH']}")
    eventually(Path(f"{gate}.in").exists, "the claim")
    process.send_signal(signal.SIGTERM)
    gate.touch()
    assert job.end(process) == 143
    assert (job.exit.exit_code, job.exit.flags) == (143, frozenset())
    assert not (job.directory / "log").exists()


# ---- the claim ----------------------------------------------------------------------------------


@every_shell
def test_of_twenty_starts_at_once_exactly_one_runs(place, shell):
    job = place().lone("echo ran >>log; echo out")
    processes = [job.start(shell, job_id=str(number)) for number in range(20)]
    codes = sorted(job.end(process) for process in processes)
    assert codes == [0] + 19 * [75]
    assert (job.directory / "log").read_text() == "ran\n"
    assert job.stdout == "out\n"
    (claim,) = job.claims.values()
    refused = (job.records / "refused").read_text().splitlines()
    assert sorted(refused) == sorted(f"{n} 0" for n in range(20) if str(n) != claim.slurm_id)
    (tried,) = job.records.glob("try*")
    assert tried.samefile(job.records / "claim")


@every_shell
@pytest.mark.parametrize("again", [{}, {"job_id": "8"}, {"restart": 1}, {"job_id": "8", "restart": 3}])
def test_a_later_start_touches_nothing(place, shell, again):
    job = place().lone("echo ran >>log; exit 3")
    assert job.run(shell) == (3, "")
    before = job.snapshot()
    assert job.run(shell, **again)[0] == 75
    assert job.snapshot() == before


@every_shell
def test_a_later_start_does_not_note_warnings_of_its_own(place, shell):
    job = place().lone("echo begun; until [ -e go ]; do sleep 0.05; done")
    first = job.start(shell)
    job.says("begun")
    second = job.start(shell, job_id="8")
    while second.poll() is None:
        second.send_signal(signal.SIGUSR1)
    assert not (job.records / "limit-near").exists()
    (job.directory / "go").touch()
    assert job.end(first) == 0
    assert job.exit.flags == frozenset()


def test_a_claim_by_a_link_whose_answer_was_lost_is_a_claim(place, tmp_path):
    """On a network file system ln can have worked and say that the name exists."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ln").write_text('#!/bin/sh\n/bin/ln "$@"\nexit 1\n')
    (tools / "ln").chmod(0o755)
    job = place().lone("echo ran >>log")
    path = f"{tools}:{os.environ['PATH']}"
    assert job.run(PATH=path) == (0, "")
    assert job.run(PATH=path)[0] == 75
    assert (job.directory / "log").read_text() == "ran\n"


@every_shell
def test_allowed_restarts_run_again_and_keep_what_was_written(place, shell):
    job = place(requeue=True).lone("echo $SLURM_RESTART_COUNT.; exit ${SLURM_RESTART_COUNT:-9}")
    assert job.run(shell) == (9, "")
    for restart in (1, 3):
        assert job.run(shell, restart=restart) == (restart, "")
        assert (job.exit.restart, job.exit.exit_code) == (restart, restart)
    assert job.stdout == ".\n1.\n3.\n"
    assert sorted(job.claims) == [0, 1, 3]


@every_shell
@pytest.mark.parametrize(
    "again",
    [{"restart": 2}, {"restart": 1}, {}, {"restart": 2, "job_id": "8"}, {"restart": 3, "job_id": "8"}, {"job_id": "8"}],
)
def test_restarts_are_allowed_to_the_same_job_with_a_greater_count_only(place, shell, again):
    job = place(requeue=True).lone("echo ran")
    assert job.run(shell, restart=2) == (0, "")
    before = job.snapshot()
    assert job.run(shell, **again)[0] == 75
    assert job.snapshot() == before


def test_a_damaged_claim_is_a_claim(place):
    job = place(requeue=True).lone("echo ran")
    (job.records / "claim").write_text("ms1 cut")
    assert job.run(restart=5)[0] == 75
    assert job.exit is None


@every_shell
def test_of_many_restarts_with_one_count_exactly_one_runs(place, shell):
    job = place(requeue=True).lone("echo ran")
    assert job.run(shell) == (0, "")
    processes = [job.start(shell, restart=1) for _ in range(12)]
    assert sorted(job.end(process) for process in processes) == [0] + 11 * [75]
    assert job.stdout == "ran\nran\n"


@pytest.mark.parametrize("first", [True, False])
def test_a_profile_that_changed_meanwhile_gives_no_second_start(place, first):
    work = place(requeue=first)
    job = work.lone("echo ran")
    assert job.run() == (0, "")
    work.options = SlurmOptions(requeue=not first)
    (work.root / SUBMISSIONS / job.token / "job.sh").write_text(work.text(job.submission.task))
    assert job.run(job_id="8")[0] == 75
    assert job.run(job_id="8", restart=1)[0] == 75
    assert job.stdout == "ran\n"


def test_a_restart_is_not_taken_for_the_start_before(place):
    """The end and the warning of an earlier start say nothing of this one."""
    job = place(requeue=True).lone('echo begun; [ -n "$SLURM_RESTART_COUNT" ] || exit 1; exec sleep 300')
    (job.records / "limit-near").touch()
    assert job.run()[0] == 1
    process = job.start(restart=1)
    job.says("begun\nbegun")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert job.exit is None
    assert not (job.records / "limit-near").exists()


# ---- set-up -------------------------------------------------------------------------------------

# A prologue that does not let the command begin, and the code of it; None: whatever the shell gives.
BROKEN = [
    (["exit 4"], 4),
    (["set -e", "false", "echo no"], 1),
    (["exec sh -c 'exit 5'"], 5),
    (["exec /no/such/program"], None),
    ([". /no/such/file || exit 6"], None),
    (["set -u", 'echo "$NOT_SET_AT_ALL"'], None),
    (["trap 'exit 8' EXIT", "exit 7"], 8),
    (["echo '"], None),
    (["fi"], None),
    (["cd /; rm() { :; }; exit 3"], 3),
    (["exec >/no/such/dir/file"], None),
]


@every_shell
@pytest.mark.parametrize(("lines", "code"), BROKEN)
def test_a_prologue_that_ends_the_set_up_is_no_end_of_the_command(place, shell, lines, code):
    job = place(prologue=lines).lone("echo ran >>log", secrets=["KEY"], environ={"KEY": "canary"})
    ended, _ = job.run(shell)
    assert ended == code if code is not None else ended != 0
    assert job.exit.exit_code == ended
    assert job.exit.flags == {"setup"}
    assert not (job.directory / "log").exists()
    assert not (job.records / "secrets").exists()
    assert "the command was not started" in job.stderr


@every_shell
@pytest.mark.parametrize("line", ["exit 0", "exec true", "exit"])
def test_a_set_up_that_ends_well_too_early_is_no_success(place, shell, line):
    job = place(prologue=[line]).lone("echo ran >>log")
    code, _ = job.run(shell)
    assert code != 0
    assert (job.exit.exit_code, job.exit.flags) == (code, {"setup"})
    assert not (job.directory / "log").exists()


# Prologues that change the shell in ways that must not reach our own lines.
ODD = [
    ["set -e"],
    ["set -euf; set -x"],
    ["cd /"],
    ["IFS=/.a"],
    ["trap 'echo trapped' EXIT"],
    ["false"],
    ["set -- one two"],
    ["cat() { echo cat; }; env() { echo env; }; rm() { :; }; exec 3>&1"],
    ["umask 077; set -C"],
    ["if true", "then", "export IN_BLOCK=1", "fi"],
    ["ls >/dev/null # a comment", "#SBATCH --account=other"],
    ["alias cat=false env=false exec=false"],
]


@every_shell
@pytest.mark.parametrize("lines", ODD)
def test_a_prologue_that_changes_the_shell_does_not_change_the_command(place, shell, lines, probe):
    job = place(prologue=lines).lone(probe("seen", "a b", ""), env={"NAME": "a  b"})
    assert job.run(shell) == (0, "")
    argv, cwd, env = probe.found("seen")
    assert argv == [b"a b", b""]
    assert cwd == os.fsencode(job.directory)
    assert env[b"NAME"] == b"a  b"
    assert job.exit.flags == frozenset()


@every_shell
def test_a_prologue_that_hides_our_tools_fails_or_does_no_harm(place, shell):
    job = place(prologue=["PATH=/nowhere"]).lone("echo ran >>log", secrets=["KEY"], environ={"KEY": "canary"})
    code, _ = job.run(shell)
    assert code != 0
    assert job.exit.exit_code == code
    assert not (job.directory / "log").exists()
    assert not (job.records / "secrets").exists()


@pytest.fixture
def module(tmp_path):
    """A stand-in for the command ``module``, as its init file defines it."""
    return 'module() { [ "$2" != none ] || { echo "no module $2" >&2; return 9; }; export LOADED="$LOADED $*"; }'


@every_shell
def test_modules_and_prologue_reach_the_command_in_their_order(place, shell, module):
    job = place(prologue=['export SEEN="$LOADED+"'], modules=["vasp/6.3", "module load  python/3.9 # newest"]).lone(
        'echo "$LOADED/$SEEN"'
    )
    define(job, module)
    assert job.run(shell) == (0, "")
    assert job.stdout == " load vasp/6.3 load python/3.9/ load vasp/6.3 load python/3.9+\n"


@every_shell
@pytest.mark.parametrize("line", ["none", "module load none", "module load none # comment", "module load none;"])
def test_a_module_that_does_not_load_ends_the_set_up(place, shell, module, line):
    job = place(modules=["vasp/6.3", line, "other"], prologue=["echo prologue"]).lone("echo ran")
    define(job, module)
    assert job.run(shell)[0] == 9
    assert (job.exit.exit_code, job.exit.flags) == (9, {"setup"})
    assert job.stdout == ""
    assert "no module none" in job.stderr


@every_shell
@pytest.mark.parametrize("line", ["module load 'x", "module load x)", "fi", "{ module load x", "module load x \\"])
def test_a_line_of_modules_that_does_not_parse_ends_the_set_up(place, shell, line, module):
    job = place(modules=[line, "none"]).lone("echo ran")
    define(job, module)
    assert job.run(shell)[0] != 0
    assert job.exit.flags == {"setup"}
    assert job.stdout == ""


def define(job, module):
    """Have the function from the start, as after a site's /etc/profile."""
    script = job.place.root / SUBMISSIONS / job.token / "job.sh"
    head, first, rest = script.read_text().partition("\nms_index=")
    assert first
    script.write_text(f"{head}\n{module}{first}{rest}")


@every_shell
def test_without_the_command_module_the_set_up_fails(place, shell):
    job = place(modules=["vasp/6.3"]).lone("echo ran")
    assert job.run(shell)[0] == 127
    assert job.exit.flags == {"setup"}


# ---- environment --------------------------------------------------------------------------------


@every_shell
def test_the_command_s_environment(place, shell, probe):
    job = place().lone(probe("seen"), "relax-Al", cores=3, env={"A": "1", "HOME": "/my home"})
    assert job.run(shell, EXTRA="yes") == (0, "")
    _, _, env = probe.found("seen")
    assert env[b"MATTERSTACK_RUN"] == b"run"
    assert env[b"MATTERSTACK_TASK"] == b"relax-Al"
    assert env[b"MATTERSTACK_ATTEMPT"] == b"1"
    assert env[b"MATTERSTACK_CORES"] == env[b"OMP_NUM_THREADS"] == b"3"
    assert (env[b"A"], env[b"HOME"], env[b"USER"], env[b"EXTRA"]) == (b"1", b"/my home", b"root", b"yes")
    assert env[b"SLURM_EXPORT_ENV"] == b"ALL"
    assert not [name for name in env if name.startswith(b"ms_")]


@every_shell
def test_the_task_s_and_the_prologue_s_threads_win(place, shell):
    assert OMP(place(), shell, env={"OMP_NUM_THREADS": "7"}) == "7\n"
    assert OMP(place(prologue=["export OMP_NUM_THREADS=5"]), shell) == "5\n"


def OMP(work, shell, **fields):  # noqa: N802
    job = work.lone('echo "$OMP_NUM_THREADS"', cores=2, **fields)
    assert job.run(shell)[0] == 0
    return job.stdout


@every_shell
def test_an_empty_environment_gets_home_user_and_path(place, shell):
    job = place().lone('echo "$HOME $USER"; command -v cat >/dev/null; id -un')
    assert job.run(shell, PATH=None, HOME=None, USER=None)[0] == 0
    name = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert job.stdout == f"{Path('~').expanduser()} {name}\n{name}\n"


@every_shell
def test_the_path_of_the_login_stays(place, shell, tmp_path):
    """A site's Slurm may be found by it only; /etc/profile of Debian sets PATH anew."""
    (tmp_path / "only-here").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "only-here").chmod(0o755)
    job = place().lone("only-here")
    assert job.run(shell, PATH=f"{tmp_path}:{os.environ['PATH']}")[0] == 0
    assert job.stdout == "found\n"


@every_shell
@pytest.mark.parametrize("letters", ["x" * 200_000, "é" * 65_000, "😀" * 40_000])
def test_a_command_longer_than_one_argument_may_be(place, shell, letters):
    job = place().lone(f"echo begun # {letters}\nexit 3\n\n\n")
    assert job.run(shell, LC_ALL="C.UTF-8") == (3, "")
    assert job.stdout == "begun\n"


@every_shell
def test_an_image_is_run_by_the_container_runtime_with_the_directory_bound(place, shell, tmp_path, probe):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apptainer").write_text(f'#!/bin/sh\nexec {probe("seen")} "$@"\n')
    (tools / "apptainer").chmod(0o755)
    command = "echo 'a b' \"$HOME\"\n"
    job = place().lone(command, image="my image.sif", env={"A": "b c"})
    assert job.run(shell, PATH=f"{tools}:{os.environ['PATH']}") == (0, "")
    argv, cwd, env = probe.found("seen")
    where = os.fsencode(job.directory)
    begin = [b"exec", b"--bind", where + b":" + where, b"--pwd", where]
    assert argv == [*begin, b"my image.sif", b"/bin/sh", b"-c", command.encode()]
    assert cwd == where
    assert env[b"A"] == b"b c"


def test_an_image_is_no_option(place):
    assert " ./--writable " in place().text(Task("true", "a", image="--writable"))


@pytest.mark.parametrize("name", ["a:b", "a,b"])
def test_a_directory_that_no_runtime_can_bind_is_told(tmp_path, name):
    work = Place(tmp_path / name)
    job = work.lone("true", image="x.sif")
    assert job.run()[0] != 0
    assert job.exit.flags == {"setup"}
    assert "cannot be bound" in job.stderr
    work.close()


# ---- secrets ------------------------------------------------------------------------------------

CANARY = "c4n4ry-'\"$(id)\\ \n-end"


@every_shell
def test_a_secret_reaches_its_command_and_nothing_else(place, shell, probe, tmp_path):
    target = shlex.quote(str(tmp_path / "cmdlines"))
    cmdlines = f"cat /proc/[0-9]*/cmdline >{target} 2>/dev/null; [ ! -e .matterstack/secrets ]"
    elements = place().array(
        Task(f"{probe('one')}; {cmdlines}", "one", secrets=["KEY"]),
        Task(probe("two"), "two"),
        environ={"KEY": CANARY},
    )
    assert (elements[0].records / "secrets").stat().st_mode & 0o777 == 0o600
    for element in elements:
        assert element.run(shell) == (0, "")
    assert probe.found("one")[2][b"KEY"] == CANARY.encode()
    assert b"KEY" not in probe.found("two")[2]
    (tmp_path / "one").unlink()
    left = subprocess.run(["grep", "-r", "-l", "c4n4ry", tmp_path], capture_output=True, text=True, check=False)
    assert left.stdout == ""


@every_shell
def test_a_prologue_that_shows_what_is_run_does_not_show_secrets(place, shell):
    job = place(prologue=["set -xv"]).lone("true", secrets=["KEY"], environ={"KEY": "c4n4ry"})
    assert job.run(shell)[0] == 0
    assert "c4n4ry" not in job.stderr + job.stdout


def test_secrets_are_not_part_of_script_and_files():
    task = Task("true", "a", secrets=["KEY"])
    files = attempt_files(Submission(task, "run", 1, "ms-a"))
    assert not [name for name, content in files.items() if b"KEY" in content]
    assert "secrets" not in files


def test_a_secret_that_is_not_utf_8_arrives(place, probe):
    value = b"\xff\xfe'x".decode("utf-8", "surrogateescape")
    job = place().lone(probe("seen"), secrets=["KEY"], environ={"KEY": value})
    assert job.run() == (0, "")
    assert probe.found("seen")[2][b"KEY"] == b"\xff\xfe'x"


def test_a_missing_secret_pauses_and_is_named():
    task = Task("true", "a", secrets=["HERE", "GONE", "LOST"])
    with pytest.raises(SecretMissing, match=r"task 'a': secrets? GONE, LOST .*resume") as raised:
        secrets_file(task, {"HERE": "value-of-here"})
    assert isinstance(raised.value, AccessError)
    assert "value-of-here" not in str(raised.value)


@every_shell
def test_a_command_never_runs_without_its_secrets(place, shell):
    job = place().lone("echo ran >>log", secrets=["KEY"], environ={"KEY": "x"})
    (job.records / "secrets").unlink()
    assert job.run(shell)[0] != 0
    assert job.exit.flags == {"setup"}
    assert not (job.directory / "log").exists()


def test_a_job_with_secrets_is_not_started_again_by_slurm():
    """They are gone from its directory by then; a retry brings them anew."""
    options = SlurmOptions(requeue=True)
    assert "--requeue" in directives(Task("true", "a"), options)
    assert "--no-requeue" in directives(Task("true", "a", secrets=["KEY"]), options)
    assert array_key(Task("true", "a"), options) != array_key(Task("true", "a", secrets=["KEY"]), options)


# ---- arrays and their map -----------------------------------------------------------------------


@every_shell
def test_the_elements_of_an_array_are_told_apart(place, shell):
    elements = place().array(*(Task(f"echo {name}; exit {code}", name) for code, name in enumerate("abc")))
    for element in reversed(elements):
        code = element.index
        assert element.run(shell, job_id="12") == (code, "")
        assert (element.exit.slurm_id, element.exit.exit_code) == (f"12_{code}", code)
        assert element.exit.token == element.submission.token
        assert element.stdout == f"{element.submission.task.task_id}\n"


def test_elements_of_a_large_array_find_their_own_map(place):
    elements = place().array(*(Task(f"exit {number}", f"t{number}") for number in range(40)))
    assert [elements[number].run()[0] for number in (0, 15, 16, 31, 32, 39)] == [0, 15, 16, 31, 32, 39]


def test_an_element_that_is_not_in_the_map_runs_nothing(place):
    first, second = place().array(Task("echo ran >>log", "a"), Task("echo ran >>log", "b"))
    code, said = first.run(SLURM_ARRAY_TASK_ID="2")
    assert (code, "has no element 2" in said) == (76, True)
    assert first.claims == second.claims == {}


MAPS = [
    "",
    "\n\n",
    "0",
    "0\trun/a/1",
    "0\trun/a/1\tms-a1",
    "0\t\tms-a1\n",
    "0\trun/none/1\tms-a1\n",
    "1\trun/a/1\tms-a1\n",
    "\0",
]


@every_shell
@pytest.mark.parametrize("text", MAPS)
def test_a_damaged_map_runs_nothing(place, shell, text):
    (element,) = place().array(Task("echo ran >>log", "a"))
    path = element.place.root / SUBMISSIONS / element.token / "map.0"
    path.write_text(text)
    assert element.run(shell)[0] == 76
    path.unlink()
    assert element.run(shell)[0] == 76
    assert element.claims == {}
    assert not (element.directory / "log").exists()


@every_shell
def test_a_missing_file_of_ours_runs_nothing(place, shell):
    work = place()
    for attempt, (name, command) in enumerate((("command", f": {'x' * 100_000}; "), ("env", "")), 1):
        job = work.lone(f"{command}echo ran >>log", attempt=attempt)
        (job.records / name).unlink()
        assert job.run(shell)[0] != 0
        assert job.exit.flags == {"setup"}
        assert not (job.directory / "log").exists()


@every_shell
def test_an_environment_that_was_cut_runs_nothing(place, shell):
    work = place()
    whole = (work.lone("true", env={"A": "it's"}).records / "env").read_bytes()
    for length in range(len(whole) - 1):
        job = work.lone("echo ran >>log", env={"A": "it's"}, attempt=length + 2)
        (job.records / "env").write_bytes(whole[:length])
        assert job.run(shell)[0] != 0, whole[:length]
        assert job.exit.flags == {"setup"}
        assert not (job.directory / "log").exists()


# ---- full disks ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    yield mounted(tmp_path / "disk", "256k")
    unmount(tmp_path / "disk")


@every_shell
def test_on_a_full_disk_nothing_is_claimed_and_a_later_start_runs(small_disk, shell):
    work = Place(small_disk)
    job = work.lone("echo ran")
    fill(small_disk)
    code, said = job.run(shell)
    assert (code, "the command was not started" in said) == (73, True)
    assert sorted(path.name for path in job.records.iterdir()) == ["env"]
    (small_disk / "ballast").unlink()
    assert job.run(shell) == (0, "")
    work.close()


@every_shell
def test_an_end_that_does_not_fit_on_the_disk_is_written_when_there_is_room(small_disk, shell):
    work = Place(small_disk)
    job = work.lone("echo begun; until [ -e /proc/$PPID/root/nowhere ] || [ -e go ]; do sleep 0.05; done; exit 3")
    process = job.start(shell)
    job.says("begun")
    (job.directory / "go").touch()
    fill(small_disk)
    process.send_signal(signal.SIGUSR1)
    eventually(lambda: list(job.records.glob("exit.*")) or process.poll() is not None, "the first try")
    assert process.poll() is None
    (small_disk / "ballast").unlink()
    assert job.end(process) == 3
    assert job.exit.exit_code == 3
    work.close()


# ---- directives ---------------------------------------------------------------------------------


def test_directives_of_a_task():
    task = Task("true", "a", cores=4, memory_gb=1.5, gpus=2, time_limit_minutes=90.5)
    options = SlurmOptions.of({"account": "m1", "nodes": 2, "mail-type": "END", "exclusive": True})
    assert directives(task, options) == (
        "--account=m1",
        "--nodes=2",
        "--cpus-per-task=4",
        "--mem=1536M",
        "--gpus=2",
        "--time=0-01:31:00",
        "--mail-type=END",
        "--exclusive",
        "--no-requeue",
        "--export=ALL",
        "--signal=B:USR1@60",
    )


@pytest.mark.parametrize(("minutes", "signalled"), [(0.5, 10), (1, 10), (1.01, 60), (2, 60), (None, 60)])
def test_the_warning_does_not_come_at_once(minutes, signalled):
    """Slurm may send it 30 s early."""
    assert f"--signal=B:USR1@{signalled}" in directives(Task("true", "a", time_limit_minutes=minutes), SlurmOptions())


@pytest.mark.parametrize(("gb", "shown"), [(1, "1024M"), (0.0001, "1M"), (2.0005, "2049M"), (1e6, "1024000000M")])
def test_memory_is_rounded_up(gb, shown):
    assert f"--mem={shown}" in directives(Task("true", "a", memory_gb=gb), SlurmOptions())


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.1, "0-00:01:00"),
        (60, "0-00:01:00"),
        (60.001, "0-00:02:00"),
        (3600, "0-01:00:00"),
        (86_400, "1-00:00:00"),
        (86_401, "1-00:01:00"),
        (1e30, "1491308-02:06:00"),
    ],
)
def test_walltime(seconds, shown):
    assert format_walltime(seconds) == shown


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_walltime(seconds):
    with pytest.raises(ValueError, match="above 0"):
        format_walltime(seconds)


def test_tasks_alike_may_share_an_array():
    options = SlurmOptions()
    key = array_key(Task("true", "a", cores=2), options)
    assert key == array_key(Task("false", "b", cores=2, env={"A": "1"}, time_limit_minutes=None), options)
    others = [{"cores": 3}, {"cores": 2, "gpus": 1}, {"cores": 2, "image": "x.sif"}, {"cores": 2, "memory_gb": 1}]
    assert len({array_key(Task("true", "a", **fields), options) for fields in others} | {key}) == 5
    assert hash(key) is not None


def test_the_header(place):
    text = place(account="m1").text(Task("true", "a b".replace(" ", "-")), array=True)
    assert text.splitlines()[:4] == [
        "#!/bin/sh",
        "#SBATCH --job-name=a-b.ms-a",
        "#SBATCH --output=.matterstack/submissions/ms-a/slurm.%a.out",
        "#SBATCH --account=m1",
    ]
    assert "--output=.matterstack/submissions/ms-a/slurm.out\n" in place().text(Task("true", "a"))


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_every_kind_of_script_parses(place, shell, tmp_path):
    settings = {"modules": ["a"], "prologue": ["b"], "requeue": True}
    for number, chosen in enumerate([{}, settings]):
        for image in (None, "x.sif"):
            script = tmp_path / f"{number}.sh"
            script.write_text(place(**chosen).text(Task("true", "a", image=image)))
            subprocess.run([shell, "-n", script], check=True)
