"""Profiles with ``backend: slurm``. Nothing of Slurm or SSH is imported before one is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import asdict

from matterstack.config.checked import checked, kind_of, local_path, wrong
from matterstack.core.budget import BUDGET
from matterstack.core.notices import ON
from matterstack.errors import ConfigError
from matterstack.runtime.backends.hpc.backend import SlurmBackend
from matterstack.runtime.backends.hpc.options import SlurmOptions, root_problem
from matterstack.runtime.backends.hpc.waits import Waits
from matterstack.runtime.transports.ssh_config import SSHConfig

_PATHS: Final = ("key_filename", "known_hosts", "ssh_config")


class SlurmProfile(Struct, forbid_unknown_fields=True):
    """Keys of a profile with ``backend: slurm``; see `SlurmBackend`."""

    backend: str
    workspace_root: str
    ssh: Any = {}
    slurm: Any = {}
    results_root: str = "./results"
    retrieve: Literal["none", "declared", "all"] = "declared"
    waits: Any = {}
    max_array: int = 1000
    retry: str | None = None
    budget_core_hours: float | None = None
    on: Any = None


def resolve_slurm(value: Mapping[str, Any], file: Path, base: Path, name: str) -> dict[str, Any]:
    """Return the settings of a profile, checked, as `SlurmBackend.settings` gives them, and its ``retry``.

    Args:
        value: What stands in the file.
        file: For messages.
        base: Where relative paths on this machine start.
        name: The profile's name.

    Raises:
        ConfigError: A key is unknown, missing, of the wrong type or makes no sense.
    """
    where = ["profiles", name]
    profile = checked(value, SlurmProfile, file, where)
    if problem := _root_problem(profile.workspace_root):
        raise wrong(file, [*where, "workspace_root"], problem)
    if profile.max_array < 1:
        raise wrong(file, [*where, "max_array"], f"must be at least 1, not {profile.max_array}")
    return {
        "backend": "slurm",
        **({"ssh": _ssh(profile.ssh, file, base, [*where, "ssh"])} if "ssh" in value else {}),
        "workspace_root": os.path.normpath(profile.workspace_root),
        "slurm": _options(profile.slurm, file, [*where, "slurm"]),
        "results_root": local_path(profile.results_root, base, file, [*where, "results_root"]),
        "retrieve": profile.retrieve,
        "waits": _waits(profile.waits, file, [*where, "waits"]),
        "max_array": profile.max_array,
        **{key: one for key in ("retry", BUDGET, ON) if (one := getattr(profile, key)) is not None},
    }


def open_slurm(resolved: Mapping[str, Any]) -> SlurmBackend:
    """Return the backend of resolved settings. Nothing is connected.

    Raises:
        ConfigError: They were recorded by another version of MatterStack.
    """
    try:
        return SlurmBackend(
            SSHConfig(**resolved["ssh"]) if "ssh" in resolved else None,
            resolved["workspace_root"],
            resolved["slurm"],
            results_root=resolved["results_root"],
            retrieve=resolved["retrieve"],
            waits=Waits(**resolved["waits"]),
            max_array=resolved["max_array"],
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ConfigError(
            f"profile {resolved.get('name')!r}, as the journal has it, was recorded by another version of MatterStack: "
            f"{error}. Nothing was started; name the profile with --profile."
        ) from error


def _root_problem(root: str) -> str | None:
    if root.startswith("/"):
        return "must have no '..'" if ".." in root.split("/") else root_problem(root)
    why = "what it starts from there is not known here"
    if root.startswith("~") or "$" in root:
        why = "neither ~ nor variables are looked up on the cluster, where they mean something else than here"
    return f"must be an absolute path on the cluster, not {root!r}: {why}"


def _ssh(value: object, file: Path, base: Path, where: list[str]) -> dict[str, Any]:
    if isinstance(value, SSHConfig):
        config = value
    else:
        if isinstance(value, Mapping):
            value = {key: os.fspath(one) if isinstance(one, os.PathLike) else one for key, one in value.items()}
        config = checked(value, SSHConfig, file, where)
    found = {key: one for key, one in asdict(config).items() if one is not None}
    for key in _PATHS:
        if key in found and not found[key].startswith("~"):
            found[key] = os.path.normpath(base / found[key])
    return found


def _waits(value: object, file: Path, where: list[str]) -> dict[str, float]:
    waits = asdict(checked(value, Waits, file, where))
    for key, seconds in waits.items():
        if not 0 < seconds < float("inf"):
            raise wrong(file, [*where, key], f"must be a number of seconds above 0, not {seconds:g}")
    if waits["poll_min_s"] > waits["poll_max_s"]:
        problem = f"poll_min_s, {waits['poll_min_s']:g}, is above poll_max_s, {waits['poll_max_s']:g}"
        raise wrong(file, where, problem)
    return waits


def _options(value: object, file: Path, where: list[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong(file, where, f"expected a mapping of keys to values, got {kind_of(value)}")
    for key, one in value.items():
        try:
            SlurmOptions.of({key: one})
        except (TypeError, ValueError) as error:
            raise wrong(file, where, str(error), key) from None
    return SlurmOptions.of(value).to_mapping()
