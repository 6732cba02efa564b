"""A configuration is right, or says in one line what is wrong, and where it came from."""

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse.config import Config, ConfigError, HttpOptions, StreamOptions, catalogue
from tests.config.problems import problem

# --- Defaults and groups


def test_documented_defaults_hold() -> None:
    config = Config()
    assert (config.host, config.port) == (("127.0.0.1",), 8080)
    assert (config.history_events, config.history_age) == (1000, 3600)
    assert (config.history_bytes, config.history_total) == (16 * 2**20, 256 * 2**20)
    assert (config.retry, config.heartbeat, config.drain) == (3, 15, 10)
    assert (config.max_lag, config.max_lag_time) == (4 * 2**20, 20)
    assert (config.max_body, config.memory_limit) == (2**20, 2**30)
    assert (config.user_timeout, config.notsent_lowat, config.idle_timeout) == (30, 16 * 2**10, 90)
    assert (config.head_timeout, config.body_timeout) == (10, 30)
    assert (config.max_head, config.max_headers, config.max_topics) == (16 * 2**10, 100, 100)
    assert (config.lag_policy, config.cors_origins, config.publish_token) == (
        "disconnect",
        (),
        None,
    )


def test_whole_configuration_is_one_of_each_group() -> None:
    assert isinstance(Config(), StreamOptions)
    assert isinstance(Config(), HttpOptions)


def test_configuration_is_frozen_and_hashable() -> None:
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.port = 1  # type: ignore[misc]
    assert hash(config) == hash(Config())


def test_arguments_ignore_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSSE_PORT", "1")
    assert Config().port == 8080


def test_every_option_has_help_and_a_default_that_it_accepts() -> None:
    for option in catalogue().values():
        assert option.help.endswith(".")
        assert option.allowed
        if option.default != "none":
            Config(**{option.name: option.default})


def test_shown_value_is_read_back_as_the_same() -> None:
    config = Config(max_lag="1.5MiB", drain="1m30s", host="::1,localhost", cors_origins="http://a")
    shown = {
        option.name: option.show(getattr(config, option.name))
        for option in catalogue().values()
        if getattr(config, option.name) not in (None, ())
    }
    assert Config(**shown) == config


# --- Values


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("retry", "1m30s", 90),
        ("retry", "250ms", 0.25),
        ("retry", 2, 2),
        ("max_body", "64KB", 64000),
        ("max_body", 12, 12),
        ("port", "0", 0),
        ("port", " 81 ", 81),
        ("lag_policy", "SKIP", "skip"),
        ("host", "[::1]", ("::1",)),
        ("host", "127.0.0.1, ::1", ("127.0.0.1", "::1")),
        ("host", '["127.0.0.1", "::1"]', ("127.0.0.1", "::1")),
        ("host", ["localhost", "127.0.0.1", "localhost"], ("localhost", "127.0.0.1")),
        ("cors_origins", "https://A.example:8443", ("https://a.example:8443",)),
        ("cors_origins", "https://*.A.example", ("https://*.a.example",)),
        ("cors_origins", "https://a.example:443,http://b:80", ("https://a.example", "http://b")),
        ("cors_origins", "", ()),
        ("cors_origins", "*", ("*",)),
        ("allowed_hosts", "SSE.example.com,b", ("sse.example.com", "b")),
        ("allow_anonymous_publish", "yes", True),
        ("uds", "/tmp/x", "/tmp/x"),
        ("fd", 3, 3),
    ],
)
def test_value_is_understood(option: str, text: object, value: object) -> None:
    assert getattr(Config(**{option: text}), option) == value


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("port", True),
        ("port", 80.5),
        ("port", "80.0"),
        ("port", ""),
        ("port", None),
        ("port", "9" * 5000),
        ("fd", -1),
        ("fd", "3x"),
        ("admin_port", 70000),
        ("host", ""),
        ("host", []),
        ("host", "a b"),
        ("host", "127.0.0.1,,::1"),
        ("host", "http://x"),
        ("host", "127.0.0.1\nx"),
        ("host", "[]"),
        ("host", 5),
        ("retry", "-1s"),
        ("retry", math.nan),
        ("retry", math.inf),
        ("retry", "1e400"),
        ("retry", "0s"),
        ("retry", "2h"),
        ("retry", True),
        ("heartbeat", "10 bananas"),
        ("max_lag", "0"),
        ("max_lag", "-4MiB"),
        ("max_lag", "9" * 400),
        ("max_body", "0.5"),
        ("max_body", "2GiB"),
        ("history_events", -1),
        ("history_age", "100000d"),
        ("lag_policy", "drop"),
        ("lag_policy", 3),
        ("store", "sqlite"),
        ("store", "sqlite:"),
        ("store", "sqlite: "),
        ("store", "sqlite::memory:"),
        ("store", "sqlite:a/"),
        ("store", "sqlite:a\0b"),
        ("store", "postgres://a"),
        ("store", "redis://"),
        ("store", "redis://a:b"),
        ("store", "redis://a b"),
        ("store", "unix://"),
        ("store", 5),
        ("ack", "sent"),
        ("store_total", "-1B"),
        ("max_replays", 0),
        ("publish_token", ""),
        ("publish_token", "two words"),
        ("publish_token", "é"),
        ("publish_token", "a\r\nb"),
        ("publish_token", "x" * 4097),
        ("allow_anonymous_publish", "maybe"),
        ("cors_origins", "example.com"),
        ("cors_origins", "https://example.com/"),
        ("cors_origins", "https://example.com/path"),
        ("cors_origins", "https://user@example.com"),
        ("cors_origins", "https://example.com:port"),
        ("cors_origins", "https://exa mple.com"),
        ("cors_origins", "*,https://example.com"),
        ("cors_origins", "null"),
        ("cors_origins", "https://*.com"),
        ("cors_origins", "https://*"),
        ("cors_origins", "https://a.*.example.com"),
        ("cors_origins", "https://*evil.example.com"),
        ("cors_origins", "https://*.*.example.com"),
        ("cors_origins", "https://*.192.0.2.7"),
        ("cors_origins", "*://a.example.com"),
        ("allowed_hosts", "sse.example.com:80"),
        ("allowed_hosts", "https://sse.example.com"),
        ("allowed_hosts", "*"),
        ("uds", ""),
        ("uds", "a\0b"),
        ("uds", "a" * 108),
        ("uds", 5),
        ("log_level", "loud\n\x1b[31m"),
        ("access_lines", -1),
        ("topics", "[{"),
        ("topics", "{}"),
        ("topics", [3]),
        ("topics", [{"match": "*"}] * 1001),
        ("topics", "[" * 100_000),
    ],
)
def test_bad_value_is_refused_in_one_line(option: str, value: object) -> None:
    text = problem(**{option: value})
    assert text.startswith(option)
    assert text.isprintable()
    assert " must be " in text
    assert len(text) < 300


@given(
    st.sampled_from(sorted(catalogue())),
    st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.lists(st.text()), st.binary()),
)
def test_any_value_gives_a_configuration_or_one_line(option: str, value: object) -> None:
    line = ""
    try:
        Config(**{option: value})
    except ConfigError as error:
        line = str(error)
    assert line.isprintable()
    assert len(line) < 400


def test_unknown_option_is_named_with_a_suggestion_and_without_its_value() -> None:
    text = problem(publish_tokn="s3cret")
    assert text == "publish_tokn (from an argument) is not an option; did you mean publish_token?"


def test_all_problems_are_kept() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(port=-1, retry="x")
    assert {getattr(problem, "option", "") for problem in caught.value.problems} == {
        "port",
        "retry",
    }


def test_contradictions_of_other_options_are_said_with_bad_values() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(port="x", history_bytes="2MiB", host="0.0.0.0", pong_timeout="1s")
    named = [getattr(problem, "option", "") for problem in caught.value.problems]
    assert named == ["port", "host", "pong_timeout", "history_bytes"]
    # With a right token there would be none about the address.
    with pytest.raises(ConfigError) as caught:
        Config(publish_token="not visible \n", host="0.0.0.0")
    assert [getattr(problem, "option", "") for problem in caught.value.problems] == [
        "publish_token"
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_body": True}, "max_body = true "),
        ({"retry": datetime.date(2026, 1, 2)}, "retry = 2026-01-02 "),
        ({"subscriptions": {"a b": [1, None]}}, 'subscriptions = {"a b" = [1, none]} '),
        ({"topics": [{"match": "a", "lag_policy": False}]}, "topics[0].lag_policy = false "),
        ({"topics": [{"match": "a"}, 5]}, "topics[1] = 5 (from an argument) must be a table with"),
        (
            {"sources": [{"name": "x", "stream": "k", "channels": ["c"], "topic": "t"}]},
            'sources[0] = {name = "x", stream = "k", channels = ["c"], topic = "t"} ',
        ),
        ({"sources": [{"name": "x", "private": "perhaps"}]}, "must be true or false"),
    ],
)
def test_a_bad_value_is_shown_as_the_file_has_it(options: dict[str, object], says: str) -> None:
    assert says in problem(**options)


def test_secret_is_masked_everywhere() -> None:
    config = Config(publish_token="s3cret")
    assert "s3cret" not in repr(config)
    assert "s3cret" not in str(config.model_dump())
    assert catalogue()["publish_token"].show(config.publish_token) == "***"
    assert "s3cret" not in problem(publish_token="s3cret with spaces")
    assert config.publish_token is not None
    assert config.publish_token.get_secret_value() == "s3cret"


# --- Options together


@pytest.mark.parametrize(
    ("options", "named", "says"),
    [
        ({"max_lag": "17MiB"}, "max_lag", "at most history_bytes, which is 16MiB"),
        ({"history_bytes": "1MiB"}, "history_bytes", "at least max_lag, which is 4MiB"),
        ({"history_total": "1MiB"}, "history_total", "at least max_lag"),
        ({"max_lag_time": "31s"}, "max_lag_time", "at most user_timeout, which is 30s"),
        ({"user_timeout": "10s"}, "user_timeout", "at least max_lag_time, which is 20s"),
        ({"memory_limit": "256MiB"}, "memory_limit", "above history_total"),
        ({"history_total": "1GiB"}, "history_total", "below memory_limit"),
        ({"uds": "x", "fd": 3}, "fd", "left out when uds is given"),
        ({"host": "0.0.0.0"}, "host", "allow_anonymous_publish"),
        ({"host": "127.0.0.1,192.0.2.1"}, "host", "publish_token"),
        ({"host": "example.com"}, "host", "publish_token"),
        (
            {"topics": [{"match": "x"}, {"match": "a", "history_bytes": "1KiB"}]},
            "topics[1].history_bytes",
            "at least max_lag",
        ),
        (
            {
                "lag_policy": "skip",
                "topics": [{"match": "a", "history_bytes": 9, "lag_policy": "disconnect"}],
            },
            "topics[0].history_bytes",
            "at least max_lag",
        ),
    ],
)
def test_contradiction_names_the_option_that_was_given(
    options: dict[str, object], named: str, says: str
) -> None:
    text = problem(**options)
    assert text.startswith(f"{named} = ")
    assert says in text


@pytest.mark.parametrize(
    "options",
    [
        {"max_lag": "17MiB", "lag_policy": "skip"},
        {"history_events": 0, "history_bytes": "1KiB"},
        {"history_bytes": 0},
        {"host": "0.0.0.0", "publish_token": "t"},
        {"host": "0.0.0.0", "allow_anonymous_publish": True},
        {"host": "0.0.0.0", "uds": "x"},
        {"host": "127.9.9.9,::1,localhost"},
        {"topics": [{"match": "a", "history_bytes": 9, "lag_policy": "latest"}]},
    ],
)
def test_what_fits_together_is_taken(options: dict[str, object]) -> None:
    Config(**options)


def test_public_address_is_recognised() -> None:
    assert Config(host="0.0.0.0", publish_token="t").is_public
    assert not Config().is_public
    assert not Config(host="0.0.0.0", fd=3).is_public
