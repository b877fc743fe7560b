"""What `slurm` measures, each in a process of its own: ``slurm_subject.py WHAT CLUSTER PLACE [TRANSPORT]``."""

import json
import sys
import time
from pathlib import Path

from cluster import Cluster

from matterstack import Task, Workflow, run_workflow
from matterstack.runtime.backends.hpc import SlurmBackend, SSHConfig

SIZE = 1_000_000_000


def backend_of(cluster: Cluster, place: Path, transport: str) -> SlurmBackend:
    ssh = SSHConfig(**cluster.ssh_config_kwargs(), transport=transport)
    backend = SlurmBackend(ssh, str(place / "workspace"), {"account": "acct"}, results_root=place / "results")
    run, backend.remote_commands = backend.transport.run, 0  # type: ignore[attr-defined]  # counted here only

    def counting(*words: object, **options: object) -> object:
        backend.remote_commands += 1  # type: ignore[attr-defined]
        return run(*words, **options)

    backend.transport.run = counting  # type: ignore[method-assign, assignment]
    return backend


def campaign(backend: SlurmBackend, place: Path) -> dict[str, float]:
    tasks = [Task(f"echo {i}; exit {i % 7 == 3:d}", f"t{i:03}") for i in range(500)]
    begin = time.perf_counter()
    result = run_workflow(Workflow("bench", tasks), backend=backend, journal=place / "j.db")
    taken = time.perf_counter() - begin
    for i in range(500):
        found, bad = result[f"t{i:03}"], i % 7 == 3
        known = (str(found.state), found.exit_code, found.logs()["stdout"])
        assert known == ("FAILED" if bad else "COMPLETED", int(bad), f"{i}\n"), (i, known, found.reason, found.detail)
    return {"seconds": taken, "commands": backend.remote_commands}  # type: ignore[attr-defined]


def staging(backend: SlurmBackend, _place: Path) -> dict[str, float]:
    from matterstack.runtime.backends.hpc.remote import Remote
    from matterstack.runtime.backends.hpc.staging import Inputs, stage

    shared = {f"shared{i}": f"content of file {i}\n" * 50 for i in range(9)}
    inputs = [
        Inputs(f"bench/t{i}/1", {**shared, "own": f"own of {i}\n"}, {"command": b"true", "env": b"set --\n"})
        for i in range(1000)
    ]
    remote = Remote(backend.transport, backend.root, 600)
    remote.ask("say hello")  # the connection is not what is measured
    begin = time.perf_counter()
    problems = stage(remote, inputs, {})
    taken = time.perf_counter() - begin
    assert not problems
    for i in (0, 500, 999):
        there = Path(backend.root, f"bench/t{i}/1")
        assert (there / "own").read_text() == f"own of {i}\n"
        assert (there / "shared8").read_text() == shared["shared8"]
    return {"seconds": taken}


def retrieval(backend: SlurmBackend, place: Path) -> dict[str, float]:
    from matterstack.runtime.backends.hpc.retrieval import Wanted, retrieve

    backend.transport.run("true")
    begin = time.perf_counter()
    problems = retrieve(
        backend.transport, backend.root, [Wanted("bench/big/1", ("big",), (), place / "big", logs=False)]
    )
    taken = time.perf_counter() - begin
    assert not problems, problems
    assert (place / "big/big").stat().st_size == SIZE
    (place / "big/big").unlink()
    return {"seconds": taken}


def main() -> None:
    what, home, place, *transport = sys.argv[1:]
    backend = backend_of(Cluster(home), Path(place), transport[0] if transport else "paramiko")
    found = {"campaign": campaign, "staging": staging, "retrieval": retrieval}[what](backend, Path(place))
    backend.close()
    Path(place, "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
