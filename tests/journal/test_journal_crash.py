"""What was acknowledged survives SIGKILL and a torn log; what was not is there whole or not at all."""

from __future__ import annotations

import random
import shutil
import signal
import time

import pytest
from journal_samples import Colours, painted, python

from journal import Journal

WRITER = """
    import sys
    from journal import Journal
    from journal_samples import Colours, painted
    with Journal.open(sys.argv[1], projections=[Colours()]) as journal:
        version = journal.head("a").version
        while True:
            with journal.group():
                for n in range(7):
                    version = journal.append("a", [painted(f"x{version % 11}")], expected_version=version)
                journal.append("b", [painted("y")] * 3)
            print(version, flush=True)
"""


def test_a_killed_writer_leaves_whole_groups_and_loses_none_it_acknowledged(path):
    chance = random.Random(1)
    acknowledged = 0
    for _ in range(8):
        writer = python(WRITER, path)
        acknowledged = int(writer.stdout.readline())
        time.sleep(chance.uniform(0, 0.03))
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        complete = [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        acknowledged = max([acknowledged, *complete])

        with Journal.open(path, projections=[Colours()]) as journal:
            assert journal.head("a").version >= acknowledged
            assert journal.head("a").version % 7 == 0
            assert journal.head("b").version == journal.head("a").version // 7 * 3
            assert journal.verify().ok


@pytest.mark.parametrize("kept", ["log", "log and index"])
def test_a_log_cut_anywhere_holds_a_prefix_of_the_groups(tmp_path, kept):
    source = tmp_path / "events.db"
    with Journal.open(source) as journal:
        journal.checkpoint()
        for _ in range(6):
            journal.append("a", [painted("x", "c" * 900)] * 5)
        files = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    wal = files["events.db-wal"]
    versions = []
    for cut in range(0, len(wal) + 1, 1500):
        place = tmp_path / f"cut{cut}"
        place.mkdir()
        (place / "events.db").write_bytes(files["events.db"])
        (place / "events.db-wal").write_bytes(wal[:cut])
        if kept != "log":
            (place / "events.db-shm").write_bytes(files["events.db-shm"])
        with Journal.open(place / "events.db") as journal:
            versions.append(journal.head("a").version)
            assert journal.verify().ok
        shutil.rmtree(place)
    assert versions[0] == 0
    assert versions == sorted(versions)
    assert set(versions) <= {0, 5, 10, 15, 20, 25, 30}
    assert len(set(versions)) > 4
