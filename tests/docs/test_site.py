"""The site builds without a warning, and loads nothing from other hosts; so does the picture."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs import picture
from tests.docs.blocks import ROOT

_LOADED = {
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"),
    "video": ("src", "poster"), "audio": ("src",), "embed": ("src",), "object": ("data",),
    "link": ("href",), "use": ("href", "xlink:href"), "image": ("href", "xlink:href"),
}  # fmt: skip
_NOT_LOADED = {"canonical", "next", "prev", "search", "index", "author"}
_ELSEWHERE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*['"]?\s*((?:https?:)?//[^'")\s]+)""")
_POSITION = re.compile(r"\d{13}-\d+")


class Loads(HTMLParser):
    """Collects what a page has the browser load from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and set(values.get("rel", "").split()) & _NOT_LOADED:
            return
        names = (*_LOADED.get(tag, ()), "style")
        for name in names:
            value = values.get(name, "")
            if _ELSEWHERE.match(value) or _IN_STYLE.search(value):
                self.found.append(f"<{tag} {name}={value}>")


def loads(html: str) -> list[str]:
    """What this page would load from other hosts."""
    parser = Loads()
    parser.feed(html)
    return parser.found + _IN_STYLE.findall(html)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-j", "2", "-c", "docs"]
    done = subprocess.run(
        [*build, "-d", str(folder / "trees"), ".", str(folder / "html")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    found = {page.name: loads(page.read_text("utf-8")) for page in pages}
    assert not {name: what for name, what in found.items() if what}
    for style in site.rglob("*.css"):
        assert not _IN_STYLE.findall(style.read_text("utf-8")), style


def test_the_site_has_a_search_a_dark_mode_and_every_page(site: Path) -> None:
    index = (site / "docs" / "index.html").read_text("utf-8")
    assert "theme-toggle" in index
    assert (site / "searchindex.js").exists()
    assert "docs/index.html" in (site / "index.html").read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT)).with_suffix(".html").exists()


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        "<style>@import url(https://fonts.example/x.css)</style>",
        "<p style=\"background: url('http://a.example/x.png')\">",
    ],
)
def test_a_page_that_loads_from_elsewhere_is_found(html: str) -> None:
    assert loads(html)


def test_the_picture_shows_what_a_run_shows(tmp_path: Path) -> None:
    drawn = picture.PICTURE.read_text("utf-8")
    assert not loads(drawn)
    assert _plain(picture.draw(picture.run(tmp_path))) == _plain(drawn), "run `make picture`"


def _plain(svg: str) -> list[str]:
    texts = (element.text or "" for element in ElementTree.fromstring(svg).iter())
    return [_POSITION.sub("POSITION", text).replace("\xa0", " ").strip() for text in texts]
