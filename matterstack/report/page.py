"""The page: template, style, script and data put together so that it needs no network and lets nothing in."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any, Final, NamedTuple

import msgspec

MARK: Final = "<!-- matterstack report -->"
"""In the second line of every report: what has it may be overwritten by the next."""

# In JSON these stand only within strings, where the escape means the same. `<` could end the element or open a
# comment; the two separators once ended lines of JavaScript.
_ESCAPED: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_HTML: Final = str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;"})


class Page(NamedTuple):
    """The page as text, and the policy that its server should send, which the page has as well."""

    html: str
    policy: str


def page(data: dict[str, Any], *, live: bool = False) -> Page:
    """Return the page of a run.

    Args:
        data: As `collect` gives it.
        live: The page asks its server for news. Else it asks for nothing.
    """
    style, script = _part("page.css"), "".join(map(_part, ("base.js", "pictures.js", "tables.js", "page.js")))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
        + ("; connect-src 'self'" if live else "")
    )
    parts = {
        "mark": MARK,
        "policy": policy,
        "title": f"{data['run']} - MatterStack".translate(_HTML),
        "style": style,
        "data": embedded(data),
        "live": "live" if live else "",
        "script": script,
    }
    pieces = _part("page.html").split("@@")  # one pass: what is put in is not looked at again
    return Page("".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces)), policy)


def embedded(data: dict[str, Any]) -> str:
    """Return the data as JSON that can stand in a page, whatever its strings say."""
    return msgspec.json.encode(data).decode().translate(_ESCAPED)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _part(name: str) -> str:
    return files("matterstack.report").joinpath(name).read_text(encoding="utf-8")
