"""`store` names memory, a file or a server, and never shows a password."""

import pytest

from fastsse.config import Config, ConfigError, catalogue
from fastsse.config.relations import doubts


@pytest.mark.parametrize(
    "store",
    [
        "memory",
        "sqlite:history.db",
        "sqlite:/var/lib/a b/history.db",
        "redis://localhost",
        "redis://localhost:6379/0",
        "rediss://user:secret@example.com/1",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_a_store_is_memory_a_file_or_a_server(store: str) -> None:
    assert Config(store=store).store == store


def test_only_a_file_has_a_path() -> None:
    assert Config(store="sqlite:a/b.db").store_path == "a/b.db"
    assert Config(store="memory").store_path is None
    assert Config(store="redis://localhost").store_path is None


def test_what_a_store_can_be_is_said() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(store="mysql:x")
    assert "memory, sqlite:PATH, redis://, rediss://, unix:// or redis+sentinel://" in str(
        caught.value
    )


def test_a_file_store_without_a_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="path after sqlite: is missing"):
        Config(store="sqlite:")


@pytest.mark.parametrize(
    ("given", "meant"), [("history.db", "history.db"), ("sqlite", "history.db")]
)
def test_a_store_that_is_a_bare_path_is_refused_with_the_right_form(given: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean sqlite:{meant}\?"):
        Config(store=given)


def test_the_memory_store_refuses_a_durable_ack() -> None:
    with pytest.raises(ConfigError, match="ack"):
        Config(ack="synced")
    assert Config(ack="synced", store="sqlite:x.db").ack == "synced"
    redis = Config(ack="synced", store="redis://localhost")
    assert any("redis_wait" in doubt for doubt in doubts(redis))
    assert not any("redis_wait" in doubt for doubt in doubts(Config(store="redis://localhost")))


def test_a_password_is_never_shown() -> None:
    shown = catalogue()["store"].show("redis://user:secret@example.com:6379/0")
    assert shown == "redis://user:***@example.com:6379/0"
    with pytest.raises(ConfigError) as caught:
        Config(store="redis://user:secret@example.com:port")
    assert "secret" not in str(caught.value)
