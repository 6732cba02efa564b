"""Short runs become one, and only those that can be compared."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.join import joined, joined_peers, main

_FOLDER = Path(__file__).parents[2] / "bench" / "results"
_MACHINE = {"cpu": "x", "cores": 2, "commit": "c", "command": "python -m bench a --json /x/y.json"}


def run_of(name: str, **machine: object) -> dict[str, Any]:
    facts = {**_MACHINE, **machine}
    return {
        "at": "2026-01-01T00:00:00",
        "environment": facts,
        "results": [{"name": name}],
        "notes": ["n"],
    }


def test_cases_of_several_runs_stand_in_one_with_their_commands() -> None:
    found = joined([run_of("a"), run_of("b", command="python -m bench b")])
    assert [result["name"] for result in found["results"]] == ["a", "b"]
    assert found["environment"]["command"] == "python -m bench a; python -m bench b"
    assert found["notes"] == ["n"]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (run_of("a"), "in two runs: a"),
        (run_of("b", commit="d"), "differ in: commit"),
        (run_of("b", cpu="y"), "differ in: cpu"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(second: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        joined([run_of("a"), second])


def test_samples_of_one_case_and_peer_are_repeats() -> None:
    run = json.loads((_FOLDER / "peers.json").read_text("utf-8"))
    whole, table = joined_peers([run, run, run])
    for before, after in zip(run["results"], whole["results"], strict=True):
        assert after["samples"] == before["samples"] * 3
        assert after["figures"] == before["figures"]
    assert whole["run"]["repeats"] == 3 * run["run"]["repeats"]
    assert " to " in table


def test_the_command_writes_a_run_with_its_page_or_table(tmp_path: Path) -> None:
    for name, beside in (("delivery", ".html"), ("peers", ".md")):
        out = tmp_path / f"{name}.json"
        done = CliRunner().invoke(main, [str(out), str(_FOLDER / f"{name}.json")])
        assert done.exit_code == 0, done.output
        assert json.loads(out.read_text("utf-8"))["results"]
        assert out.with_suffix(beside).read_text("utf-8")
    done = CliRunner().invoke(main, [str(out), *[str(_FOLDER / "delivery.json")] * 2])
    assert done.exit_code == 1
    assert "in two runs" in done.output
