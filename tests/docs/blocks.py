"""Pages as lists of marked blocks."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"<!--\s*(?P<kind>run|not run|file):\s*(?P<text>.*?)\s*-->", re.DOTALL)
#: Languages whose blocks run or are checked.
RUNNABLE = {"sh", "bash", "console", "python", "toml", "json", "js", "mjs", "nginx", "haproxy"}
_WORDS = {"background", "fails", "node", "alone"}


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    `options` are those of the server that it needs: None is the one that the page has already,
    "alone" none at all.
    """

    page: Path
    line: int
    language: str
    text: str
    file: str | None = None
    reason: str | None = None
    options: str | None = None
    words: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line} ({self.language})"


def pages() -> list[Path]:
    """Every page."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order. Raises ValueError for a mark that means nothing."""
    found: list[Block] = []
    mark = None
    for token in MarkdownIt().parse(page.read_text("utf-8")):
        if token.type == "html_block":
            mark = MARK.search(token.content) or mark
        elif token.type == "fence":
            assert token.map is not None
            language = token.info.strip().split(" ")[0]
            found.append(_block(page, token.map[0] + 1, language, token.content, mark))
            mark = None
        elif token.nesting >= 0 and token.type not in ("inline", "list_item_open"):
            mark = None
    return found


def _block(page: Path, line: int, language: str, text: str, mark: re.Match[str] | None) -> Block:
    if mark is None:
        return Block(page, line, language, text)
    if mark["kind"] == "file":
        return Block(page, line, language, text, file=mark["text"])
    if mark["kind"] == "not run":
        return Block(page, line, language, text, reason=mark["text"])
    options, words = None, set()
    for part in (part.strip() for part in mark["text"].split(",")):
        if part == "serve" or part.startswith("serve "):
            options = part.removeprefix("serve").strip()
        elif part == "alone":
            options = part
        elif part in _WORDS:
            words.add(part)
        elif part in RUNNABLE:
            language = part
        else:
            raise ValueError(f"{page}:{line}: the mark {part!r} means nothing")
    return Block(page, line, language, text, options=options, words=frozenset(words))
