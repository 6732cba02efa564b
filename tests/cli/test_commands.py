"""Commands explain themselves, load only what they need, and fail in one clear line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastsse.cli import COMMANDS, main
from fastsse.config import Config, catalogue, markdown_table
from fastsse.version import __version__
from tests.cli.commandline import forget_options

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_options(monkeypatch)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: fastsse {name}")


def test_help_of_serve_shows_every_option_with_default_and_variable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--help"]) == 0
    # A line may also end behind a hyphen inside a word.
    words = re.sub(r"(?<=\w-) (?=\w)", "", " ".join(capsys.readouterr().out.split()))
    for option in catalogue().values():
        assert option.flag in words
        assert f"[default: {option.default}; env: {option.variable}]" in words
        assert " ".join(option.help.split()) in words


def test_version_tells_the_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"fastsse {__version__}\n")
    for fact in ("compiler", "cython", "python", "uvloop", "httptools", "kernel"):
        assert f"\n{fact} " in out


def test_clients_commands_load_nothing_of_the_server() -> None:
    code = (
        "import sys; from fastsse.cli import fastsse\n"
        "for name in ('publish', 'listen'): fastsse.get_command(None, name)\n"
        "servers = ('pydantic', 'structlog', 'uvloop', 'fastsse._core')\n"
        "print([name for name in servers if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serv"], "No such command 'serv'. Did you mean 'serve'?"),
        (["zzz"], "No such command 'zzz'."),
        (["topics", "purg"], "Did you mean 'purge'?"),
        (["publish"], "TOPIC is missing"),
        (["publish", "--ndjson", "a", "b"], "leave DATA out"),
        (["publish", "a", "--id", "1"], "--id is for one event"),
        (["publish", "a", "b", "--retry", "soon"], "must be a duration"),
        (["publish", "a", "b", "--url", "localhost"], "is not an http:// or https:// address"),
        (["listen"], "TOPIC is missing"),
        (["listen", "a", "--last", "-1"], "--last"),
        (["listen", "a", "--count", "0"], "--count"),
        (["serve", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_says_what_is_right_and_exits_with_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve"], ["config", "show"], ["config", "check"]])
def test_bad_configuration_is_one_line_and_exit_2(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--heartbeat", "-5s"]) == 2
    assert capsys.readouterr() == (
        "",
        'heartbeat = "-5s" (from --heartbeat) must be a duration from 10ms to 1h, '
        "such as 250ms, 10s or 1m30s.\n",
    )


BAD_FILE = """
port = "x"
max_lag = "17MiB"
[[topics]]
match = "a"
histroy_events = 5
history_age = "30x"
[[sources]]
name = "s"
chanels = "c"
"""


@pytest.mark.parametrize("command", [["serve"], ["config", "show"], ["config", "check"]])
def test_every_command_says_all_problems_of_a_file_at_once(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.toml"
    file.write_text(BAD_FILE)
    assert main([*command, "--config", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(line.split()[0] for line in err.splitlines()) == [
        "max_lag",
        "port",
        "sources[0].chanels",
        "topics[0].history_age",
        "topics[0].histroy_events",
    ]


@pytest.mark.parametrize("command", [["serve"], ["config", "check"]])
def test_check_says_what_a_start_would_meet(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "none.json"
    flags = ["--port", "0", "--jwks-url", str(keys), "--max-connections", "16000000"]
    assert main([*command, *flags]) == 2
    descriptors, key_set = capsys.readouterr().err.splitlines()
    assert descriptors.startswith("max_connections = 16000000 (from --max-connections) must be")
    assert key_set == (
        f"jwks_url = {keys} (from --jwks-url) must be a file with a key set "
        "(no such file or directory)."
    )


def test_rules_are_shown_a_line_each_in_the_file_s_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.toml"
    file.write_text(
        '[[topics]]\nmatch = "a"\nhistory_age = "30d"\nhistory_bytes = "16MiB"\n'
        '[[topics]]\nmatch = "b"\nlag_policy = "skip"\n'
        '[[sources]]\nname = "s"\nurl = "redis://u:s3cret@h/0"\nstream = "k"\ntopic = "t"\n'
    )
    assert main(["config", "show", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    assert '    match = "a", history_age = "30d", history_bytes = "16MiB"\n' in out
    assert '    match = "b", lag_policy = "skip"\n' in out
    assert '    name = "s", url = "redis://u:***@h/0", stream = "k", topic = "t"\n' in out
    assert "2592000" not in out
    assert "s3cret" not in out
    # As JSON they are text that the option reads again.
    assert main(["config", "show", "--json", "--config", str(file)]) == 0
    shown = json.loads(capsys.readouterr().out)["topics"]["value"]
    assert Config(topics=shown, lag_policy="skip").topics[0].history_age == 30 * 86_400


def test_check_of_a_right_configuration_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--port", "0"]) == 0
    assert capsys.readouterr().out == "The configuration is valid.\n"


def test_check_with_a_warning_does_not_say_that_all_is_right(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSSE_MAX_LAGG", "1MiB")
    assert main(["config", "check", "--port", "0"]) == 0
    out, err = capsys.readouterr()
    assert out == "The configuration is valid, with warnings.\n"
    assert "did you mean FASTSSE_MAX_LAG?" in err


def test_show_tells_value_and_origin_and_masks_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.toml"
    file.write_text('publish_token = "s3cret"\nmax_lag = "1MiB"\n[[topics]]\nmatch = "a"\n')
    monkeypatch.setenv("FASTSSE_PORT", "1")
    arguments = ["--config", str(file), "--host", "::1", "--allow-anonymous-publish"]
    assert main(["config", "show", *arguments]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("  ")}
    assert rows["host"] == ["::1", "--host"]
    assert rows["port"] == ["1", "FASTSSE_PORT"]
    assert rows["max_lag"] == ["1MiB", f"{file}:", "max_lag"]
    assert rows["publish_token"][0] == "***"
    assert rows["drain"] == ["10s", "default"]
    assert "s3cret" not in out
    assert main(["config", "show", "--json", *arguments]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == list(catalogue())
    assert shown["allow_anonymous_publish"]["value"] == "true"
    assert shown["topics"] == {"value": '[{"match": "a"}]', "from": f"{file}: topics"}


def test_switch_can_be_turned_off_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTSSE_ALLOW_ANONYMOUS_PUBLISH", "true")
    assert main(["config", "show", "--json", "--no-allow-anonymous-publish"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["allow_anonymous_publish"]["value"] == "false"


def test_table_has_a_row_for_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "table"]) == 0
    table = capsys.readouterr().out
    assert table == markdown_table()
    assert len(table.splitlines()) == len(catalogue()) + 2
    assert "| `max_lag` | `4MiB` | 1KiB to 64GiB |" in table
