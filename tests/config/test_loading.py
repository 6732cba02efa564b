"""Where options come from: flags, environment, file; which wins, and what is said of each."""

from pathlib import Path

import pytest

from fastsse.config import ConfigError, catalogue, load, mercure_variables


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fastsse.toml"


def load_problem(**flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags)
    return str(caught.value)


def test_flags_win_over_environment_over_file_over_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('port = 1\nretry = "1s"\ndrain = "1s"\n')
    monkeypatch.setenv("FASTSSE_PORT", "2")
    monkeypatch.setenv("fastsse_retry", "2s")
    loaded = load({"port": "3"}, str(file))
    assert (loaded.config.port, loaded.config.retry, loaded.config.drain) == (3, 2, 1)
    assert loaded.origins["port"] == "--port"
    assert loaded.origins["retry"] == "FASTSSE_RETRY"
    assert loaded.origins["drain"] == f"{file}: drain"
    assert loaded.origins["heartbeat"] == "default"
    assert list(loaded.origins) == list(catalogue())


def test_file_can_be_named_by_a_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("port = 5\n")
    monkeypatch.setenv("FASTSSE_CONFIG", str(file))
    assert load().config.port == 5


def test_rules_come_from_tables_in_the_file_and_from_json_elsewhere(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('[[topics]]\nmatch = "a"\nhistory_age = "1m"\n')
    assert load(file=str(file)).config.topics[0].history_age == 60
    monkeypatch.setenv("FASTSSE_TOPICS", '[{"match": "b"}]')
    assert load(file=str(file)).config.topics[0].match == "b"
    assert load({"topics": '[{"match": "c"}]'}).config.topics[0].match == "c"


def test_error_says_which_source_the_value_came_from(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        load_problem(port="x") == 'port = "x" (from --port) must be a whole number from 0 to 65535.'
    )
    monkeypatch.setenv("FASTSSE_HEARTBEAT", "-5s")
    assert load_problem() == (
        'heartbeat = "-5s" (from FASTSSE_HEARTBEAT) must be a duration from 10ms to 1h, '
        "such as 250ms, 10s or 1m30s."
    )
    monkeypatch.delenv("FASTSSE_HEARTBEAT")
    file.write_text('hearbeat = "5s"\n')
    monkeypatch.setenv("FASTSSE_CONFIG", str(file))
    assert load_problem() == (
        f"hearbeat (from {file}: hearbeat) is not an option; did you mean heartbeat?"
    )
    file.write_text('[[topics]]\nmatch = "a"\nhistory_age = "x"\n')
    assert f"(from {file}: topics[0].history_age)" in load_problem()
    file.write_text('max_lag = "17MiB"\n')
    assert f"max_lag = 17MiB (from {file}: max_lag) must be at most" in load_problem()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"port = ", "invalid value"),
        (b"a\nb", "line 1"),
        (b"port = 1\nport = 2\n", "overwrite"),
        (b"\xff", "UTF-8 (byte 0 is not)"),
    ],
)
def test_broken_file_is_one_clear_line(file: Path, content: bytes, says: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file=str(file))
    text = str(caught.value)
    assert text.startswith(f'config = "{file}" (from --config) must be a TOML file')
    assert says in text
    assert "\n" not in text


def test_absent_and_unreadable_files_are_one_clear_line(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigError, match=says):
            load(file=str(path))


def test_sections_in_the_file_are_refused(file: Path) -> None:
    file.write_text("[server]\nport = 1\n")
    with pytest.raises(ConfigError, match=r"server .* is not an option"):
        load(file=str(file))


def test_mistyped_variable_is_noted_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSSE_HEARBEAT", "1s")
    monkeypatch.setenv("FASTSSE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("FASTSSE_URL", "http://x")
    assert load().notes == ("FASTSSE_HEARBEAT is not an option; did you mean FASTSSE_HEARTBEAT?",)


def test_a_mercure_hub_s_variables_are_noted_while_no_key_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_KEY", "s3cret")
    monkeypatch.setenv("MERCURE_EXTRA_DIRECTIVES", "anonymous")
    assert load().notes == (
        "MERCURE_EXTRA_DIRECTIVES is not read, and no key for tokens is set: the key's option is "
        "FASTSSE_JWT_KEY.",
        "MERCURE_PUBLISHER_JWT_KEY is not read, and no key for tokens is set: the option is "
        "FASTSSE_PUBLISHER_JWT_KEY.",
    )
    assert load({"jwt_key": "a secret of at least thirty-two bytes"}).notes == ()


def test_every_option_that_a_mercure_variable_leads_to_exists() -> None:
    assert set(mercure_variables._OPTIONS.values()) <= catalogue().keys()


def test_address_that_kubernetes_puts_in_the_port_variable_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTSSE_PORT", "tcp://10.96.0.7:8080")
    loaded = load()
    assert loaded.config.port == 8080
    assert loaded.origins["port"] == "default"
    assert "FASTSSE_PORT" in loaded.notes[0]


def test_doubtful_combination_is_noted() -> None:
    assert "max_body" in load({"max_body": "8MiB"}).notes[0]
