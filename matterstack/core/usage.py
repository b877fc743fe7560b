"""What one attempt used, as far as anybody can tell."""

from __future__ import annotations

from msgspec import Struct


class Usage(Struct, frozen=True, omit_defaults=True):
    """Times are seconds since 1970, spans in seconds, memory in bytes. None or empty: not known, never nothing.

    ``source`` is who told, such as ``sacct``; ``unknown`` says why what is missing cannot be known. ``eligible``: when
    it could have started. ``cpus``, ``memory``: allocated. ``max_rss``: the most of any process of any one step, as it
    was sampled. ``cpu_s``: of all processes, user and system.
    """

    source: str = ""
    unknown: str = ""
    submit: float | None = None
    eligible: float | None = None
    start: float | None = None
    end: float | None = None
    elapsed_s: float | None = None
    cpus: int | None = None
    memory: int | None = None
    max_rss: int | None = None
    cpu_s: float | None = None
    nodes: str = ""
    account: str = ""
    partition: str = ""
    qos: str = ""
    restarts: int | None = None
    exit_code: int | None = None
    signal: int | None = None
