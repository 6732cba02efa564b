"""What guides quote from the program, the program says."""

import re

from tests.docs.blocks import ROOT, blocks_of

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
LOG_EVENTS = (ROOT / "docs" / "reference" / "log-events.md").read_text("utf-8")
# A sentence of a log event; `token explain` says the only other ones.
_SENTENCE = re.compile(r"`([A-Z][^`\n]{6,}\.)`")
# Code, and what `make reference` writes.
_NOT_TEXT = re.compile(
    r"^( *)(`{3,}|~{3,}).*?^\1\2|<!-- (?:generated:|begin ).*?<!-- end\b[^>]*-->",
    re.MULTILINE | re.DOTALL,
)
_OTHERS = {"As subscribers show it: taken."}


def test_every_log_event_that_a_guide_names_exists() -> None:
    named = {
        (path.name, sentence)
        for path in [*GUIDES, ROOT / "tuning.md"]
        for sentence in _SENTENCE.findall(path.read_text("utf-8"))
        if sentence not in _OTHERS
    }
    assert len(named) > 10
    assert {
        (name, sentence) for name, sentence in named if f"| {sentence} |" not in LOG_EVENTS
    } == (set())


def test_no_line_of_text_is_longer_than_120_characters() -> None:
    """Outside of code, tables and generated parts, where a line can't be broken."""
    long = []
    pages = [*(ROOT / "docs").glob("*.md"), *GUIDES, *(ROOT / "docs" / "design").glob("*.md")]
    for path in [ROOT / "README.md", ROOT / "tuning.md", *pages]:
        text = _NOT_TEXT.sub(lambda part: "\n" * part[0].count("\n"), path.read_text("utf-8"))
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > 120 and not line.lstrip().startswith("|"):
                long.append(f"{path.relative_to(ROOT)}:{number}: {len(line)} characters")
    assert not long, "\n".join(long)


def test_a_block_that_is_a_file_names_it_in_its_first_line() -> None:
    """The mark `<!-- file: NAME -->` is invisible to readers. Text has no comments, so the page
    names such a file elsewhere."""
    unnamed = []
    for path in GUIDES:
        seen = re.sub(r"<!--.*?-->", "", path.read_text("utf-8"), flags=re.DOTALL)
        unnamed += [
            f"{path.name}: {block.file}"
            for block in blocks_of(path)
            if block.file is not None
            and block.file not in (seen if block.language == "text" else block.text.split("\n")[0])
        ]
    assert not unnamed


def test_a_page_says_how_its_server_is_started() -> None:
    """The mark `<!-- run: serve OPTIONS -->` is invisible to readers."""
    unsaid = []
    for path in GUIDES:
        seen = re.sub(r"<!--.*?-->", "", path.read_text("utf-8"), flags=re.DOTALL)
        options = {block.options for block in blocks_of(path)} - {None, "alone"}
        unsaid += [
            f"{path.name}: fastsse serve {one}"
            for one in options
            if f"fastsse serve {one}".strip() not in seen
        ]
    assert not unsaid
