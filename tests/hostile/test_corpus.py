"""Every input that was once written or found, through the targets of scripts/fuzz."""

from pathlib import Path

import pytest
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
CASES = [
    pytest.param(TARGETS[name], case, id=f"{name}-{case.name}")
    for name in TARGETS
    for case in sorted((CORPUS / name).glob("*"))
]


@pytest.mark.parametrize(("target", "case"), CASES)
def test_an_input_of_the_corpus_does_no_harm(target, case):
    target(case.read_bytes())


def test_every_directory_of_the_corpus_has_its_target():
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} == set(TARGETS)


def test_a_target_can_fail(monkeypatch):
    """Once what it watches over does not hold."""
    monkeypatch.setattr("fuzz.streams.Receiver.finish", lambda _self, sums: set(sums))
    with pytest.raises(FileNotFoundError):
        TARGETS["tar"]((CORPUS / "tar/above").read_bytes())
