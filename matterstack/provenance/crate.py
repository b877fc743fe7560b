"""A run as a Workflow Run RO-Crate: the workflow's run is one action, each attempt another.

Files are named by what is in them (RFC 6920), for a crate is read elsewhere than where they lie, and may be large.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from matterstack import __version__
from matterstack.errors import MatterStackError
from matterstack.provenance.lines import jsonl
from matterstack.provenance.records import AttemptRecord, RunRecord

_PROFILES: Final = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
_TERMS: Final = {
    name: f"https://w3id.org/ro/terms/workflow-run#{name}"
    for name in ("ContainerImage", "containerImage", "environment", "resourceUsage", "sha256")
}
_MATTERSTACK: Final = "#matterstack"
_STATUS: Final = {
    "COMPLETED": "http://schema.org/CompletedActionStatus",
    "FAILED": "http://schema.org/FailedActionStatus",
}
_ACTIVE: Final = "http://schema.org/ActiveActionStatus"
_WORKFLOW: Final = ("File", "SoftwareSourceCode", "ComputationalWorkflow")
_NO_LICENSE: Final = "Whoever owns this run has stated no license."


def write(run: RunRecord, target: Path, license_url: str = "") -> None:
    """Write the crate into a new directory, or into a ZIP file where ``target`` ends in ``.zip``.

    Raises:
        MatterStackError: The package ``rocrate`` is not installed.
        OSError: It cannot be written.
    """
    try:
        from rocrate.rocrate import ROCrate  # 0.5 s, and few need it
    except ImportError as error:
        raise MatterStackError(
            "a crate needs the package rocrate, which is not installed. Nothing was written; install it with "
            "`pip install 'matterstack[rocrate]'`, or use --format jsonl."
        ) from error
    crate = _Crate(ROCrate(version="1.1"), run)
    crate.describe(license_url)
    crate.actions()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about files that are named, not contained
        if target.suffix == ".zip":
            crate.crate.write_zip(target)
        else:
            crate.crate.write(target)


class _Crate:
    def __init__(self, crate: Any, run: RunRecord) -> None:
        self.crate, self.run = crate, run
        self._files: dict[str, Any] = {}
        self._agents: dict[str, Any] = {}

    def _add(self, _id: str, kind: str | list[str], /, **properties: Any) -> Any:
        from rocrate.model.contextentity import ContextEntity

        known = {name: _single(value) for name, value in properties.items() if value not in (None, "", [])}
        return self.crate.add(ContextEntity(self.crate, _id, properties={"@type": kind, **known}))

    def describe(self, license_url: str) -> None:
        """Say what the crate is, and put in it the workflow and the events."""
        crate, run = self.crate, self.run
        crate.metadata.extra_terms.update(_TERMS)
        crate.name = f"Run {run.run} of MatterStack"
        crate.description = (
            f"What was run, on what, where, by whom, and what came of it: {len(run.attempts)} attempts at "
            f"{len(run.specs)} tasks. The chain of events ends with {run.head}."
        )
        root = crate.root_dataset
        root["license"] = self._add(license_url or "#no-license", "CreativeWork", name=license_url or _NO_LICENSE)
        root["identifier"] = run.head
        if run.user:
            root["author"] = self._agent(run.user)
        root["conformsTo"] = [
            self._add(url, "CreativeWork", name=name, version=version) for url, (name, version) in _PROFILES.items()
        ]
        language = self._add(
            "#workflow-language",
            "ComputerLanguage",
            name="MatterStack workflow",
            identifier="https://pypi.org/project/matterstack/",
            url="https://pypi.org/project/matterstack/",
            version=__version__,
        )
        workflow = self._text("workflow.json", msgspec.json.format(msgspec.json.encode(run.specs)).decode(), _WORKFLOW)
        workflow["name"] = f"Tasks of {run.name}"
        workflow["programmingLanguage"] = language
        crate.mainEntity = workflow
        self.workflow = workflow
        events = self._text("events.jsonl", "".join(f"{line}\n" for line in run.events))
        events["description"] = "Every event of the run, with the hashes that chain them"
        attempts = self._text("attempts.jsonl", "".join(jsonl(run)))
        attempts["description"] = "One record an attempt"

    def _text(self, name: str, text: str, kinds: Sequence[str] = ("File",)) -> Any:
        kind = "application/json" if name.endswith(".json") else "application/jsonl"
        properties = {
            "@type": list(kinds),
            "name": name,
            "encodingFormat": kind,
            "contentSize": str(len(text.encode())),
        }
        return self.crate.add_file(io.StringIO(text), name, properties=properties)

    def _agent(self, user: str) -> Any:
        if user not in self._agents:
            self._agents[user] = self._add(f"#user-{_quoted(user)}", "Person", name=user) if user else None
        return self._agents[user]

    def actions(self) -> None:
        """Add the run, and every attempt."""
        run = self.run
        # First, so that a file that one task makes and another takes has the name of its making.
        results = [
            self._file(sha, size, name) for record in run.attempts for name, (sha, size) in _outputs(record).items()
        ]
        objects: list[Any] = []
        mentioned: list[Any] = []
        for record in run.attempts:
            action = self._attempt(record)
            mentioned.append(action)
            objects += [self._input_entity(one) for one in record.inputs if one.sha256 and not one.task]
        open_ones = any(record.state not in _STATUS for record in run.attempts)
        failed = any(record.state == "FAILED" for record in _newest(run.attempts))
        status = _ACTIVE if open_ones else _STATUS["FAILED" if failed else "COMPLETED"]
        whole = self._add(
            f"#run-{_quoted(run.run)}",
            "CreateAction",
            name=f"Run {run.run}",
            description=f"{len(run.attempts)} attempts at {len(run.specs)} tasks",
            instrument=self.workflow,
            agent=self._agent(run.user),
            startTime=_second(run.created_at),
            endTime=_second(run.stopped_at),
            actionStatus=status,
            object=_once(objects),
            result=_once(results),
        )
        organised = self._add(
            f"#engine-run-{_quoted(run.run)}",
            "OrganizeAction",
            name="Run by MatterStack",
            instrument=self._add(
                _MATTERSTACK,
                "SoftwareApplication",
                name="MatterStack",
                softwareVersion=run.version,
                url="https://pypi.org/project/matterstack/",
            ),
            agent=self._agent(run.user),
            startTime=_second(run.created_at),
            endTime=_second(run.stopped_at),
            object=mentioned,
            result=whole,
        )
        self.crate.root_dataset["mentions"] = [whole, *mentioned, organised]

    def _attempt(self, record: AttemptRecord) -> Any:
        name = f"{_quoted(record.task)}-{record.attempt}"
        command = self._add(
            f"#command-{record.command_sha256}",
            "SoftwareApplication",
            name=record.command,
            sha256=record.command_sha256,
        )
        image = None
        if record.container:
            image = self._add(f"#image-{_quoted(record.container)}", "ContainerImage", name=record.container)
        controller = record.controller
        done = [self._file(sha, size, name) for name, (sha, size) in _outputs(record).items()]
        return self._add(
            f"#attempt-{name}",
            "CreateAction",
            name=f"Attempt {record.attempt} at {record.task}",
            description=_description(record),
            instrument=command,
            agent=self._agent(controller.user if controller else ""),
            startTime=_second(record.started_at),
            endTime=_second(record.ended_at),
            actionStatus=_STATUS.get(record.state, _ACTIVE),
            error=f"{record.reason} {record.detail}".strip() if record.state == "FAILED" else "",
            object=_once([self._input_entity(one) for one in record.inputs if one.sha256]),
            result=_once(done),
            containerImage=image,
            environment=self._values(f"#environment-{name}", record.environment),
            resourceUsage=self._values(f"#usage-{name}", record.usage),
            additionalProperty=self._values(f"#asked-{name}", _facts(record)),
        )

    def _values(self, prefix: str, values: dict[str, Any]) -> list[Any]:
        return [
            self._add(f"{prefix}-{_quoted(name)}", "PropertyValue", name=name, propertyID=name, value=_plain(value))
            for name, value in values.items()
        ]

    def _input_entity(self, one: Any) -> Any:
        return self._file(one.sha256, one.size, one.name)

    def _file(self, sha256: str, size: int | None, name: str) -> Any:
        if sha256 not in self._files:
            properties = {"name": name, "sha256": sha256, "contentSize": None if size is None else str(size)}
            known = {key: value for key, value in properties.items() if value is not None}
            known["encodingFormat"] = mimetypes.guess_type(name)[0] or "application/octet-stream"
            self._files[sha256] = self.crate.add_file(_content_name(sha256), properties=known)
        return self._files[sha256]


def _outputs(record: AttemptRecord) -> dict[str, tuple[str, int]]:
    return {name: (one.sha256, one.size) for name, one in (record.outputs or {}).items()}


def _facts(record: AttemptRecord) -> dict[str, Any]:
    """Return what an action has no word of its own for."""
    facts: dict[str, Any] = {
        **record.resources,
        **({"modules": record.modules} if record.modules else {}),
        "spec_hash": record.spec_hash,
        "backend": record.backend,
        "profile": record.profile,
        "job_id": record.job_id,
        "node": record.node,
        "exit_code": record.exit_code,
    }
    if record.controller:
        facts |= {"controller_host": record.controller.host, "controller_version": record.controller.version}
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _description(record: AttemptRecord) -> str:
    where = f" on {record.node}" if record.node else ""
    end = "" if record.exit_code is None else f", exit code {record.exit_code}"
    return f"{record.state}{where}{end}"


def _newest(attempts: list[AttemptRecord]) -> list[AttemptRecord]:
    return list({record.task: record for record in attempts}.values())


def _once(entities: list[Any]) -> list[Any]:
    return list({entity.id: entity for entity in entities}.values())


def _content_name(sha256: str) -> str:
    """Return the name of a content, by RFC 6920."""
    digest = base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")
    return f"ni:///sha-256;{digest}"


def _second(moment: str | None) -> str | None:
    """Return a time to the second, as the profile's shapes have it; the records have all that is known."""
    return moment and f"{moment[:19]}Z"


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()
