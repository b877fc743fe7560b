"""What a cluster's answers mean for a profile. Pure text in, findings out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from matterstack.errors import nearest
from matterstack.runtime.backends.finding import Finding, Verdict, space
from matterstack.runtime.backends.hpc.options import SlurmOptions
from matterstack.runtime.backends.hpc.site import (
    Limits,
    Partition,
    Qos,
    Settings,
    read_limits,
    read_partitions,
    read_qos,
    read_settings,
)

OK, WARNING, FAILED = Verdict.OK, Verdict.WARNING, Verdict.FAILED
_OLDEST: Final = (20, 11)
_VERSION: Final = re.compile(r"\b([0-9]{2})\.([0-9]{2})\b", re.ASCII)
_ENFORCED: Final = re.compile(r"^AccountingStorageEnforce *= *(.*)$", re.MULTILINE)
# Mostly disks of one machine, which its neighbours do not see.
_OF_ONE_MACHINE: Final = ("btrfs", "ext2/ext3", "overlayfs", "ramfs", "tmpfs", "xfs", "zfs")
_TIMED_OUT: Final = 124


class Said(Struct):
    """What a part of the answer said: words of its mark, text, exit code where there is one."""

    words: list[str]
    text: str
    code: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the command worked."""
        return self.code == 0


def judge(said: Mapping[str, Said], root: str, options: SlurmOptions, max_array: int) -> Iterator[Finding]:
    """Yield what the answers of `checking` mean."""
    yield from _commands(said["path"].text.split())
    if "sbatch" in said["path"].text.split():
        yield _version(said["version"])
        yield _queue(said["queue"])
        yield from _scheduler(said, options, max_array)
    yield from _workspace(said, root)
    yield _tool("tar", said["tar"])
    yield from _modules(said, options)


def _commands(there: Sequence[str]) -> Iterator[Finding]:
    missing = [name for name in ("sbatch", "squeue", "scancel", "scontrol") if name not in there]
    if missing:
        detail = f"not in PATH: {', '.join(missing)}; make a plain `ssh HOST sbatch --version` work"
        yield Finding("Slurm commands", FAILED, detail)
    elif "sacct" not in there:
        yield Finding("Slurm commands", WARNING, "sacct is not in PATH; ends are told by the jobs' own records only")
    else:
        yield Finding("Slurm commands", OK, "in PATH")
    tools = [name for name in ("sha256sum", "timeout", "stat", "mktemp") if name not in there]
    if tools:
        yield Finding("tools", FAILED, f"not in PATH: {', '.join(tools)}")


def _version(said: Said) -> Finding:
    text, found = last_line(said.text), _VERSION.search(said.text)
    if not said.ok or found is None:
        return Finding("Slurm version", FAILED, f"sbatch does not run: {_why(said)}")
    if (int(found[1]), int(found[2])) < _OLDEST:
        return Finding("Slurm version", WARNING, f"{text}: older than 20.11, with which nobody has tried this")
    return Finding("Slurm version", OK, text)


def _queue(said: Said) -> Finding:
    if not said.ok:
        return Finding("controller", FAILED, f"squeue got no answer: {_why(said)}")
    return Finding("controller", OK, f"answers; jobs of yours: {len(said.text.split())}")


def _scheduler(said: Mapping[str, Said], options: SlurmOptions, max_array: int) -> Iterator[Finding]:
    settings = read_settings(said["settings"].text)
    if said["partitions"].ok:
        yield from _partitions(read_partitions(said["partitions"].text), options)
    yield _accounting(said["accounting"], settings)
    yield from _limits(said, options, settings)
    if not said["settings"].ok:
        yield Finding("settings", WARNING, f"scontrol show config got no answer: {_why(said['settings'])}")
        return
    yield _arrays(settings, options, max_array)
    yield Finding("MinJobAge", OK, f"{settings.min_job_age_s} s; so long squeue shows jobs that have ended")


def _partitions(there: Sequence[Partition], options: SlurmOptions) -> Iterator[Finding]:
    names = [one.name for one in there]
    yield Finding("partitions", OK if names else WARNING, ", ".join(names) or "none to be seen")
    if not options.partition:
        default = next((one for one in there if one.default), None)
        if default is None:
            yield Finding("partition", FAILED, "there is no default; name one as `partition` in `slurm`")
        else:
            yield _partition(default, " (the default)")
    for name in filter(None, options.partition.split(",")):
        found = next((one for one in there if one.name == name), None)
        if found is None:
            yield Finding("partition", FAILED, f"there is no {name!r}{nearest(name, names)}")
        else:
            yield _partition(found, "")


def _partition(found: Partition, note: str) -> Finding:
    limit = f"jobs up to {_span(found.time_limit_s)}" if found.time_limit_s is not None else "jobs of any length"
    detail = f"{found.name}{note}: {found.nodes} nodes, {limit}"
    return Finding("partition", OK, detail) if found.up else Finding("partition", WARNING, f"{detail}; it is not up")


def _accounting(said: Said, settings: Settings) -> Finding:
    if settings.accounting is False:
        return Finding("accounting", WARNING, "off; how a job ended is told by its own record only")
    if not said.ok:
        return Finding("accounting", WARNING, f"sacct got no answer: {_why(said)}")
    return Finding("accounting", OK, "on")


def _limits(said: Mapping[str, Said], options: SlurmOptions, settings: Settings) -> Iterator[Finding]:
    if settings.accounting is False:
        return
    if not said["limits"].ok:
        yield Finding("account", WARNING, f"sacctmgr got no answer: {_why(said['limits'])}")
        return
    enforced = _ENFORCED.search(said["settings"].text)
    bad = FAILED if enforced and "associations" in enforced[1] else WARNING
    mine = read_limits(said["limits"].text)
    accounts = list(dict.fromkeys(one.account for one in mine))
    rows = [one for one in mine if one.account == options.account] if options.account else mine
    if rows:
        name = options.account or f"the default of {', '.join(accounts)}"
        yield Finding("account", OK, f"{name}: {_most(_least(rows, 'max_jobs'), _least(rows, 'max_submit'))}")
    elif accounts:
        yield Finding("account", bad, f"you may not charge {options.account!r}{nearest(options.account, accounts)}")
    else:
        yield Finding("account", bad, "you may charge none; ask the site")
    yield from _qos(rows or mine, read_qos(said["qos"].text), options, bad)


def _qos(rows: Sequence[Limits], known: Sequence[Qos], options: SlurmOptions, bad: Verdict) -> Iterator[Finding]:
    allowed = list(dict.fromkeys(name for one in rows for name in one.qos))
    if options.qos and allowed and options.qos not in allowed:
        yield Finding("QOS", bad, f"not with this account: {options.qos!r}{nearest(options.qos, allowed)}")
        return
    wanted = [options.qos] if options.qos else allowed
    for one in known:
        if one.name in wanted:
            wall = f", jobs up to {_span(one.max_wall_s)}" if one.max_wall_s is not None else ""
            yield Finding("QOS", OK, f"{one.name}: {_most(one.max_jobs, one.max_submit)}{wall}")
    if options.qos and options.qos not in [one.name for one in known]:
        yield Finding("QOS", bad, f"there is no {options.qos!r}{nearest(options.qos, [one.name for one in known])}")


def _least(rows: Sequence[Limits], field: str) -> int | None:
    return min((value for one in rows if (value := getattr(one, field)) is not None), default=None)


def _most(jobs: int | None, submitted: int | None) -> str:
    parts = [f"{n:,} {what}" for n, what in ((jobs, "running"), (submitted, "submitted")) if n is not None]
    return f"at most {' and '.join(parts)} jobs of yours at once; the rest waits here" if parts else "no limit of jobs"


def _arrays(settings: Settings, options: SlurmOptions, max_array: int) -> Finding:
    size = settings.max_array_size
    if options.arrays and size < 2:
        return Finding("MaxArraySize", FAILED, f"{size}: no job arrays here; set `arrays: false` in `slurm`")
    if options.arrays and max_array > size:
        return Finding("MaxArraySize", FAILED, f"{size:,}, below max_array {max_array:,}; set `max_array: {size}`")
    return Finding("MaxArraySize", OK, f"{size:,}")


def _workspace(said: Mapping[str, Said], root: str) -> Iterator[Finding]:
    there, _, words = said["workspace"].text.rstrip("\n").partition("\n")
    if not said["workspace"].ok:
        why = last_line(words) or "links to files do not count there"
        yield Finding("workspace", FAILED, f"{root} cannot be used: {why}")
        return
    yield Finding("workspace", OK, root if there == root else f"{root}, to be made in {there}")
    kind = last_line(said["filesystem"].text) if said["filesystem"].ok else "of unknown type"
    if kind in _OF_ONE_MACHINE:
        yield Finding("file system", WARNING, f"{kind}, mostly a disk of one machine; compute nodes must see it, too")
    else:
        yield Finding("file system", OK, kind)
    blocks, files = _free(said["space"]), _free(said["files"])
    if blocks is not None:
        yield space(blocks * 1024, files)


def _free(said: Said) -> int | None:
    """Return the fourth column of a line of df; None where it is not known, or there are none at all to count."""
    words = last_line(said.text).split()
    known = said.ok and len(words) >= 6 and words[1].isdigit() and words[3].isdigit() and words[1] != "0"
    return int(words[3]) if known else None


def _tool(name: str, said: Said) -> Finding:
    if not said.ok:
        return Finding(name, FAILED, f"does not run: {_why(said)}")
    return Finding(name, OK, said.text.partition("\n")[0].strip())


def _modules(said: Mapping[str, Said], options: SlurmOptions) -> Iterator[Finding]:
    if failed := said.get("failed"):
        line = options.modules[int(failed.words[0])]
        yield Finding(
            "modules", FAILED, f"{line!r} did not work: {last_line(said['modules'].text) or 'it said nothing'}"
        )
        return
    if "container" not in said:
        yield Finding("modules", FAILED, f"they did not load: {_why(said['modules'])}")
        return
    if options.modules:
        yield Finding("modules", OK, f"load: {'; '.join(options.modules)}")
    if said["container"].ok:
        yield Finding("container runtime", OK, last_line(said["container"].text))
    else:
        detail = f"{options.container} is not in PATH on the login node; tasks with an image would fail"
        yield Finding("container runtime", WARNING, detail)


def _why(said: Said) -> str:
    if said.code == _TIMED_OUT:
        return "it took too long"
    return last_line(said.text) or f"exit code {said.code}"


def last_line(text: str) -> str:
    """Return the last line that says anything, without surrounding blanks."""
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "")


def _span(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    return (f"{days} d " if days else "") + f"{rest // 3600}:{rest // 60 % 60:02} h"
