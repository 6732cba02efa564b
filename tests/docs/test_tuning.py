"""tuning.md keeps in step with the options, the settings, the figures and the metrics."""

import re
from pathlib import Path

import httpx
import pytest

from fastsse.config import Config, catalogue
from fastsse.doctor import examine
from fastsse.doctor.kernel_settings import SETTINGS, Scope
from fastsse.doctor.measured import FIGURES
from fastsse.doctor.option_advice import ADVICE
from fastsse.metrics import STORE_COUNTERS, STORE_GAUGES
from fastsse.server import Server
from tests.docs.tuning import BLOCKS, renewed
from tests.doctor.test_checks import LARGE, MILLION

ROOT = Path(__file__).parents[2]
TUNING = (ROOT / "tuning.md").read_text()
GUIDES = "".join(path.read_text() for path in sorted((ROOT / "docs" / "guides").glob("*.md")))


def test_tuning_is_what_its_tables_are_made_from() -> None:
    assert renewed(TUNING) == TUNING, "run: python -m tests.docs.tuning tuning.md"


def test_every_option_has_advice_and_no_other() -> None:
    assert ADVICE.keys() == catalogue().keys()


def test_a_document_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="begin options"):
        renewed("")


def test_renewing_keeps_what_was_written_by_hand() -> None:
    places = "\n".join(f"<!-- begin {name} -->\nold\n<!-- end {name} -->" for name in BLOCKS)
    text = renewed(f"before\n{places}\nafter\n")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "\nold\n" not in text


async def test_every_metric_that_is_named_exists() -> None:
    async with (
        Server(Config(port=0, drain=0, metrics_topics=1)) as server,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        exposed = (await client.get(f"{server.admin_addresses[0]}/metrics")).text
    named = set(re.findall(r"\bfastsse_[a-z_]+(?=[`{)\[])", TUNING + GUIDES))
    # The name of a fixture for tests looks like one.
    named = {re.sub(r"_bucket$", "", name) for name in named} - {"fastsse_hub"}
    assert len(named) > 25
    # Those of a store or a source are there when these are.
    elsewhere = {f"fastsse_{row.name}" for row in STORE_GAUGES} | {
        f"fastsse_{row.name}_total" for row in STORE_COUNTERS
    }
    assert {name for name in named - elsewhere if f"# TYPE {name}" not in exposed} == set()


def test_every_setting_that_is_checked_is_in_the_table() -> None:
    checked = {found.name for found in examine(LARGE, MILLION).findings}
    assert {name for name in checked if "." in name} <= SETTINGS.keys()


def test_every_row_of_settings_is_filled_in() -> None:
    for setting in SETTINGS.values():
        assert all((setting.unit, setting.default, setting.advice, setting.symptom)), setting.name
        assert setting.source


def test_the_settings_of_the_node_are_not_taken_for_a_pods() -> None:
    node = {name for name, setting in SETTINGS.items() if setting.scope is Scope.NODE}
    assert {"fs.nr_open", "fs.file-max", "net.ipv4.tcp_mem"} <= node
    assert not node & {"net.core.somaxconn", "net.ipv4.tcp_rmem"}


def test_every_figure_says_where_it_comes_from() -> None:
    for name, figure in FIGURES.items():
        assert figure.value > 0, name
        assert "python -m" in figure.source, name
        assert f"`{name}`" in TUNING


def test_the_formulas_name_figures_that_exist() -> None:
    formulas = TUNING[TUNING.index("## Sizing") : TUNING.index("<!-- begin sizes")]
    assert set(re.findall(r"[A-Z]+_[A-Z_]+", formulas)) <= FIGURES.keys()


def test_links_inside_the_document_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TUNING, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([\w-]+)\)", TUNING)) <= anchors
