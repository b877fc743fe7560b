"""Profiles: backends by name, chosen when a run starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from matterstack.core.budget import BUDGET, budget_problem
from matterstack.core.notices import ON
from matterstack.core.workflow import RETRIES
from matterstack.errors import ConfigError, UnknownName, nearest
from matterstack.runtime.backends.base import ComputeBackend
from matterstack.runtime.backends.local import LocalBackend
from matterstack.runtime.settings import Settings

FILES: Final = ("config/profiles.py", "config/profiles.yaml", "matterstack.yaml")
BUILT_IN: Final = "local"


class LocalProfile(Struct, forbid_unknown_fields=True):
    """Keys of a profile with ``backend: local``; see `LocalBackend`."""

    backend: str
    workspace_root: str = "./results"
    max_concurrent_tasks: int | None = None
    grace_s: int = 5
    retry: str | None = None
    budget_core_hours: float | None = None
    on: Any = None


KINDS: Final = ("local", "slurm")


class Profile(Struct):
    """One profile and where it stands. Relative paths in it start from ``base``."""

    name: str
    value: Any  # a mapping of settings, or a backend made in profiles.py
    file: Path | None
    base: Path


class Profiles:
    """All profiles that can be seen from a directory; of two with one name the nearer counts.

    Args:
        given: A file named by the user, which is looked into first.
        base: Directory in which the built-in profile puts its results; by default the current one.
    """

    def __init__(self, given: Path | None = None, base: Path | None = None) -> None:
        self._default: str | None = None
        self._found: dict[str, Profile] = {}
        for file, beside in _files(given, Path.cwd()):
            self._add(file, beside)
        self._found.setdefault(BUILT_IN, Profile(BUILT_IN, {"backend": "local"}, None, base or Path.cwd()))

    @property
    def default(self) -> str:
        """Name of the profile that a run has without asking for one."""
        return self._default or BUILT_IN

    def names(self) -> list[str]:
        """Return the names of all profiles."""
        return sorted(self._found)

    def choose(self, name: str | None) -> Profile:
        """Return the profile of this name; None: the default of the nearest file that has one, or ``local``.

        Raises:
            UnknownName: There is none.
        """
        name = name or self.default
        if name not in self._found:
            raise UnknownName("profile", name, self._found, "Nothing was started")
        return self._found[name]

    def _add(self, file: Path, base: Path) -> None:
        default, profiles = _read(file)
        self._default = self._default or default
        for name, value in profiles.items():
            self._found.setdefault(str(name), Profile(str(name), value, file, base))


def _files(given: Path | None, start: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each profile file and the directory its relative paths start from, nearest first."""
    if given is not None:
        yield given, given.absolute().parent
    for directory in (start, *start.parents):
        for name in FILES:
            if (directory / name).is_file():
                yield directory / name, directory
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "matterstack", "profiles.yaml")
    if home.is_file():
        yield home, Path.home()


def _read(file: Path) -> tuple[str | None, Mapping[str, Any]]:
    if file.suffix == ".py":
        from matterstack.config.python_file import read_python  # only where there is one

        names = read_python(file)
        data = {key: names[key] for key in ("default", "profiles") if key in names}
    else:
        from matterstack.config.yaml_file import read_yaml  # 20 ms; without a file nobody needs it

        data = read_yaml(file) or {}
    if not isinstance(data, Mapping) or not isinstance(data.get("profiles"), Mapping):
        raise _wrong(file, "profiles", "expected `profiles`, a mapping of names to settings")
    for key in data:
        if key not in ("default", "profiles"):
            raise _wrong(file, key, f"unknown key {key!r}{nearest(str(key), ('default', 'profiles'))}")
    default, profiles = data.get("default"), data["profiles"]
    if default is not None and default not in list(profiles):
        raise _wrong(file, "default", f"default: no profile {default!r}{nearest(str(default), map(str, profiles))}")
    return None if default is None else str(default), profiles


def _wrong(file: Path, key: object, problem: str) -> ConfigError:
    from matterstack.config.checked import wrong  # imports yaml

    return wrong(file, [], problem, key)


def settings(profile: Profile) -> Settings:
    """Return the profile's backend, and the profile as the journal remembers it. Nothing is connected or written.

    Raises:
        ConfigError: A key is unknown or has the wrong type.
    """
    resolved = resolve(profile)
    backend = profile.value if isinstance(profile.value, ComputeBackend) else open_backend(resolved)
    return Settings(backend, resolved)


def settings_for(profiles: Profiles, names: Iterable[str]) -> dict[str, Settings]:
    """Return the settings of several profiles by name.

    Raises:
        UnknownName: There is none of that name; this is told before any is opened.
        ConfigError: As for `settings`.
    """
    chosen = [profiles.choose(name) for name in dict.fromkeys(names)]
    return {profile.name: settings(profile) for profile in chosen}


def resolve(profile: Profile) -> dict[str, Any]:
    """Return the profile's settings, checked, with absolute paths and its name.

    Raises:
        ConfigError: A key is unknown or has the wrong type.
    """
    if isinstance(profile.value, ComputeBackend):
        return {"name": profile.name, **profile.value.settings()}
    if profile.file is None:
        local = LocalProfile(**profile.value)
        return {"name": profile.name, **_resolve_local(local, os.path.normpath(profile.base / local.workspace_root))}
    return {"name": profile.name, **_checked(profile, profile.file)}


def _checked(profile: Profile, file: Path) -> dict[str, Any]:
    from matterstack.config.checked import checked, kind_of, local_path, wrong  # imports yaml

    where = ["profiles", profile.name]
    if not isinstance(profile.value, Mapping):
        raise wrong(file, where, f"expected a mapping of settings, got {kind_of(profile.value)}")
    value = {key: os.fspath(one) if isinstance(one, os.PathLike) else one for key, one in profile.value.items()}
    kind = value.get("backend")
    if kind not in KINDS:
        problem = f"no backend {kind!r}" if "backend" in value else "missing key 'backend'"
        raise wrong(file, where, f"{problem}{nearest(str(kind), KINDS)}", "backend")
    if kind == "slurm":
        from matterstack.config.slurm_profile import resolve_slurm  # a local run needs nothing of Slurm and SSH

        resolved = resolve_slurm(value, file, profile.base, profile.name)
    else:
        local = checked(value, LocalProfile, file, where)
        for key, least in (("max_concurrent_tasks", 1), ("grace_s", 0)):
            number = getattr(local, key)
            if number is not None and number < least:
                raise wrong(file, [*where, key], f"must be at least {least}, not {number}")
        root = local_path(local.workspace_root, profile.base, file, [*where, "workspace_root"])
        resolved = _resolve_local(local, root)
    if ON in resolved:
        from matterstack.config.notices import commands  # only where there are any

        resolved[ON] = commands(resolved[ON], file, [*where, ON])
    if BUDGET in resolved and (unfit := budget_problem(resolved[BUDGET])):
        raise wrong(file, [*where, BUDGET], unfit)
    if (retry := resolved.get("retry", RETRIES[0])) not in RETRIES:
        raise wrong(file, [*where, "retry"], f"{retry!r} is not a way to retry{nearest(retry, RETRIES)}")
    return resolved


def _resolve_local(local: LocalProfile, workspace_root: str) -> dict[str, Any]:
    return {
        "backend": "local",
        "workspace_root": workspace_root,
        "max_concurrent_tasks": local.max_concurrent_tasks,
        "grace_s": local.grace_s,
        **{key: one for key in ("retry", BUDGET, ON) if (one := getattr(local, key)) is not None},
    }


def open_backend(resolved: Mapping[str, Any]) -> ComputeBackend:
    """Return the backend of a resolved profile, as `resolve` gives it or the journal remembers it.

    Raises:
        ConfigError: The profile was a backend object, which only its own script can make again.
    """
    match resolved.get("backend"):
        case "local":
            return LocalBackend(
                resolved["workspace_root"], resolved["max_concurrent_tasks"], grace_s=int(resolved.get("grace_s", 5))
            )
        case "slurm":
            from matterstack.config.slurm_profile import open_slurm  # a local run needs nothing of Slurm and SSH

            return open_slurm(resolved)
    raise ConfigError(
        f"the run used a backend of its own script (profile {resolved.get('name')!r}), which the journal cannot "
        "make again. Nothing was started; run that script again, or name a profile with --profile."
    )
