"""Wrong credentials are named where operators look, and the password is shown nowhere.

Those of Kafka are in `test_kraft.py`.
"""

import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from fastsse.sources.preview import preview
from fastsse.sources.source import SourceAway
from tests.redis.conftest import NO_SERVER
from tests.redis.server import RedisServer
from tests.redis.server import program as redis_program
from tests.sources import brokers
from tests.sources.test_contract import Log, reading, until

WORDS = ("authenticat", "authoriz", "password", "wrongpass", 'role "mallory" does not exist')


class Guarded(NamedTuple):
    """A server that wants a login: the rest of a rule with the right one, and what ends it."""

    rule: dict[str, Any]
    close: Callable[[], None]


def redis(folder: pathlib.Path) -> Guarded:
    if redis_program() is None:
        pytest.skip(NO_SERVER)
    server = RedisServer(folder)
    server.start()
    server.client.execute_command("ACL", "SETUSER", "alice", "on", ">secret", "~*", "&*", "+@all")
    url = server.url.replace("redis://", "redis://alice:secret@")
    return Guarded({"url": url, "stream": "jobs"}, server.close)


def nats(folder: pathlib.Path) -> Guarded:
    if brokers.nats_program() is None:
        pytest.skip("no nats-server here")
    server = brokers.NatsServer(folder)
    server.login = ("alice", "secret")
    server.start()
    url = f"nats://alice:secret@127.0.0.1:{server.port}"
    return Guarded({"url": url, "topics": ["jobs"]}, server.close)


def postgres(folder: pathlib.Path) -> Guarded:
    server = brokers.PostgresServer(folder)
    server.start()
    server.execute("CREATE ROLE alice LOGIN PASSWORD 'secret'")
    rules = pathlib.Path(server.execute("SHOW hba_file")[0][0])
    rules.write_text("host all alice all scram-sha-256\n" + rules.read_text())
    server.execute("SELECT pg_reload_conf()")
    url = server.url.replace("postgres@", "alice:secret@")
    return Guarded({"url": url, "channels": ["jobs"]}, server.close)


def mqtt(folder: pathlib.Path) -> Guarded:
    tool = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/local/bin")
    if tool is None or shutil.which("mosquitto", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("no mosquitto here")
    server = brokers.MqttServer(folder)
    passwords = folder / "passwords"
    subprocess.run([tool, "-b", "-c", str(passwords), "alice", "secret"], check=True)
    server.passwords = passwords
    server.start()
    url = f"mqtt://alice:secret@127.0.0.1:{server.port}"
    return Guarded({"url": url, "topics": ["jobs"]}, server.close)


@pytest.fixture(params=[redis, nats, postgres, mqtt])
def guarded(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Guarded]:
    found: Guarded = request.param(tmp_path / "server")
    yield found
    found.close()


@pytest.mark.parametrize("change", [("secret", "hidden"), ("alice", "mallory")])
async def test_wrong_credentials_are_named(
    guarded: Guarded, change: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    given: dict[str, Any] = {"name": "s", "topic": "t", **guarded.rule}
    wrong = {**given, "url": given["url"].replace(*change)}
    async with reading(wrong, Log()) as sources:
        await until(lambda: sources.states()[0]["state"] == "away", sources.states)
        trouble = sources.states()[0]["trouble"]
        assert any(word in trouble.lower() for word in WORDS), trouble
        await until(lambda: "A source is away." in caplog.messages)
    with pytest.raises(SourceAway) as away:
        await preview(sources._config, sources._config.sources[0], 1, 0.2)
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert "hidden" not in trouble + str(away.value) + logged
    async with reading(given, Log()) as sources:
        await until(lambda: sources.states()[0]["state"] == "ready", sources.states)
