"""The campaign that is hurt: ``python -m chaos.campaign PLACE`` drives it once, as one controller."""

import json
import random
import sys
from pathlib import Path

from matterstack import Task, Workflow, run_workflow
from matterstack.runtime.backends.base import ComputeBackend
from matterstack.runtime.backends.hpc import SlurmBackend, SSHConfig, Waits
from matterstack.runtime.backends.local import LocalBackend

WAITS = {
    "poll_min_s": 0.5,
    "poll_max_s": 3.0,
    "settle_s": 20.0,
    "again_s": 3.0,
    "grace_s": 10.0,
    "infrastructure_s": 15.0,
    "absence_s": 30.0,
    "held_s": 5.0,
    "command_s": 20.0,
}


def workflow(place: Path, tasks: int, seed: int) -> Workflow:
    """Return tasks in layers of ten; each takes files of two of the layer before, and writes down its starts."""
    chance = random.Random(seed)
    flow = Workflow("chaos")
    names: list[str] = []
    for number in range(tasks):
        first = number // 10 * 10
        above = names[first - 10 : first]
        files = {f"in{i}": flow[one].output("out") for i, one in enumerate(chance.sample(above, 2) if above else [])}
        log = place / "log" / f"t{number:03}"
        sums = " ".join(f"$(cat {name})" for name in files)
        command = (
            f"echo $MATTERSTACK_ATTEMPT >>{log}; sleep {chance.uniform(0.2, 2):.1f}; "
            f"n=1; for i in {sums}; do n=$((n + i)); done; echo $n >out"
        )
        flow.add(Task(command, f"t{number:03}", files=files, outputs=["out"], retry="infrastructure", max_attempts=20))
        names.append(f"t{number:03}")
    return flow


def backend_of(place: Path, settings: dict) -> ComputeBackend:
    """Return the backend that a controller uses."""
    if settings["local"]:
        return LocalBackend(place / "results", max_concurrent_tasks=16)
    ssh = SSHConfig(**settings["ssh"], connect_timeout_s=10, keepalive_s=5)
    return SlurmBackend(
        ssh, str(place / "workspace"), {"account": "acct"}, results_root=place / "results", waits=Waits(**WAITS)
    )


def main() -> None:
    """Drive the campaign; exit 0 when it is done well."""
    place = Path(sys.argv[1])
    settings = json.loads((place / "settings.json").read_text())
    backend = backend_of(place, settings)
    flow = workflow(place, settings["tasks"], settings["seed"])
    result = run_workflow(flow, backend=backend, journal=place / "j.db", retry_interrupted=True)
    print(result, [(one, one.detail) for one in result.failed()][:5], flush=True)
    sys.exit(0 if result.ok else 1)


if __name__ == "__main__":
    main()
