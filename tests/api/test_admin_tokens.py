"""An operator makes tokens with the server's key, if the options allow it, and asks about them."""

import logging
import time
from typing import Any
from urllib.parse import quote

import pytest

from fastsse.config import Config, ConfigError
from fastsse.server import Server
from tests.api.operators import HTML, PASSWORD, operator
from tests.auth.minting import mint, public_pem, rsa_key
from tests.http.conftest import Start
from tests.mercure.client import KEY, ask

ALLOWED: dict[str, Any] = {"jwt_key": KEY, "console_minting": "10m"}
PATH = "/admin/tokens"


async def minted(server: Server, query: str, *headers: str) -> Any:
    return await ask(server, "POST", f"{PATH}?{query}", *(headers or (operator(),)))


async def explained(server: Server, token: str, *headers: str) -> Any:
    return await ask(
        server, "POST", f"{PATH}/explain", *(headers or (operator("read"),)), body=token.encode()
    )


async def test_a_token_that_was_made_is_taken_and_logged_without_its_text(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start(**ALLOWED, jwt_audience="sse", jwt_issuer="here", publish_token=None)
    with caplog.at_level(logging.INFO, "fastsse.audit"):
        header = operator(aud="sse", iss="here", sub="boss")
        answer = await minted(
            server, f"publish=a&publish=b&subject={quote(HTML)}&lifetime=5m", header
        )
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    token, claims = answer.json["token"], answer.json["claims"]
    assert claims["mercure"] == {"publish": ["a", "b"]}
    assert (claims["sub"], claims["aud"], claims["iss"]) == (HTML, "sse", "here")
    assert claims["exp"] - claims["iat"] == 300
    assert abs(claims["iat"] - time.time()) < 60
    bearer = f"Authorization: Bearer {token}"
    assert (await ask(server, "POST", "/events?topic=b", bearer, body=b"x")).status == 200
    assert (await ask(server, "POST", "/events?topic=c", bearer, body=b"x")).status == 403
    # It opens no console, so an operator can't make operators.
    assert (await ask(server, "GET", "/admin/topics", bearer)).status == 403
    (line,) = caplog.records
    assert line.message == "An operator made a token."
    assert (line.operator, line.of_subject, line.lifetime_s) == ("boss", HTML, 300)
    assert (line.publish, line.subscribe, line.token_id) == (["a", "b"], [], claims["jti"])
    assert token not in caplog.text


async def test_only_an_operator_who_may_act_makes_tokens_and_only_if_it_is_allowed(
    start: Start,
) -> None:
    server = await start(**ALLOWED, console_password="open-sesame")
    query = "subscribe=a"
    assert (await minted(server, query)).status == 200
    assert (await minted(server, query, PASSWORD)).status == 200
    assert (await minted(server, query, operator("read"))).status == 403
    assert (await minted(server, query, operator(None))).status == 403
    for none in ("Accept: */*", f"Cookie: mercureAuthorization={operator()[22:]}"):
        assert (await minted(server, query, none)).status == 401
    off = await start(jwt_key=KEY)
    refused = await minted(off, query)
    assert (refused.status, refused.json["field"]) == (403, "console_minting")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "subscribe"),
        ("subject=x", "subscribe"),
        ("subscribe=", "subscribe"),
        ("subscribe=" + "x" * 1025, "subscribe"),
        ("&".join(f"publish={n}" for n in range(101)), "publish"),
        ("subscribe=a&subject=x&subject=y", "subject"),
        ("subscribe=a&lifetime=11m", "lifetime"),
        ("subscribe=a&lifetime=0s", "lifetime"),
        ("subscribe=a&lifetime=soon", "lifetime"),
        ("subscribe=a&lifetime=never", "lifetime"),
        ("subscribe=a&console=act", "console"),
        ("subscribe=a&fastsse=x", "fastsse"),
    ],
)
async def test_a_token_that_can_not_be_made_is_said(start: Start, query: str, field: str) -> None:
    server = await start(**ALLOWED)
    answer = await minted(server, query)
    assert (answer.status, answer.json["field"]) == (400, field)


async def test_keys_that_can_not_sign_are_said(start: Start) -> None:
    key = rsa_key()
    server = await start(
        jwt_key=public_pem(key), console_minting="1h", console_password="open-sesame"
    )
    answer = await minted(server, "subscribe=a", PASSWORD)
    assert (answer.status, answer.json["field"]) == (409, "jwt_key")
    assert "public key can't sign" in answer.json["detail"]
    two = {"publisher_jwt_key": KEY, "subscriber_jwt_key": KEY[::-1]}
    server = await start(**two, console_minting="1h")
    assert (await minted(server, "subscribe=a")).status == 200
    assert "two tokens" in (await minted(server, "subscribe=a&publish=b")).json["detail"]


@pytest.mark.parametrize(
    "options",
    [{}, {"console_password": "open-sesame"}, {"jwks_url": "https://example.com/keys"}],
)
def test_minting_needs_a_key_that_signs(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="console_minting"):
        Config(console_minting="1h", **options)
    with pytest.raises(ConfigError, match="console_minting"):
        Config(console_minting="31d", jwt_key=KEY)


async def test_the_server_says_what_it_thinks_of_a_token(start: Start) -> None:
    server = await start(**ALLOWED)
    token = (await minted(server, "subscribe=a&subject=u7")).json["token"]
    said = (await explained(server, f" Bearer {token}\n")).json
    assert said["claims"]["sub"] == "u7"
    assert said["sides"]["subscribe"]["taken"]
    assert said["sides"]["subscribe"]["grants"] == ["a"]
    assert not said["sides"]["publish"]["taken"]
    body = f'{{"sub":"u7","issued_before":{int(time.time()) + 60}}}'.encode()
    assert (await ask(server, "POST", "/revoke", operator(), body=body)).status == 204
    said = (await explained(server, token)).json
    assert said["sides"]["subscribe"] == {"taken": False, "why": "The token was revoked."}
    foreign = (await explained(server, mint({}, key=KEY[::-1]).decode())).json
    assert all("signature" in one["why"] for one in foreign["sides"].values())
    nonsense = (await explained(server, HTML)).json
    assert "three parts" in nonsense["unreadable"]
    assert not any(one["taken"] for one in nonsense["sides"].values())
    assert (await explained(server, token, operator(None))).status == 403
    assert (await explained(server, "x" * 40_000)).status == 413
    empty = await explained(server, "")
    assert not any(one["taken"] for one in empty.json["sides"].values())


async def test_a_server_without_keys_takes_no_tokens(server: Server) -> None:
    answer = await explained(server, "x", "Accept: */*")
    assert (answer.status, answer.json["field"]) == (409, "jwt_key")
