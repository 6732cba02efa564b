"""What guides quote from the program, the program says."""

import re

from tests.docs.blocks import ROOT

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
LOG_EVENTS = (ROOT / "docs" / "reference" / "log-events.md").read_text("utf-8")
# A sentence of a log event; `token explain` says the only other ones.
_SENTENCE = re.compile(r"`([A-Z][^`\n]{6,}\.)`")
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
