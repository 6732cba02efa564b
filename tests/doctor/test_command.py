"""`fastsse doctor` answers eyes, pipes and programs, and its status says whether it can be done."""

import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from fastsse.cli import main
from fastsse.doctor import Finding, Goal, Machine, Verdict, examine
from fastsse.doctor.show import show, show_machine
from tests.cli.commandline import forget_options
from tests.doctor.test_checks import LARGE, MILLION
from tests.doctor.test_emit import SMALL

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(machine, "--connections", "5")` gives status, output and error output."""
    forget_options(monkeypatch)

    def run_on(machine: Machine, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("fastsse.cli.doctor.read_machine", lambda process: machine)
        status = main(["doctor", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_on


def test_a_target_that_can_be_met_exits_with_0(run: Run) -> None:
    status, out, err = run(LARGE, "--connections", "1000000")
    assert (status, err) == (0, "")
    assert out.startswith("1,000,000 connections\nok       RLIMIT_NOFILE: 2,097,152")
    assert out.endswith("The target can be met.\n")


def test_warnings_alone_exit_with_0(run: Run) -> None:
    status, out, _ = run(replace(LARGE, somaxconn=128), "-c", "100000")
    assert status == 0
    assert "\nwarn     net.core.somaxconn: 128; needed: at least" in out


def test_a_target_that_can_not_be_met_exits_with_1_and_names_the_settings(run: Run) -> None:
    status, out, _ = run(SMALL, "-c", "1_000_000")
    assert status == 1
    assert "As it is, this machine carries about" in out
    assert "Settings fix it: RLIMIT_NOFILE, fs.nr_open, fs.file-max," in out


def test_a_target_beyond_settings_is_said_to_be(run: Run) -> None:
    status, out, _ = run(replace(LARGE, memory_available_bytes=2**30), "-c", "1000000")
    assert status == 1
    assert "not enough for it: memory." in out


def test_plain_output_has_no_colours_and_a_line_to_grep_for_each(run: Run) -> None:
    _, out, _ = run(SMALL, "-c", "1000000")
    assert "\x1b" not in out
    lines = [line for line in out.splitlines() if line.startswith("fail")]
    assert len(lines) == len(examine(SMALL, MILLION).failed)


def test_a_terminal_gets_colours_and_columns() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system="standard")
    show_machine(console, examine(SMALL, MILLION))
    text = out.getvalue()
    assert "\x1b[1;31mfail" in text
    assert "needed" in text.splitlines()[1]


def test_a_narrow_terminal_shows_all_as_well() -> None:
    out = io.StringIO()
    show_machine(Console(file=out, force_terminal=True, width=60), examine(SMALL, MILLION))
    assert "LimitNOFILE=1010688" in out.getvalue()


def test_what_a_server_wrote_can_not_steer_a_terminal() -> None:
    out = io.StringIO()
    finding = Finding("answer", Verdict.FAIL, "200, \x1b[31mred\x07", "", "It says: \r\x9b", "")
    for terminal in (True, False):
        console = Console(file=out, force_terminal=terminal, color_system=None, width=100)
        show(console, "A path", ("found", "should be"), [finding])
    assert not set(out.getvalue()) & {"\x1b", "\x07", "\r", "\x9b"}


def test_commands_are_shown_where_something_is_wrong_and_with_v_everywhere(run: Run) -> None:
    _, out, _ = run(LARGE, "-c", "1000000")
    assert "→" not in out
    _, out, _ = run(LARGE, "-c", "1000000", "-v")
    assert out.count("→") >= len(examine(LARGE, MILLION).findings)
    _, out, _ = run(SMALL, "-c", "1000000")
    blocks = re.split(r"^(?=ok |warn|fail|unknown)", out, flags=re.MULTILINE)[1:]
    for block in blocks:
        assert ("→" in block) == block.startswith(("warn", "fail")), block


def test_json_holds_everything(run: Run) -> None:
    status, out, _ = run(SMALL, "-c", "1000000", "--json")
    told = json.loads(out)
    assert status == 1
    assert told["can"] is False
    assert told["bounded_by"] == "net.ipv4.tcp_mem"
    assert told["carries"] == 300
    assert told["goal"]["connections"] == 1_000_000
    assert told["machine"]["fd_hard"] == 4096
    first = told["findings"][0]
    assert first.keys() >= {"name", "verdict", "value", "needed", "why", "how"}


def test_the_goal_is_what_was_asked_for(run: Run) -> None:
    arguments = ["--processes", "4", "--rate", "2.5", "--own-topics", "--proxied", "--json"]
    _, out, _ = run(LARGE, "-c", "8000", *arguments)
    goal = json.loads(out)["goal"]
    assert (goal["processes"], goal["events_per_s"]) == (4, 2.5)
    assert goal["own_topics"]
    assert goal["proxied"]


def test_the_servers_own_options_count(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSSE_MAX_CONNECTIONS", "500")
    monkeypatch.setenv("FASTSSE_HEARTBEAT", "30s")
    status, out, _ = run(LARGE, "-c", "1000", "--json")
    told = json.loads(out)
    assert (status, told["carries"], told["bounded_by"]) == (1, 500, "max_connections")
    assert told["goal"]["heartbeat_s"] == 30


def test_without_a_target_ten_thousand_are_meant(run: Run) -> None:
    _, out, _ = run(LARGE)
    assert out.startswith("10,000 connections\n")


def test_emitting_exits_with_0_when_settings_suffice(run: Run) -> None:
    status, out, err = run(SMALL, "-c", "1000000", "--emit", "sysctl")
    assert status == 0
    assert out.startswith("# /etc/sysctl.d/60-fastsse.conf: 1,000,000 connections")
    assert err.startswith("Also: RLIMIT_NOFILE is 4,096 (soft 1,024). LimitNOFILE=")


def test_emitting_exits_with_1_for_failures_that_no_setting_fixes(run: Run) -> None:
    poor = replace(SMALL, memory_available_bytes=2**28)
    status, out, err = run(poor, "-c", "1000000", "--emit", "systemd")
    assert status == 1
    assert "LimitNOFILE=1010688" in out
    assert "Also: memory is" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "0"],
        ["--emit", "json"],
        ["--emit", "sysctl", "--json"],
        ["--emit", "sysctl", "--url", "http://127.0.0.1"],
        ["--url", "ftp://example.com"],
        ["--watch", "long"],
        ["--pid", "999999999"],
    ],
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    status, out, err = run(LARGE, *arguments)
    assert (status, out) == (2, "")
    assert "Error: " in err


def test_this_very_machine_gets_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "-c", "100", "--pid", str(os.getpid()), "--json"])
    assert json.loads(capsys.readouterr().out)["can"] is (status == 0)


def test_what_is_asked_stands_above_the_findings() -> None:
    out = io.StringIO()
    goal = Goal(10, processes=2, events_per_s=3, own_topics=True, proxied=True)
    show_machine(Console(file=out), examine(LARGE, goal))
    assert out.getvalue().splitlines()[0] == (
        "10 connections, in 2 processes, 3 events a second to each, a topic each, "
        "a proxy or load generator on this machine"
    )
