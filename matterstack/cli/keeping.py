"""``verify``, ``backup`` and ``clean``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matterstack.cli.page import workdirs
from matterstack.cli.text import as_json, number
from matterstack.core.printable import printable
from matterstack.history import History
from matterstack.runtime import heads, outputs
from matterstack.runtime.cleaning import clean_run
from matterstack.runtime.opening import chosen_run, find_journal, open_journal, verify_journal


def verify(arguments: argparse.Namespace) -> int:
    """Check the journal, and where it is asked for a run's head and files."""
    path = find_journal(arguments.journal)
    expected = heads.parse(arguments.expect) if arguments.expect else None
    report = verify_journal(path)
    told = _Told(report.ok, list(_found(path, report)))
    told.json = {"events": report.events, "streams": report.streams}
    told.json["problems"] = [problem._asdict() for problem in report.problems]
    if report.ok and expected:
        told.expected(heads.compare(path, expected))
    if report.ok and (arguments.record_files or arguments.files or arguments.head):
        with History(path) as history:
            run = history.run(arguments.run)
            directories = workdirs(history, run)
        if arguments.record_files:
            told.recorded(run, outputs.record_now(path, run, directories))
        if arguments.files:
            told.files(run, outputs.check(path, run, directories))
        if arguments.head:
            with open_journal(path, create=False, read_only=True) as journal:
                told.head(str(heads.head(journal, run)))
    print(as_json({"ok": told.ok, **told.json}) if arguments.json else "\n".join(map(printable, told.lines)))
    return 0 if told.ok else 1


class _Told:
    """What there is to say, for people and machines; of a journal that was altered nothing but that."""

    def __init__(self, ok: bool, lines: list[str]) -> None:
        self.ok, self.lines = ok, lines
        self.json: dict[str, Any] = {}

    def expected(self, compared: heads.Expected) -> None:
        self.json["expected"] = compared._asdict()
        self.lines.append(compared.what)
        self.ok = self.ok and compared.ok

    def recorded(self, run: str, attempts: int) -> None:
        self.json["recorded"] = attempts
        self.lines.append(f"run {run!r}: outputs of {number(attempts, 'attempt')} recorded now")

    def files(self, run: str, checked: outputs.Checked) -> None:
        self.json["files"] = {**checked._asdict(), "findings": [one._asdict() for one in checked.findings]}
        self.ok = self.ok and checked.ok
        size = (
            f"{number(checked.files, 'output')} of {number(checked.attempts, 'attempt')}, {checked.bytes / 1e6:.1f} MB"
        )
        state = "as recorded" if checked.ok else f"{len(checked.findings)} not as recorded"
        self.lines.append(f"run {run!r}: {size}: {state}")
        self.lines += [f"  {one.task}, attempt {one.attempt}: {one.name}: {one.what}" for one in checked.findings]
        if checked.unrecorded:
            tasks = number(len(checked.unrecorded), "completed task")
            self.lines.append(
                f"  nothing is recorded yet of the outputs of {tasks}, such as {checked.unrecorded[0]!r}; "
                f"`matterstack verify --record-files {run}` does it where the files are on this machine"
            )

    def head(self, head: str) -> None:
        """Say the head alone where all is well, for a script."""
        self.json["head"] = head
        if self.ok:
            self.lines = [head]


def _found(path: Path, report: Any) -> Iterator[str]:
    if report.ok:
        yield f"{path}: {report.events} events in {number(report.streams, 'stream')}, all hashes and tables right"
        return
    for problem in report.problems:
        at = f"event {problem.position}, " if problem.position is not None else ""
        where = f"{at}stream {problem.stream!r}, version {problem.version}: " if problem.stream is not None else ""
        yield f"{path}: {where}{problem.what}"
    for stream, version in report.last_good.items():
        yield f"  stream {stream!r} can be trusted up to version {version}"


def backup(arguments: argparse.Namespace) -> int:
    """Copy the journal."""
    path, target = find_journal(arguments.journal), Path(arguments.target)
    with open_journal(path, create=False, read_only=True) as journal:
        journal.backup(target)
    print(as_json({"copy": str(target), "journal": str(path)}) if arguments.json else f"{target}: a copy of {path}")
    return 0


def clean(arguments: argparse.Namespace) -> int:
    """Remove directories of ended attempts."""
    path = find_journal(arguments.journal)
    with open_journal(path, create=False, read_only=True) as journal:
        run = chosen_run(journal, arguments.run)
        cleaned = clean_run(journal, run, outputs_too=arguments.all, dry_run=arguments.dry_run)
    if arguments.json:
        print(as_json({"run": run, "dry_run": arguments.dry_run, **cleaned._asdict()}))
        return 0
    word = "would remove" if arguments.dry_run else "removed"
    size, attempts = f"{cleaned.bytes / 1e6:.1f} MB", number(cleaned.attempts, "ended attempt")
    print(f"run {run!r}: {word} {number(cleaned.files, 'file')}, {size}, of {attempts}")
    if cleaned.kept_live:
        print(f"  kept {number(cleaned.kept_live, 'attempt')} that may still run")
    return 0
