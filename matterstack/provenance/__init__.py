"""Where every result of a run comes from, as records and in formats of others."""

from __future__ import annotations

from matterstack.provenance.records import AttemptRecord, RunRecord, collect

__all__ = ["AttemptRecord", "RunRecord", "collect"]
