"""`fastsse source test`: what the next messages would become, on the terminal."""

import json
from pathlib import Path

import pytest

from fastsse.cli import main

RULE = """
[[sources]]
name = "lines"
files = ["%s/*.log"]
place = "%s/places"
topic = "logs/{data.service}"
event = "{data.level}"
payload = "json"
filter = 'event != "debug"'

[[sources]]
name = "gone"
files = ["%s/gone/*.log"]
place = "%s/gone.places"
topic = "logs"

[[sources]]
name = "hook"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="]
topic = "orders"
"""
GOOD = '{"service": "shop", "level": "info"}\n{"service": "shop", "level": "debug"}\n'


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "fastsse.toml"
    file.write_text(RULE.replace("%s", str(tmp_path)))
    return str(file)


def _run(config: str, name: str, *more: str) -> int:
    return main(["source", "test", name, "--config", config, "--wait", "100ms", *more])


def test_messages_are_shown_and_not_consumed(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "a.log"
    lines.write_text(GOOD)
    shown = []
    for _ in range(2):
        assert _run(config, "lines", "--json") == 0
        out, err = capsys.readouterr()
        shown.append([json.loads(line) for line in out.splitlines()])
        assert err == "2 messages: 1 events, 1 left out by the filter, 0 set aside.\n"
    assert shown[0] == shown[1]
    event, filtered = shown[0]
    assert (event["topic"], event["event"]) == ("logs/shop", "info")
    assert event["data"] == {"service": "shop", "level": "info"}
    assert filtered["filtered"] is True
    assert not (tmp_path / "places").exists()


def test_a_message_that_would_be_set_aside_is_exit_1_with_its_reason(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.log").write_text(GOOD + "no JSON\n")
    assert _run(config, "lines") == 1
    out, err = capsys.readouterr()
    assert "set aside: " in out.splitlines()[2]
    assert "1 set aside" in err
    assert _run(config, "lines", "--count", "2") == 0


def test_a_source_that_is_not_there_is_named(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(config, "others") == 2
    assert "there is no source others (there are: lines, gone, hook)" in capsys.readouterr().err
    assert _run(config, "hook") == 2
    assert "hook receives requests, so no messages wait for it." in capsys.readouterr().err


def test_a_system_that_is_away_is_exit_3_with_the_reason(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(config, "gone") == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("The source gone is away: ")
