"""A run as pictures: one HTML page that needs nothing else, and the data that it shows."""

from __future__ import annotations

from matterstack.report.data import Workdir, collect
from matterstack.report.page import Page, page

__all__ = ["Page", "Workdir", "collect", "page"]
