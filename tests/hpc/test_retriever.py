"""Retrieving in the background: for ever where the way is the trouble, and not for ever where a file is."""

from __future__ import annotations

import threading
import time

import pytest
from fake_slurm import FakeSlurm
from file_place import Place, tree

from matterstack import Task, Workflow, run_workflow
from matterstack.cli.main import main
from matterstack.errors import SubmitRefusedError, TransportError
from matterstack.history import History
from matterstack.runtime.backends.hpc import SlurmBackend, Waits, retriever
from matterstack.runtime.backends.hpc.retrieval import UnreadableError, Wanted
from matterstack.runtime.backends.hpc.retriever import TRIES, Retriever
from matterstack.runtime.transports.local import LocalTransport

WAITS = Waits(poll_min_s=0.05, poll_max_s=0.2, grace_s=0.5, infrastructure_s=1.0, absence_s=60.0)
# What sha256sum and tar do with a file that may not be read; the tests may run as root, who can read everything.
UNREADABLE = (
    'for one do case $one in */x) echo "sha256sum: $one: Permission denied" >&2 ;; --) ;; *) "$real" -- "$one" ;; '
    "esac; done; exit 1"
)
UNSENT = 'if [ "$1" = -c ]; then grep -zv "/x\\$" | "$real" "$@"; else exec "$real" "$@"; fi'


class Trouble(LocalTransport):
    """Fails so often in the same way, and counts the commands that ask for something ``of`` an attempt."""

    def __init__(self, times: int, error: Exception, of: str = "") -> None:
        super().__init__()
        self._times, self._error, self._of = times, error, of
        self.asked = 0

    def run(self, script, **more):
        self.asked += self._of in script
        if self.asked <= self._times:
            raise self._error
        return super().run(script, **more)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(retriever, "_AGAIN_MIN_S", 0.001)
    monkeypatch.setattr(retriever, "_AGAIN_MAX_S", 0.01)


@pytest.fixture
def place(tmp_path, monkeypatch):
    made = Place(tmp_path, monkeypatch)
    made.command("openssl", "exit 1")
    return made


def unreadable(place):
    place.command("sha256sum", UNREADABLE)
    place.command("tar", UNSENT)


def bring(place, transport, here, *directories):
    """Return the retriever when it has nothing left to do."""
    changed = threading.Semaphore(0)
    made = Retriever(transport, str(place.root), changed.release)
    wants = {f"1@{one}": Wanted(one, ("x", "y"), (), here / one) for one in directories}
    deadline = time.monotonic() + 60
    try:
        while left := [job_id for job_id, one in wants.items() if not made.want(job_id, lambda one=one: one)]:
            assert time.monotonic() < deadline, (left, made.problem)
            changed.acquire(timeout=1)
    finally:
        made.close()
    return made


def test_a_file_that_can_never_be_read_is_given_up_and_named_and_the_rest_is_here(place, tmp_path):
    for task in ("a", "b"):
        place.attempt(f"run/{task}/1", {"x": "1", "y": "2", "stdout.txt": "o"})
    (place.root / "run/b/1/x").unlink()
    unreadable(place)
    transport = Trouble(0, OSError(), of="run/a/1")  # the other one may come with its first command, or before it
    made = bring(place, transport, tmp_path / "here", "run/a/1", "run/b/1")
    assert made.left("1@run/a/1") == f"'x' cannot be read: Permission denied (tried {TRIES} times)"
    assert (made.left("1@run/b/1"), made.problem, transport.asked) == ("", "", TRIES)
    assert tree(tmp_path / "here") == {
        f"run/{t}/1/{n}": d for t in "ab" for n, d in (("y", b"2"), ("stdout.txt", b"o"))
    }


@pytest.mark.parametrize("error", [TransportError("h", "it is gone", started=False), OSError(28, "No space left")])
def test_what_is_no_file_s_trouble_is_tried_for_ever(place, tmp_path, error):
    place.attempt("run/a/1", {"x": "1"})
    transport = Trouble(5 * TRIES, error)
    made = bring(place, transport, tmp_path / "here", "run/a/1")
    assert (made.left("1@run/a/1"), transport.asked) == ("", 5 * TRIES + 1)
    assert tree(tmp_path / "here") == {"run/a/1/x": b"1"}


def test_a_file_that_can_be_read_in_time_is_here(place, tmp_path):
    place.attempt("run/a/1", {"x": "1"})
    unreadable(place)

    class Mended(LocalTransport):
        asked = 0

        def run(self, script, **more):
            self.asked += 1
            if self.asked == TRIES:
                for tool in ("tar", "sha256sum"):
                    (place.bin / tool).unlink()
            return super().run(script, **more)

    made = bring(place, Mended(), tmp_path / "here", "run/a/1")
    assert made.left("1@run/a/1") == ""
    assert tree(tmp_path / "here") == {"run/a/1/x": b"1"}


@pytest.fixture
def backend(tmp_path, place, monkeypatch):
    slurm = FakeSlurm(tmp_path / "slurm")
    slurm.use(monkeypatch)
    unreadable(place)
    made = SlurmBackend(None, str(tmp_path / "workspace"), results_root=tmp_path / "results", waits=WAITS)
    yield made
    made.close()
    slurm.end()


def test_a_run_ends_and_its_task_says_what_of_it_is_not_here(backend, tmp_path, capsys):
    flow = Workflow("w", [Task("echo 1 >x; echo 2 >y", "a", outputs=["x", "y"])])
    result = run_workflow(flow, backend=backend, journal=tmp_path / "j.db")
    assert result["a"].state == "COMPLETED"
    with History(tmp_path / "j.db") as history:
        detail = history.task(history.run(None), "a").detail
    assert "not all results are here: 'x' cannot be read: Permission denied" in detail
    assert f":{tmp_path}/workspace/w/a/1, copy them from there" in detail
    assert main(["status", "--journal", str(tmp_path / "j.db"), "--all"]) == 0
    assert "'x' cannot be read: Permission denied" in capsys.readouterr().out
    assert tree(tmp_path / "results/w/a/1") == {"stdout.txt": b"", "stderr.txt": b"", "y": b"2\n"}


def test_what_takes_a_file_that_can_never_be_read_is_refused_in_the_end(backend):
    job_id = backend.submit(Task("echo 1 >x", "a", outputs=["x"]))
    while backend.poll(job_id).state != "COMPLETED":
        pass
    for _ in range(TRIES - 1):
        with pytest.raises(UnreadableError):
            backend.retrieve(job_id, "x")
    with pytest.raises(SubmitRefusedError, match=r"'x' of job .* cannot be read: Permission denied\. What takes it"):
        backend.retrieve(job_id, "x")
