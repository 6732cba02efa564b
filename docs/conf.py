"""Sphinx configuration: `make docs` builds the site into build/docs.

The source folder is the repository, so that links between the guides, `tuning.md` and `SECURITY.md`
are the same in a clone and on the site. Only the Markdown files named here become pages. The theme
(furo) has search and a dark mode and loads nothing from other hosts.
"""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import fastsse

ROOT = Path(__file__).parent.parent

project = "fastsse"
author = "the fastsse authors"
copyright = "the fastsse authors, MIT licence"
version = release = fastsse.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "tuning.md",
    "bench/README.md",
    "bench/peers/README.md",
    "conformance/README.md",
    "fastsse/swarm/README.md",
    "loadtests/README.md",
]
# Folders that the search for pages need not enter.
exclude_patterns = [".*", "build", "dist", "tests", "examples", "clients"]

# Anchors as GitHub makes them, so that a link to a heading works in both places.
myst_heading_anchors = 4
# `…` in an example is no JSON; tests/docs parses what can be parsed.
suppress_warnings = ["misc.highlighting_failure", "myst.header"]
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"fastsse {version}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False

_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[\w./-]+)\)")
_REDIRECT = '<!doctype html><title>fastsse</title><meta http-equiv="refresh" content="0; url={}">\n'


def _unlink(app: Sphinx, docname: str, source: list[str]) -> None:
    """A link to a folder of the repository, or to a Markdown file that is no page of the site, has
    no page to lead to: its text is left."""
    folder = (ROOT / docname).parent

    def has_page(path: Path) -> bool:
        if path.suffix != ".md" or not path.is_relative_to(ROOT):
            return not path.is_dir()
        return path.relative_to(ROOT).with_suffix("").as_posix() in app.env.found_docs

    def text_of(match: re.Match[str]) -> str:
        path = (folder / match["path"]).resolve()
        return match[0] if has_page(path) or not path.exists() else match["text"]

    source[0] = _LINK.sub(text_of, source[0])


def _lead_to_index(app: Sphinx, error: Exception | None) -> None:
    """The site's root leads to the first page."""
    if error is None and app.builder.format == "html":
        target = f"{root_doc}.html"
        Path(app.outdir, "index.html").write_text(_REDIRECT.format(target), "utf-8")


_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


def _mark_code(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: Any
) -> None:
    """Docstrings mark code as Markdown does; reStructuredText wants two backquotes, and `::` before
    an indented block."""
    marked: list[str] = []
    inside = False
    for line in lines:
        is_indented = line.startswith("    ")
        if is_indented and not inside and marked and not marked[-1]:
            marked += ["::", ""]
            inside = True
        elif line and not is_indented:
            inside = False
        marked.append(line if inside else _CODE.sub(r"``\1``", line))
    lines[:] = marked


def setup(app: Sphinx) -> None:
    """Sphinx calls it once."""
    os.environ.setdefault("NO_COLOR", "1")
    app.connect("autodoc-process-docstring", _mark_code, priority=400)
    app.connect("source-read", _unlink)
    app.connect("build-finished", _lead_to_index)
