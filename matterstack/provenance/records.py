"""One record an attempt: what went in, what ran, where, started by whom, and what came out; from the journal alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from matterstack.core import events as ev
from matterstack.core.events import FileSum
from matterstack.history.past import Past
from matterstack.runtime import heads, outputs
from matterstack.runtime.opening import chosen_run, open_journal

_RESOURCES: Final = ("cores", "memory_gb", "gpus", "time_limit_minutes")
_SITE: Final = ("account", "partition", "qos", "constraint", "reservation", "options")
_USED: Final = ("elapsed_s", "cpus", "memory_b", "max_rss_b", "cpu_s", "nodes", "restarts", "source", "unknown")
_Attempt = tuple[str, int]


class Controller(Struct, frozen=True, omit_defaults=True):
    """Who submitted an attempt: the process of MatterStack, its user, host and version. Empty: not recorded."""

    user: str
    host: str
    pid: int
    boot_id: str
    version: str


class Input(Struct, frozen=True, omit_defaults=True):
    """A file that was there when the attempt began. ``task`` and ``output``: it is what another task left.

    Without a hash it is not known what was in it.
    """

    name: str
    sha256: str = ""
    size: int | None = None
    path: str = ""
    task: str = ""
    output: str = ""


class AttemptRecord(Struct, frozen=True):
    """All that is known of an attempt. Times are ISO 8601 in UTC; None or empty: not known.

    ``command_sha256`` is of the command as the shell got it, ``spec_hash`` of all that the task says, its inputs with
    it. ``resources`` is what was asked for, ``usage`` what was used. ``outputs`` is None where nobody recorded them.
    """

    run: str
    task: str
    attempt: int
    state: str
    reason: str
    exit_code: int | None
    signal: int | None
    detail: str
    command: str
    command_sha256: str
    spec_hash: str
    environment: dict[str, str]
    container: str
    modules: list[str]
    resources: dict[str, Any]
    inputs: list[Input]
    outputs: dict[str, FileSum] | None
    backend: str
    profile: str
    job_id: str | None
    token: str
    node: str
    requested_at: str | None
    submitted_at: str | None
    started_at: str | None
    ended_at: str | None
    usage: dict[str, Any]
    controller: Controller | None


class RunRecord(Struct, frozen=True):
    """A run: its attempts, oldest of each task first, its tasks' specs, and the head of its chain of events.

    ``events`` are all up to that head, as lines of JSON; empty where they were not asked for.
    """

    run: str
    name: str
    version: str
    user: str
    created_at: str
    stopped_at: str | None
    head: str
    specs: dict[str, dict[str, Any]]
    attempts: list[AttemptRecord]
    events: list[str]


class _Requested(Struct, frozen=True):
    """What held when an attempt was requested."""

    spec: Mapping[str, Any]
    spec_hash: str
    controller: Controller | None
    profile: Mapping[str, Any]


def collect(path: Path, run: str | None = None, *, events: bool = False) -> RunRecord:
    """Return what the journal at ``path`` knows of a run; None for the newest. ``events``: with every event of it.

    Raises:
        UnknownName: There is no such run.
        JournalError: The journal cannot be read.
    """
    with open_journal(path, create=False, read_only=True) as journal, Past(path) as past:
        name = chosen_run(journal, run)
        left = outputs.recorded(journal, name)
        usage = {(row.task, row.attempt): row for row in past.view("history_attempt_usage", name)}
        rows = past.attempts(run=name)
        (summary,) = [one for one in past.runs() if one.run == name]
        ((version,),) = journal.query("SELECT version FROM runs WHERE run = ?", (name,))
        # After the attempts, which a controller may go on to change: so each has its request among the events.
        head = heads.head(journal, name)
        specs, requested, user = _requested(journal.read(name, limit=head.version))
        attempts = [
            _attempt(row, requested[row.task, row.attempt], left, usage.get((row.task, row.attempt))) for row in rows
        ]
        lines = list(islice(journal.export(name), head.version)) if events else []
    return RunRecord(
        name,
        summary.name,
        version,
        user,
        str(_iso(summary.created_at)),
        _iso(summary.stopped_at),
        str(head),
        specs,
        attempts,
        lines,
    )


def _requested(records: Iterator[Any]) -> tuple[dict[str, dict[str, Any]], dict[_Attempt, _Requested], str]:
    """Return the specs that hold now, what held at each request, and who started the run last."""
    specs: dict[str, tuple[dict[str, Any], str]] = {}
    found: dict[_Attempt, _Requested] = {}
    controller: Controller | None = None
    profile: dict[str, Any] = {}
    profiles: dict[str, Any] = {}
    for record in records:
        if record.type not in ("RunCreated", "RunStarted", "TaskAdded", "TaskChanged", "SubmitRequested"):
            continue
        task = record.subject.partition("/")[2]
        match ev.decode(record.type, record.data):
            case ev.RunCreated() as event:
                profile = event.profile
            case ev.RunStarted() as event:
                controller = Controller(event.user, event.host, event.pid, event.boot_id, event.version)
                profile, profiles = event.profile, event.profiles
            case ev.TaskAdded() | ev.TaskChanged() as event:
                specs[task] = event.spec, event.spec_hash
            case ev.SubmitRequested() as event:
                chosen = profiles.get(event.profile, profile)
                found[task, event.attempt] = _Requested(*specs[task], controller, chosen)
    return {task: spec for task, (spec, _) in specs.items()}, found, controller.user if controller else ""


def _attempt(row: Any, at: _Requested, left: Mapping[_Attempt, dict[str, FileSum]], used: Any) -> AttemptRecord:
    spec, slurm = at.spec, at.profile.get("slurm") or {}
    command, backend = str(spec["command"]), str(at.profile.get("backend") or "")
    asked = {name: spec[name] for name in _RESOURCES if name in spec}
    asked.update((name, slurm[name]) for name in _SITE if slurm.get(name))
    return AttemptRecord(
        run=row.run,
        task=row.task,
        attempt=row.attempt,
        state=row.state,
        reason=row.reason,
        exit_code=row.exit_code,
        signal=row.signal,
        detail=row.detail,
        command=command,
        command_sha256=hashlib.sha256(command.encode()).hexdigest(),
        spec_hash=at.spec_hash,
        environment=dict(spec.get("env", {})),
        container=str(spec.get("image") or "") if backend != "local" else "",  # there it is ignored
        modules=list(slurm.get("modules") or ()),
        resources=asked,
        inputs=[_input(name, source, left) for name, source in spec.get("files", {}).items()],
        outputs=left.get((row.task, row.attempt)),
        backend=backend,
        profile=str(at.profile.get("name") or row.profile),
        job_id=row.job_id,
        token=row.token,
        node=row.node,
        requested_at=_iso(row.requested_at),
        submitted_at=_iso(row.submitted_at),
        started_at=_iso(row.started_at),
        ended_at=_iso(row.ended_at),
        usage={name: value for name in _USED if (value := getattr(used, name, None)) not in (None, "")},
        controller=at.controller,
    )


def _input(name: str, source: Mapping[str, Any], left: Mapping[_Attempt, dict[str, FileSum]]) -> Input:
    if "text" in source:
        data = str(source["text"]).encode()
        return Input(name, hashlib.sha256(data).hexdigest(), len(data))
    if "task" in source:
        task, output = str(source["task"]), str(source["output"])
        newest = max((attempt for one, attempt in left if one == task), default=0)
        found = left.get((task, newest), {}).get(output)
        return Input(name, found.sha256 if found else "", found.size if found else None, task=task, output=output)
    return Input(
        name, source.get("sha256", ""), source["stat"][0] if "stat" in source else None, path=str(source["path"])
    )


def _iso(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def flat(record: AttemptRecord) -> dict[str, Any]:
    """Return a record as columns: the controller's facts one by one, everything else that has parts as it is."""
    columns = {name: getattr(record, name) for name in AttemptRecord.__struct_fields__ if name != "controller"}
    controller = record.controller or Controller("", "", 0, "", "")
    return columns | {f"controller_{name}": value for name, value in asdict(controller).items()}
