"""G2-G5: the controller dies at every point where it can, with a Slurm that outlives it; each point is tried.

A point is before and after each commit, and before and after each remote command: after it, its answer is lost.
"""

from __future__ import annotations

import threading

import pytest
from campaigns import DIAMOND_ENDS, check_journal, diamond, states
from test_run_crash_points import Crash, CrashingWriter, Fuse

from matterstack import Task, Workflow, run_workflow
from matterstack.errors import BackendBroken, MatterStackError
from matterstack.runtime import run as runs
from matterstack.runtime.backends.hpc import SlurmBackend, Waits
from matterstack.runtime.backends.hpc import backend as backends
from matterstack.runtime.transports.local import LocalTransport

# The settling time is that of a claim without a receipt; nothing else here is so slow.
WAITS = Waits(
    poll_min_s=0.02,
    poll_max_s=0.1,
    settle_s=0.0,
    again_s=0.05,
    grace_s=0.3,
    infrastructure_s=0.6,
    absence_s=1.0,
    held_s=0.1,
)


# Remote commands by what only they have in them.
COMMANDS = {
    "try_one submit": "sbatch",
    "try_one withdraw": "a withdrawal",
    "try_one look": "a look for receipts",
    "true >.matterstack/submissions": "a look-up by name",
    "say staged": "staging",
    "scancel": "a cancel",
    "tar -c": "a retrieval",
    "": "a question",
}


class CrashingTransport(LocalTransport):
    """Dies around each remote command."""

    def __init__(self, fuse):
        super().__init__()
        self.fuse = fuse

    def run(self, script, **more):
        what = next(words for part, words in COMMANDS.items() if part in script)
        self.fuse.point(f"before {what}")
        reply = super().run(script, **more)
        self.fuse.point(f"after {what}, its answer lost")
        return reply


class CrashingSlurm(SlurmBackend):
    """Does nothing once the fuse has blown."""

    fuse: Fuse

    def wait(self, timeout_s, interrupted):
        if self.fuse.blown:
            raise Crash
        super().wait(timeout_s, interrupted)


# The thread that retrieves dies at its points, too.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def backend(kind, here):
    return kind(None, str(here / "workspace"), results_root=here / "results", waits=WAITS)


def run_until_crash(length, here, monkeypatch, workflow, **options):
    """Return the result of a run that outlived its fuse, or None, and where it died."""
    fuse = Fuse(length)
    monkeypatch.setattr(CrashingWriter, "fuse", fuse, raising=False)
    monkeypatch.setattr(CrashingSlurm, "fuse", fuse, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "InlineWriter", CrashingWriter)
        patch.setattr(backends, "open_transport", lambda _: CrashingTransport(fuse))
        made = backend(CrashingSlurm, here)
        try:
            return run_workflow(workflow, backend=made, journal=here / "j.db", **options), ""
        except (Crash, BackendBroken):
            assert fuse.blown
            return None, fuse.where
        finally:
            made.close()


def finish(here, workflow, **options):
    made = backend(SlurmBackend, here)
    try:
        return run_workflow(workflow, backend=made, journal=here / "j.db", **options)
    finally:
        made.close()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(4))
def test_every_task_starts_once_wherever_the_controller_dies(tmp_path, monkeypatch, slurm, part, died):
    for length in range(1 + part, 1000, 4):
        here = tmp_path / str(length)
        log = here / "log"
        log.mkdir(parents=True)
        survived, where = run_until_crash(length, here, monkeypatch, diamond(log))
        result = finish(here, diamond(log))
        assert states(result) == DIAMOND_ENDS, f"point {length}: {[(r, r.detail) for r in result.failed()]}"
        assert result["join"].logs()["stdout"] == "1\nleft\n1\nright\n"
        starts = {path.name: path.read_text() for path in log.iterdir()}
        assert starts == dict.fromkeys(DIAMOND_ENDS.keys() - {"blocked"}, "started\n"), f"point {length}"
        assert {task: result[task].attempts for task in result} == {**dict.fromkeys(starts, 1), "blocked": 0}
        check_journal(here / "j.db")
        died("SlurmBackend", where)
        if survived is not None:
            assert length > 20, "the fuse did not meet the run"
            return
    pytest.fail("no run outlived its fuse")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(2))
def test_replacing_live_jobs_is_repeatable_wherever_the_controller_dies(tmp_path, monkeypatch, slurm, part, died):
    """The old job is cancelled before the new one starts, and neither starts twice."""
    for length in range(1 + part, 1000, 2):
        here = tmp_path / str(length)
        here.mkdir()
        until = f"while [ ! -e {here}/gate ]; do sleep 0.02; done"
        old, kept = Task(f"echo old >>{here}/a; {until}", "a"), Task(f"echo old >>{here}/b; {until}", "b")
        first = Workflow("run", [old, kept])
        second = Workflow("run", [Task(f"echo new >>{here}/a", "a"), kept])

        def both_run(progress):
            if len(progress.running) == 2:
                raise Crash

        made = backend(SlurmBackend, here)
        with pytest.raises(Crash):
            run_workflow(first, backend=made, journal=here / "j.db", progress=both_run)
        made.close()
        threading.Timer(0.5, (here / "gate").touch).start()
        survived, where = run_until_crash(length, here, monkeypatch, second, replace=True)
        result = finish(here, second, replace=True)
        assert states(result) == {"a": "COMPLETED", "b": "COMPLETED"}, f"point {length}"
        assert (here / "a").read_text() == "old\nnew\n", f"point {length}"
        assert (here / "b").read_text() == "old\n", f"point {length}"
        check_journal(here / "j.db")
        died("SlurmBackend", where)
        if survived is not None:
            assert length > 5, "the fuse did not meet the run"
            return
    pytest.fail("no run outlived its fuse")


def test_a_controller_that_dies_again_and_again_gets_done(tmp_path, monkeypatch, slurm):
    log = tmp_path / "log"
    log.mkdir()
    for length in range(8, 400, 2):
        try:
            if run_until_crash(length, tmp_path, monkeypatch, diamond(log))[0]:
                break
        except MatterStackError as error:
            pytest.fail(f"length {length}: {error}")
    assert states(finish(tmp_path, diamond(log))) == DIAMOND_ENDS
    assert {path.read_text() for path in log.iterdir()} == {"started\n"}
    check_journal(tmp_path / "j.db")
