"""What a site's Slurm is like: settings, partitions, limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

SETTINGS_COMMAND: Final = "scontrol show config"
PARTITIONS_COMMAND: Final = "scontrol show partition -o"
LIMITS_COMMAND: Final = (
    'sacctmgr -n -P show assoc user="$(id -un)" format=Account,Partition,QOS,DefaultQOS,MaxJobs,MaxSubmit'
)
QOS_COMMAND: Final = "sacctmgr -n -P show qos format=Name,MaxJobsPU,MaxSubmitPU,MaxWall"

_SETTING: Final = re.compile(r"^([A-Za-z_]{1,64}) *= ?(.*)$")
_SPAN: Final = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,6})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", re.ASCII)


class Settings(Struct, frozen=True):
    """Settings of ``scontrol show config``; times in seconds; 0 or empty where not known."""

    version: str = ""
    cluster: str = ""
    min_job_age_s: int = 0
    message_timeout_s: int = 0
    max_array_size: int = 0
    max_job_count: int = 0
    accounting: bool | None = None


class Partition(Struct, frozen=True):
    """A partition. ``time_limit_s``: None for none or not known."""

    name: str
    up: bool
    default: bool
    nodes: int
    time_limit_s: int | None


class Limits(Struct, frozen=True):
    """An account that the user may charge: QOS allowed with it, most jobs at once; None for no limit."""

    account: str
    partition: str
    qos: tuple[str, ...]
    default_qos: str
    max_jobs: int | None
    max_submit: int | None


class Qos(Struct, frozen=True):
    """A quality of service: most jobs of a user running, and submitted; longest job. None for no limit."""

    name: str
    max_jobs: int | None
    max_submit: int | None
    max_wall_s: int | None


def read_settings(text: str) -> Settings:
    """Return the settings of `SETTINGS_COMMAND`."""
    found = {whole[1]: whole[2].strip() for line in text.splitlines() if (whole := _SETTING.match(line.rstrip()))}
    storage = found.get("AccountingStorageType", "")
    return Settings(
        found.get("SLURM_VERSION", ""),
        found.get("ClusterName", ""),
        _number(found.get("MinJobAge")) or 0,
        _number(found.get("MessageTimeout")) or 0,
        _number(found.get("MaxArraySize")) or 0,
        _number(found.get("MaxJobCount")) or 0,
        not storage.endswith(("/none", "(null)")) if storage else None,
    )


def read_partitions(text: str) -> list[Partition]:
    """Return the partitions of `PARTITIONS_COMMAND`; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        fields = {key: value for key, mark, value in (word.partition("=") for word in line.split()) if mark}
        name, state = fields.get("PartitionName"), fields.get("State")
        if name and state:
            nodes = _number(fields.get("TotalNodes")) or 0
            limit = seconds_of(fields.get("MaxTime", ""))
            found.append(Partition(name, state == "UP", fields.get("Default") == "YES", nodes, limit))
    return found


def read_limits(text: str) -> list[Limits]:
    """Return what `LIMITS_COMMAND` says; lines that are no rows of it are left out."""
    return [
        Limits(account, partition, tuple(filter(None, qos.split(","))), default, _number(jobs), _number(submit))
        for account, partition, qos, default, jobs, submit in _rows(text, 6)
    ]


def read_qos(text: str) -> list[Qos]:
    """Return what `QOS_COMMAND` says; lines that are no rows of it are left out."""
    return [Qos(name, _number(jobs), _number(submit), seconds_of(wall)) for name, jobs, submit, wall in _rows(text, 4)]


def seconds_of(text: str) -> int | None:
    """Return a span as Slurm prints it (``30:00``, ``1-00:00:00``) in seconds; None for ``UNLIMITED`` or no span."""
    whole = _SPAN.fullmatch(text.strip())
    if whole is None:
        return None
    days, first, second, third = (int(part) if part else None for part in whole.groups())
    if third is None and days is None:  # MM or MM:SS
        return (first or 0) * 60 + (second or 0)
    return ((days or 0) * 24 + (first or 0)) * 3600 + (second or 0) * 60 + (third or 0)


def _rows(text: str, fields: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        row = line.strip().split("|")
        if len(row) == fields and row[0]:
            yield row


def _number(text: str | None) -> int | None:
    digits = re.match(r"[0-9]{1,12}(?![0-9])", (text or "").strip(), re.ASCII)
    return int(digits[0]) if digits else None
