"""The page as text: it asks nobody for anything, and nothing that others wrote leaves its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from matterstack.history.past import Past
from matterstack.report import collect, page
from matterstack.report.page import MARK, embedded

HOSTILE = [
    "</script><script>acted=1</script>",
    "<!--<script>",
    "<img src=x onerror=acted=1>",
    "]]>\u2028\u2029&lt;",
    "@@script@@",
    "\"'`${acted=1}\\",
]


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.texts, self.open = [], {}, None

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.open = tag

    def handle_data(self, text):
        self.texts.setdefault(self.open, []).append(text)


def parsed(html):
    elements = Elements()
    elements.feed(html)
    return elements


@pytest.fixture
def told(story):
    story.task(0, "a")
    with Past(story.write()) as past:
        return collect(past, "run")


def test_it_is_one_file_that_names_no_other(told):
    html = page(told).html
    elements = parsed(html)
    assert html.splitlines()[1] == MARK
    assert not [a for _, a in elements.found if {"src", "href", "action", "style"} & set(a)]
    assert not [a for _, a in elements.found if any(name.startswith("on") for name in a)]
    assert not re.search(r"https?:|@import|url\(", html)
    assert {tag for tag, _ in elements.found}.isdisjoint({"link", "iframe", "object", "embed", "base", "img"})


def test_its_policy_allows_its_own_script_and_style_and_nothing_else(told):
    made = page(told)
    script = re.findall(r"<script>(.*?)</script>", made.html, re.DOTALL)
    style = re.findall(r"<style>(.*?)</style>", made.html, re.DOTALL)
    assert (len(script), len(style)) == (1, 1)
    for text in script + style:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in made.policy
    assert f'content="{made.policy}"' in made.html
    assert made.policy.startswith("default-src 'none';")
    assert "unsafe" not in made.policy
    assert "connect-src" not in made.policy
    assert "connect-src 'self'" in page(told, live=True).policy


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_stay_data(told, text):
    told["words"] = [text]
    told["name"] = told["host"] = text
    elements = parsed(page(told).html)
    assert elements.found == parsed(page(told | {"words": [], "name": "", "host": ""}).html).found
    (between,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page(told).html, re.DOTALL)
    assert json.loads(between)["words"] == [text]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_of_a_run_stays_in_the_title(told, text):
    elements = parsed(page(told | {"run": text}).html)
    assert "".join(elements.texts["title"]).rstrip("\n") == f"{text} - MatterStack"


def test_json_cannot_end_its_element_or_a_line():
    text = embedded({"a": "</script><!--&\u2028\u2029"})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"a": "</script><!--&\u2028\u2029"}
