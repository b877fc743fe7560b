"""What the documentation shows is what happens."""

from __future__ import annotations

import re

from journal_samples import ROOT, Colours, output, painted, python

from journal import Journal

TEXT = (ROOT / "docs" / "journal.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_example_runs_and_prints_what_it_says():
    printed = output(python(BLOCKS[0])).splitlines()
    assert printed == [
        "[('apple', 10)]",
        "2",
        "1 Delivered {'n': 12}",
        "2 Sold {'n': -2}",
        "3 Sold {'n': -1}",
        "True",
    ]


def test_the_formula_gives_the_recorded_hash(journal):
    names: dict = {}
    exec(BLOCKS[1], names)
    journal.append("a", [painted("x"), painted("y")])
    previous = bytes(32)
    for e in journal.read("a"):
        texts = (e.stream.encode(), e.type.encode(), e.subject.encode(), e.data)
        previous = names["event_hash"](previous, e.version, e.at, *texts)
        assert e.hash == previous


def test_every_table_is_described(path):
    with Journal.open(path, projections=[Colours()]) as journal:
        tables = journal.query("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    described = set(re.findall(r"`(\w+)`", TEXT))
    assert {name for (name,) in tables if not name.startswith("colours")} <= described


def test_every_public_call_is_described():
    public = {name for name in dir(Journal) if not name.startswith("_")} - {"open", "close", "write"}
    described = set(re.findall(r"`(?:Journal\.)?(\w+)\(", TEXT))
    assert public <= described


def test_an_event_costs_at_most_120_bytes_over_its_data(path):
    data_size = len(painted("x").data)
    with Journal.open(path) as journal:
        for n in range(100):
            journal.append("a", [painted(f"subject-{n * 25 + k // 4:06d}") for k in range(100)])
        journal.checkpoint()
    assert path.stat().st_size / 10_000 - data_size <= 120
