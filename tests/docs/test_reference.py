"""The reference says what the program says."""

import re
from pathlib import Path

import pytest

from fastsse.config import markdown_table
from tests.docs import generate
from tests.docs.blocks import ROOT
from tests.docs.manpages import share_files
from tests.docs.servers import NO_PROXY, Served
from tests.redis.server import program, running

OPTIONS = ROOT / "docs" / "reference" / "options.md"
METRICS = ROOT / "docs" / "reference" / "metrics.md"
_METRIC_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.stem)
def test_generated_parts_are_as_the_program_writes_them(page: Path) -> None:
    assert generate.page_text(page) == page.read_text(), "run `make reference`"


@pytest.mark.parametrize("name", generate.DEPLOY_FILES)
def test_files_of_deploy_are_as_the_program_prints_them(name: str) -> None:
    text = (ROOT / "deploy" / name).read_text("utf-8")
    assert generate.deploy_file(name) == text, "run `make reference`"


def test_manual_pages_and_completions_are_as_the_program_writes_them() -> None:
    folder = ROOT / "deploy" / "share"
    files = [path for path in folder.rglob("*") if path.is_file()]
    there = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in files}
    assert there == share_files(), "run `make reference`"


def test_the_page_of_options_has_the_table_that_the_command_prints() -> None:
    assert markdown_table() in OPTIONS.read_text("utf-8")


def compare_metrics(served: Served) -> set[str]:
    """The names of what a running server shows, which the page must have as they are."""
    with NO_PROXY.open(f"http://{served.address}/metrics", timeout=10) as answer:
        shown = generate.families(answer.read().decode())
    rows = {name: rest for name, *rest in _METRIC_ROW.findall(METRICS.read_text("utf-8"))}
    for name, (kind, _, about) in shown.items():
        assert name in rows, f"{name} is missing: run `make reference`"
        assert (rows[name][0], rows[name][2]) == (kind, about.replace("|", "\\|"))
    return set(shown)


def test_running_servers_show_the_metrics_of_the_page(tmp_path: Path) -> None:
    alone = Served("", tmp_path / "alone", {})
    try:
        core = compare_metrics(alone)
    finally:
        alone.stop()
    stored = Served(f"--store sqlite:{tmp_path}/h.db --workers 2", tmp_path / "stored", {})
    try:
        assert compare_metrics(stored) - core >= {"fastsse_store_commits_total"}
    finally:
        stored.stop()


@pytest.mark.skipif(program() is None, reason="no redis-server here")
def test_a_node_shows_the_metrics_of_the_page(tmp_path: Path) -> None:
    rule = '[[sources]]\nname = "jobs"\nstream = "jobs"\ntopic = "jobs"\n'
    (tmp_path / "sources.toml").write_text(rule)
    with running(tmp_path / "redis") as redis:
        options = f"--store {redis.url} --config {tmp_path}/sources.toml"
        node = Served(options, tmp_path / "node", {})
        try:
            assert "fastsse_source_lag_seconds" in compare_metrics(node)
        finally:
            node.stop()
