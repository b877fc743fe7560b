"""Records of attempts as lines of JSON, or as a table of comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import msgspec

from matterstack.provenance.records import AttemptRecord, Controller, RunRecord, flat


def jsonl(run: RunRecord) -> Iterator[str]:
    """Yield a line an attempt; what is not known is left out or null."""
    for record in run.attempts:
        yield msgspec.json.encode(record).decode() + "\n"


def table(run: RunRecord) -> Iterator[str]:
    """Yield a head and a row an attempt; what has parts, such as the outputs, is JSON in its cell."""
    own = [name for name in AttemptRecord.__struct_fields__ if name != "controller"]
    columns = [*own, *(f"controller_{name}" for name in Controller.__struct_fields__)]
    yield _row(columns)
    for record in run.attempts:
        facts = flat(record)
        yield _row([_cell(facts[name]) for name in columns])


def _cell(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def _row(values: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
