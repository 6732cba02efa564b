"""The figures on the pages come from files in `bench/results`, and each file is on a page."""

import json
from pathlib import Path

import pytest

from tests.docs import figures
from tests.docs.blocks import ROOT

_HEAD = """command: python -m bench.some --rounds 3; python -m bench.other
at: 2026-11-30T20:31:18+00:00
commit: 8f8ab18d
machine: 2 cores of a processor, Linux 6.18, Python 3.11.7
took: 87 s
other programs: 0.02 cores
exit status: 0
"""
_HELD = {
    "kind": "tokens, presence",
    "connections": 1000,
    "workers": 3,
    "at": "2026-11-30T20:31:18+00:00",
    "events_expected": 5000,
    "opened": 900,
    "opened_s": 30.0,
    "opening_cpu_s": 0.09,
    "user_bytes_each": 321,
    "kernel_bytes_each_both_ends": 9000,
}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "_KEPT", tmp_path)
    return tmp_path / "some.txt"


def test_a_kept_output_has_its_link_its_machine_and_its_commands(kept: Path) -> None:
    kept.write_text(f"{_HEAD}\nfirst: 1 µs\nsecond: 2 µs\n")
    text = figures.kept("some")
    assert text.startswith("[The run](/bench/results/kept/some.txt) of 30 November 2026: commit 8f")
    assert "programs used 0.02 cores meanwhile:" in text.replace("\n", " ")
    assert "```sh\npython -m bench.some --rounds 3\npython -m bench.other\n```" in text
    assert text.endswith("```text\nfirst: 1 µs\nsecond: 2 µs\n```\n")


def test_a_kept_table_is_a_table_of_the_page(kept: Path) -> None:
    kept.write_text(f"{_HEAD}\n| | ms |\n| --- | ---: |\n| a | 1 |\n")
    assert figures.kept("some").endswith("```\n\n| | ms |\n| --- | ---: |\n| a | 1 |\n")


def test_a_long_line_of_an_output_is_broken(kept: Path) -> None:
    kept.write_text(f"{_HEAD}\n{'word ' * 40}\n")
    assert max(map(len, figures.kept("some").splitlines())) <= 120


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figures, "_HELD", tmp_path)
    return tmp_path / "any.json"


def test_a_run_that_broke_says_where(held: Path) -> None:
    held.write_text(json.dumps({**_HELD, "broke": "Opening: not within 30 s."}))
    row = figures.held(plain=False).splitlines()[-1]
    assert "| 1,000 | tokens, presence | 3 | 30 s for 900 | 100 µs | 321 B | 9,000 B |  |" in row
    assert "Opening: not within 30 s." in row
    assert "(/bench/results/held/tokens-presence-1000.json)" in row


def test_a_whole_run_says_what_was_received(held: Path) -> None:
    found = {"opened": 1000, "events_received": 5000, "broadcast_reached_all_s": [0.1, 0.25]}
    found |= {"sample_resumed_exactly": "100 of 100"}
    held.write_text(json.dumps(_HELD | found))
    row = figures.held(plain=False).splitlines()[-1]
    assert "| 30 s |" in row
    assert "| 0.1, 0.2 s | 5,000 of 5,000; 100 of 100 resumed |" in row
    assert len(figures.held(plain=True).splitlines()) == 2


def test_every_stored_run_is_on_a_page() -> None:
    pages = "".join(
        path.read_text("utf-8")
        for folder in ("docs", "bench", "loadtests")
        for path in (ROOT / folder).rglob("*.md")
    )
    stored = [path for path in (ROOT / "bench" / "results").rglob("*") if path.is_file()]
    names = {str(path.relative_to(ROOT / "bench")) for path in stored if path.suffix != ".html"}
    names -= {f"results/{run}.md" for run in figures.PEER_RUNS}  # Their text stands on a page.
    assert len(names) > 10
    assert {name for name in names if name not in pages} == set()
