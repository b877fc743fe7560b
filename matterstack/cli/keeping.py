"""``verify``, ``backup`` and ``clean``."""

from __future__ import annotations

import argparse
from pathlib import Path

from matterstack.cli.text import as_json, number
from matterstack.core.printable import printable
from matterstack.runtime.cleaning import clean_run
from matterstack.runtime.opening import chosen_run, find_journal, open_journal, verify_journal


def verify(arguments: argparse.Namespace) -> int:
    """Check the journal."""
    path = find_journal(arguments.journal)
    report = verify_journal(path)
    if arguments.json:
        problems = [problem._asdict() for problem in report.problems]
        print(as_json({"ok": report.ok, "events": report.events, "streams": report.streams, "problems": problems}))
        return 0 if report.ok else 1
    if report.ok:
        print(f"{path}: {report.events} events in {number(report.streams, 'stream')}, all hashes and tables right")
        return 0
    for problem in report.problems:
        at = f"event {problem.position}, " if problem.position is not None else ""
        where = f"{at}stream {problem.stream!r}, version {problem.version}: " if problem.stream is not None else ""
        print(printable(f"{path}: {where}{problem.what}"))
    for stream, version in report.last_good.items():
        print(f"  stream {stream!r} can be trusted up to version {version}")
    return 1


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
