"""``profiles``: which there are, what they say, and whether they work."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from matterstack import api
from matterstack.cli.text import as_json, table
from matterstack.config.profiles import Profile, Profiles, open_backend, resolve
from matterstack.core.printable import printable
from matterstack.errors import ConfigError
from matterstack.runtime.backends.base import ComputeBackend
from matterstack.runtime.backends.finding import Finding, Verdict
from matterstack.runtime.backends.local import LocalBackend
from matterstack.runtime.opening import find_journal


def profiles(arguments: argparse.Namespace) -> int:
    """List profiles, show one, or check one."""
    found = api.visible_profiles(find_journal(arguments.journal), arguments.config)
    if arguments.action == "list":
        return _list(found, arguments)
    profile = found.choose(arguments.name)
    return (_show if arguments.action == "show" else _check)(profile, arguments)


def _list(found: Profiles, arguments: argparse.Namespace) -> int:
    names = [arguments.name] if arguments.name else found.names()
    rows = [_row(found.choose(name)) | {"default": name == found.default} for name in names]
    if arguments.json:
        print(as_json(rows))
        return 0
    cells = [
        [
            row["name"] + (" (default)" if row["default"] else ""),
            row["backend"],
            row["where"],
            row["file"] or "built in",
        ]
        for row in rows
    ]
    for line in table(["NAME", "BACKEND", "WHERE", "FILE"], cells):
        print(printable(line))
    return 0


def _row(profile: Profile) -> dict[str, Any]:
    row = {"name": profile.name, "file": str(profile.file) if profile.file else None}
    try:
        resolved = resolve(profile)
    except ConfigError as error:  # one that nobody chose stands in nobody's way
        kind = profile.value.get("backend") if isinstance(profile.value, Mapping) else None
        return row | {"backend": str(kind or "?"), "where": "cannot be used, see `show`", "problem": str(error)}
    return row | {"backend": _kind(profile, resolved), "where": _where(resolved)}


def _kind(profile: Profile, resolved: Mapping[str, Any]) -> str:
    return str(resolved.get("backend") or type(profile.value).__name__)


def _where(resolved: Mapping[str, Any]) -> str:
    """Return the workspace, with its host as ``scp`` writes it."""
    ssh, root = resolved.get("ssh"), str(resolved.get("workspace_root", ""))
    if not ssh:
        return root
    user = f"{ssh['username']}@" if "username" in ssh else ""
    return f"{user}{ssh['hostname']}:{root}"


def _show(profile: Profile, arguments: argparse.Namespace) -> int:
    resolved = resolve(profile)
    settings = {key: value for key, value in resolved.items() if key != "name" and value is not None}
    if arguments.json:
        print(as_json({"name": profile.name, "file": str(profile.file) if profile.file else None, **settings}))
        return 0
    from matterstack.config.yaml_file import to_yaml  # yaml takes 20 ms

    print(f"# {printable(str(profile.file)) if profile.file else 'built in'}")
    if "backend" not in settings:
        print(f"# a {type(profile.value).__name__} object, which only that file can make")
    print(to_yaml({"profiles": {profile.name: settings}}), end="")
    return 0


def _check(profile: Profile, arguments: argparse.Namespace) -> int:
    backend = profile.value if isinstance(profile.value, ComputeBackend) else open_backend(resolve(profile))
    findings = []
    with closing(backend):
        for finding in _findings(backend):
            findings.append(finding)
            if not arguments.json:
                print(printable(f"{finding.verdict:<7}  {finding.what:<18} {finding.detail}").rstrip(), flush=True)
    ok = not any(finding.verdict is Verdict.FAILED for finding in findings)
    if arguments.json:
        print(as_json({"profile": profile.name, "ok": ok, "findings": findings}))
    return 0 if ok else 1


def _findings(backend: ComputeBackend) -> Iterator[Finding]:
    """Yield what there is to say of a backend; each kind is imported only where it is checked."""
    if isinstance(backend, LocalBackend):
        from matterstack.runtime.backends.local.checking import check_machine

        return check_machine(backend.root)
    from matterstack.runtime.backends.hpc.backend import SlurmBackend
    from matterstack.runtime.backends.hpc.checking import check_cluster

    if isinstance(backend, SlurmBackend):
        return check_cluster(backend.transport, backend.root, backend.options, backend.settings()["max_array"])
    raise ConfigError(f"a {type(backend).__name__} cannot be checked: only its own module knows how. Nothing was done.")
