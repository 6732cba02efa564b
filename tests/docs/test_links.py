"""Links between the Markdown files of the repository lead somewhere, anchors included."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from tests.docs.blocks import ROOT

_FOLDERS = (
    "",
    "docs",
    "bench",
    "deploy",
    "examples",
    "fastsse",
    "loadtests",
    "conformance",
    "clients",
)
_SKIPPED = {"node_modules", ".venv", "build"}


def documents() -> list[Path]:
    """Every Markdown file that people read."""
    found = set(ROOT.glob("*.md"))
    for folder in _FOLDERS[1:]:
        found |= set((ROOT / folder).rglob("*.md"))
    return sorted(path for path in found if not _SKIPPED & set(path.parts))


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    found: list[str] = []
    tokens = MarkdownIt().parse(path.read_text("utf-8"))
    for heading, inline in pairwise(tokens):
        if heading.type == "heading_open":
            children = inline.children or []
            text = "".join(one.content for one in children if one.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            again = sum(1 for one in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one))
            found.append(f"{slug}-{again}" if again else slug)
    return frozenset(found)


def links(path: Path) -> list[str]:
    """Where the links and pictures of a file lead."""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text("utf-8"))
    inlines = (child for token in tokens for child in token.children or [])
    return [
        str(one.attrGet("href") or one.attrGet("src"))
        for one in inlines
        if one.type in ("link_open", "image")
    ]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_and_headings_lead_somewhere(path: Path) -> None:
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        found = (path.parent / target) if target else path
        assert found.exists(), f"{path.name} links to {link}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.resolve()), f"{path.name} links to {link}"
