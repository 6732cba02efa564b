"""Many streams held: small here."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtests.hold import main


@pytest.mark.parametrize("options", [[], ["--presence"], ["--tokens", "--presence"]])
def test_all_streams_receive_each_broadcast_and_the_sample_resumes(
    options: list[str], tmp_path: Path
) -> None:
    small = ["--connections", "300", "--broadcasts", "1", "--sample", "5", "--patience", "60"]
    done = CliRunner().invoke(main, [*small, *options, "--store", f"sqlite:{tmp_path}/h.db"])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.output)
    assert figures["events_received"] == 300 * 3
    assert figures["sample_resumed_exactly"] == "5 of 5"
    assert figures["opened"] == 300
    assert not figures["ended_early"]


def test_a_step_that_is_not_done_in_time_is_named() -> None:
    done = CliRunner().invoke(main, ["--connections", "300", "--patience", "0", "--sample", "0"])
    assert done.exit_code == 1
    assert "not within 0 s" in json.loads(done.output)["broke"]
