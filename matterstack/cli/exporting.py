"""``export``: a run's provenance in formats of others."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from matterstack.errors import MatterStackError
from matterstack.history.past import located
from matterstack.provenance import RunRecord, collect, crate, lines


def export(arguments: argparse.Namespace) -> int:
    """Write what is known of a run's attempts."""
    path, kind = located(arguments.journal), arguments.format
    if arguments.output == "-" and kind == "rocrate":
        raise MatterStackError("a crate is a directory or a .zip file. Nothing was written; name it with --output.")
    run = collect(path, arguments.run, events=kind == "rocrate")
    if arguments.output == "-":
        sys.stdout.writelines(_text(kind, run))
        return 0
    target = Path(arguments.output or f"{run.run}{ENDINGS[kind]}")
    if os.path.lexists(target):
        raise MatterStackError(f"{str(target)!r} exists. Nothing was written; name another with --output.")
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        if kind == "rocrate":
            crate.write(run, part, arguments.license)
        else:
            with part.open("w", encoding="utf-8", newline="") as file:
                file.writelines(_text(kind, run))
        part.replace(target)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
    print(target)
    return 0


ENDINGS = {"jsonl": ".jsonl", "csv": ".csv", "rocrate": ".crate"}


def _text(kind: str, run: RunRecord) -> Iterable[str]:
    return lines.jsonl(run) if kind == "jsonl" else lines.table(run)
