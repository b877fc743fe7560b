"""Answers of Slurm's commands and of a cluster's tools."""

from __future__ import annotations

import re
from typing import Final

from matterstack.core.slurm_words import kind_of, plain_word, stall_of
from matterstack.runtime.backends.hpc import site as sites
from matterstack.runtime.backends.hpc.accounting import newest, read_accounting
from matterstack.runtime.backends.hpc.complaints import read_complaint, shown
from matterstack.runtime.backends.hpc.queue import read_queue
from matterstack.runtime.backends.hpc.replies import Accepted, Doubt, Held, Refused, read_reply
from matterstack.runtime.backends.hpc.slurm import Answer, accounting_command, answer_of, queue_command

_NAME: Final = "relax-Al.ms-k3abcdefghijklmnopqrstuvwx"
_QUEUE: Final = f"{_NAME}#N/A|12|RUNNING|None|1795867107|.\n"
_ACCOUNT: Final = f"12|12|COMPLETED|0:0|1795867107|1795867108|1795867109|n1|{_NAME}|\n"
_ID: Final = re.compile(r"[0-9]{1,10}(\+[0-9]{1,4})?(_[0-9]{1,9})?", re.ASCII)
_LONG_RANGE: Final = re.compile(r"-([0-9]{3})[0-9]+")
_KEPT: Final = 2048  # words that are remembered, at most
_WORDS: Final = 500  # characters


def squeue(data: bytes) -> None:
    """Rows are whole and sane, and what stands before a row does not change it."""
    text = _text(data)
    rows = read_queue(text)
    for row in rows:
        assert _ID.fullmatch(row.slurm_id)
        assert row.slurm_id.endswith("" if row.index is None else f"_{row.index}")
        assert row.name in text
        assert row.reason in text
        _word(row.word)
        stall_of(row.reason)
        _seconds(row.submit)
    assert read_queue(f"{text}\n{_QUEUE}") == rows + read_queue(_QUEUE)


def sacct(data: bytes) -> None:
    """Rows are whole and sane, and what stands before a row does not change it."""
    text = _text(data)
    rows = read_accounting(text)
    for row in rows:
        assert _ID.fullmatch(row.slurm_id)
        assert re.fullmatch(r"[0-9]{1,10}", row.raw_id, re.ASCII)
        assert row.name in text
        assert row.node in text
        _word(row.word)
        for number in (row.submit, row.start, row.end, row.cancelled_by, row.exit_code, row.signal):
            _seconds(number)
        assert not (row.refused and row.ran)
    found = newest(rows)
    assert set(found) <= {row.slurm_id for row in rows}
    assert all(row.slurm_id == slurm_id for slurm_id, row in found.items())
    assert newest(rows, dict.fromkeys(found, _NAME)).keys() <= found.keys()
    assert read_accounting(f"{text}\n{_ACCOUNT}") == rows + read_accounting(_ACCOUNT)


def sbatch(data: bytes) -> None:
    """A job is believed only with exit code 0 and an id, a refusal only without one. ``data``: code NUL out NUL err."""
    parts = [*data.split(b"\0", 2), b"", b""]
    number, stdout, stderr = (part.decode("utf-8", "replace") for part in parts[:3])
    code = int(number) if re.fullmatch(r"[0-9]{1,3}", number, re.ASCII) else None
    reply = read_reply(code, stdout, stderr)
    match reply:
        case Accepted():
            assert code == 0
            assert reply.slurm_id in stdout
            assert reply.cluster in stdout
            assert accounting_command([reply.slurm_id], reply.cluster)
            assert queue_command(reply.cluster)
            assert len(reply.warnings) <= _WORDS
        case Refused() | Held():
            assert code not in (None, 0, 124)
            assert len(reply.words) <= _WORDS
        case Doubt():
            assert reply.words
            assert len(reply.words) <= _WORDS
    # Whatever else was said, an answer that was lost proves nothing.
    lost = read_reply(code, stdout, f"{stderr}\nsbatch: error: Socket timed out on send/recv operation")
    assert isinstance(lost, (Accepted, Doubt))
    assert answer_of(code, stderr) in Answer


def site(data: bytes) -> None:
    """Numbers of a site are numbers that can be counted with."""
    text = _text(data)
    settings = sites.read_settings(text)
    numbers: list[float | None] = [settings.min_job_age_s, settings.message_timeout_s]
    numbers += [settings.max_array_size, settings.max_job_count]
    for partition in sites.read_partitions(text):
        assert partition.name
        numbers += [partition.nodes, partition.time_limit_s]
    for limits in sites.read_limits(text):
        assert limits.account
        numbers += [limits.max_jobs, limits.max_submit]
    for qos in sites.read_qos(text):
        assert qos.name
        numbers += [qos.max_jobs, qos.max_submit, qos.max_wall_s]
    for number in numbers:
        _seconds(number)


def complaint(data: bytes) -> None:
    """Names out of a tool's words are never empty; the words can be shown on a terminal."""
    assert shown(data).isprintable()
    for line in data.split(b"\n"):
        found = read_complaint(line)
        if found is not None:
            names, why = found
            assert names
            assert all(names)
            assert why.isprintable()


def _text(data: bytes) -> str:
    # Lists of up to 100,000 elements are allowed, and slow; short ones go the same way.
    return _LONG_RANGE.sub(r"-\1", data.decode("utf-8", "replace"))


def _word(word: str) -> None:
    assert word
    assert word == plain_word(word)
    assert len(word.split()) == 1
    kind_of(word)
    kept = plain_word.cache_info()
    assert kept.maxsize is not None
    assert kept.currsize <= _KEPT


def _seconds(number: float | None) -> None:
    assert number is None or 0 <= number < 10**12
