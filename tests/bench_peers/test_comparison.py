"""The comparison: what it measures, what it leaves out and says, how it counts."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.peers import __main__ as command
from bench.peers.cases import CASES, Run, measure
from bench.peers.catalogue import BARE_UVLOOP, OURS, PEERS
from bench.peers.priority import before_others
from bench.peers.process import DidNotStart, PeerServer, announced
from bench.peers.quiet import Quiet
from bench.peers.report import Outcome, as_markdown, notes, ratio, rows

ABSENT = dataclasses.replace(
    BARE_UVLOOP, name="absent", missing=lambda: "something", install="install something"
)


def outcomes_of(*samples: tuple[str, float]) -> dict[tuple[str, str], Outcome]:
    case = CASES["publish"]
    found = {}
    for name, value in samples:
        sample = {"a_second": value, "others_busy": 0.0}
        found[case.name, name] = Outcome(case, PEERS[name], [sample])
    return found


def test_a_peer_that_is_not_installed_is_left_out_and_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "PEERS", {OURS.name: OURS, ABSENT.name: ABSENT})
    installed, lacking = command.chosen(())
    assert installed == [OURS]
    assert lacking == [ABSENT]
    assert any("install something" in note for note in notes(Run(), {}, lacking))


def test_ours_is_measured_whatever_is_asked_for() -> None:
    installed, _ = command.chosen(("bare-uvloop",))
    assert installed == [OURS, BARE_UVLOOP]


def test_figures_are_given_as_multiples_of_ours() -> None:
    outcomes = outcomes_of(("fastsse", 200.0), ("gin", 50.0))
    assert ratio(outcomes["publish", "gin"], "a_second", outcomes) == 0.25
    assert ratio(outcomes["publish", "fastsse"], "a_second", outcomes) == 1
    assert "| 0.25 |" in as_markdown(outcomes)


def test_several_samples_are_given_with_their_spread() -> None:
    outcomes = outcomes_of(("fastsse", 200.0))
    outcome = outcomes["publish", "fastsse"]
    outcome.samples += [{"a_second": 1_500.0}, {"a_second": 100.25}]
    assert outcome.text("a_second") == "200.00 (100.25 to 1,500)"


def test_a_failed_case_stands_in_the_table_with_its_reason() -> None:
    outcomes = outcomes_of(("fastsse", 200.0))
    outcomes["publish", "gin"] = Outcome(CASES["publish"], PEERS["gin"], [], ["no answer"])
    (section,) = rows(outcomes).values()
    assert "no answer" in section[1]
    assert ratio(outcomes["publish", "gin"], "a_second", outcomes) is None


def test_an_address_counts_once_its_whole_line_is_there() -> None:
    assert announced("listening on 127.0.0.1:80") is None
    assert announced("hello\nlistening on 127.0.0.1:8080\n") == "127.0.0.1:8080"


def test_a_server_that_ends_at_once_is_reported_with_what_it_printed() -> None:
    broken = dataclasses.replace(BARE_UVLOOP, command=lambda directory: ["cat", "/nowhere"])
    with pytest.raises(DidNotStart, match="nowhere"), PeerServer(broken):
        pass
    assert isinstance(measure(CASES["publish"], Run(quick=True), broken), str)


def test_the_command_measures_and_writes_json_and_a_table(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    options = ["bare-uvloop", "--quick", "--server-cpu", "-1", "--client-cpu", "-1"]
    done = CliRunner().invoke(command.main, [*options, "--case", "wide", "--json", str(path)])
    assert done.exit_code == 0, done.output
    found = json.loads(path.read_text())
    assert {result["peer"] for result in found["results"]} == {"fastsse", "bare-uvloop"}
    for result in found["results"]:
        (sample,) = result["samples"]
        assert sample["delivered"] == sample["expected"] > 0
        assert not sample["lost"]
    assert "bare uvloop protocol" in path.with_suffix(".md").read_text()


def test_waiting_for_a_quiet_machine_ends_when_patience_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.peers.quiet.busy_us", iter(range(0, 10**9, 10**6)).__next__)
    quiet = Quiet(1.0)
    assert not quiet.wait()
    assert quiet.left_s <= 0
    assert not quiet.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take a niceness back")
def test_priority_is_put_back() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with before_others(before + 1):
        assert os.getpriority(os.PRIO_PROCESS, 0) == before + 1
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
