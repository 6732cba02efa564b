"""Django publishes after the commit, and gives pages addresses with the rights of their user."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import transaction
from django.http import HttpRequest
from django.template import Context, Template
from django.test.utils import override_settings

from fastsse import Config, Server
from fastsse.client import AsyncClient
from tests.loopback import held_port

KEY = "k" * 32


@pytest.fixture(autouse=True, scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not settings.configured:
        settings.configure(
            SECRET_KEY="of a test",
            INSTALLED_APPS=[
                "django.contrib.contenttypes",
                "django.contrib.auth",
                "fastsse.contrib.django",
            ],
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": str(tmp_path_factory.mktemp("django") / "db"),
                }
            },
            TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        )
        django.setup()


class User:
    """As of django.contrib.auth."""

    is_authenticated = True

    def __init__(self, pk: int) -> None:
        self.pk = pk


class Anonymous:
    is_authenticated = False
    pk = None


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(Config(port=0, drain=0, jwt_key=KEY)) as one:
        yield one


def in_project(server_url: str, work: Any, **more: Any) -> Any:
    """Runs synchronous code of a project in a thread, as a request would."""

    def run() -> Any:
        from django.db import connections

        with override_settings(FASTSSE={"URL": server_url, "JWT_KEY": KEY, **more}):
            try:
                return work()
            finally:
                connections.close_all()

    return asyncio.to_thread(run)


async def test_event_is_published_when_the_transaction_commits(server: Server) -> None:
    from fastsse.contrib.django import publish, user_token

    seen: list[str] = []
    token = await in_project(server.addresses[0], lambda: user_token(User(7)))

    class Undone(Exception):
        pass

    def view() -> None:
        with suppress(Undone), transaction.atomic():
            publish("user/7", "rolled back", private=True)
            raise Undone
        with transaction.atomic():
            publish("user/7", {"order": 17}, event="order", private=True)
            publish("user/7", "second", private=True)
        publish("user/7", "without a transaction", private=True)

    async with (
        AsyncClient(server.addresses[0], token=token) as client,
        client.subscribe("user/7") as events,
    ):
        await in_project(server.addresses[0], view)
        seen += [(await anext(events)).data for _ in range(3)]
    assert seen == ['{"order":17}', "second", "without a transaction"]


async def test_failed_publish_is_logged_and_does_not_fail_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from fastsse.contrib.django import publish

    with held_port() as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        await in_project(url, lambda: publish("user/7", "x"), TIMEOUT_S=0)
    assert "An event was not published" in caplog.text


async def test_outbox_keeps_events_until_the_server_is_there(tmp_path: Path) -> None:
    from fastsse.contrib.django import client, publish

    with held_port() as held:
        port = held.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        outbox = str(tmp_path / "outbox")
        more = {"OUTBOX": outbox, "TIMEOUT_S": 0}
        await in_project(url, lambda: publish("user/7", "kept"), **more)
        async with Server(Config(port=port, drain=0, jwt_key=KEY)) as server:
            await in_project(url, lambda: client().flush(), **more)
            assert server.stream_count == 0


@pytest.mark.parametrize(("user", "status"), [(User(7), "mine"), (User(8), None)])
async def test_template_tag_gives_the_streams_of_the_user(
    server: Server, user: User, status: str | None
) -> None:
    def page() -> str:
        request = HttpRequest()
        request.user = user  # type: ignore[assignment]
        template = Template("{% load fastsse %}{% fastsse_url 'user/7' 'all' %}")
        return template.render(Context({"request": request})).replace("&amp;", "&")

    url = await in_project(server.addresses[0], page)
    assert "ticket=" in url
    async with AsyncClient(url) as client, client.subscribe() as events:
        await server.publish_later("user/7", "mine", private=True)
        await server.publish_later("all", "end")
        first = (await anext(events)).data
    assert first == (status or "end")


@pytest.mark.parametrize("key", [None, ""])
async def test_a_token_without_a_key_names_the_setting(server: Server, key: str | None) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from fastsse.contrib.django import user_token

    with pytest.raises(ImproperlyConfigured, match="JWT_KEY"):
        await in_project(server.addresses[0], lambda: user_token(User(7)), JWT_KEY=key)


async def test_permission_hook_decides_what_a_user_may_read(server: Server) -> None:
    from fastsse.contrib.django import user_token

    hook = "tests.contrib.test_django.team_of"
    token = await in_project(server.addresses[0], lambda: user_token(User(7)), TOPICS=hook)
    anonymous = await in_project(server.addresses[0], lambda: user_token(Anonymous()))
    async with (
        AsyncClient(server.addresses[0], token=token) as client,
        client.subscribe("team/1") as events,
    ):
        await server.publish_later("team/1", "for the team", private=True)
        assert (await anext(events)).data == "for the team"
    async with (
        AsyncClient(server.addresses[0], token=anonymous) as client,
        client.subscribe(["team/1", "user/7", "all"]) as events,
    ):
        await server.publish_later("team/1", "for the team", private=True)
        await server.publish_later("all", "for all")
        assert (await anext(events)).data == "for all"


def team_of(user: Any) -> list[str]:
    return ["team/1"] if user.is_authenticated else []


async def test_management_command_publishes_and_listens(server: Server) -> None:
    def commands() -> str:
        out = io.StringIO()
        call_command("fastsse", "publish", "news", "hello", "--event", "tick", stdout=out)
        call_command("fastsse", "listen", "news", "--last", "1", "--count", "1", stdout=out)
        with pytest.raises(CommandError, match="topic"):
            call_command("fastsse", "publish", "$reserved", "x", stdout=out)
        return out.getvalue()

    published, heard = (await in_project(server.addresses[0], commands)).splitlines()
    assert heard == f"{published} tick hello"


@pytest.mark.parametrize(
    ("given", "says"), [(None, "is missing"), ({"URL": "http://x", "KEY": 1}, "unknown keys: KEY")]
)
def test_wrong_settings_are_named(given: Any, says: str) -> None:
    from fastsse.contrib.django import publish

    with override_settings(FASTSSE=given), pytest.raises(ImproperlyConfigured, match=says):
        publish("news", "x")
