"""Chromium for the tests that look at a page; without it they are skipped, and it is said."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest
from page_journals import Story

CHROMIUM = shutil.which("chromium")
SKIP = "there is no Chromium with Playwright to look at pages with: scripts/browser install"


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path / "journal.db")


@pytest.fixture(scope="module")
def chromium():
    """A browser; not for the whole session, for Playwright leaves an event loop and a child in the process."""
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        pytest.skip(SKIP)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        # Chromium's sandbox does not work as root; the pages are ours.
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


class Reader:
    """A page in a browser without network. Whatever goes wrong in it, or is asked of a network, is in ``trouble``."""

    def __init__(self, context):
        self.trouble, self.page = [], context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("console", self._said)
        self.page.on("dialog", lambda dialog: self.trouble.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._asked)

    def _said(self, message):
        if message.type == "error":  # also what the page's policy forbade
            self.trouble.append(f"console: {message.text}")

    def _asked(self, request):
        if not request.url.startswith(("file:", "data:")):
            self.trouble.append(f"request: {request.url}")

    def names(self, table="tasks"):
        """Return what the first column of a table has in the document."""
        return self.page.locator(f"#{table} tbody td:first-child button").all_inner_texts()

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def until(self, selector, text):
        """Wait until an element says this, among other things."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_contain_text(text, timeout=20_000)


@pytest.fixture
def browse(chromium):
    """Open a file in the browser, as (path, width, height, scheme)."""
    opened, readers = [], []

    def open_page(path, *, width=1280, height=900, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, offline=True)
        opened.append(context)
        readers.append(Reader(context))
        readers[-1].page.goto(f"file://{path}")
        return readers[-1]

    yield open_page
    for context in opened:
        context.close()
    assert [trouble for reader in readers for trouble in reader.trouble] == []
