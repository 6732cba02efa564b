"""A connection that shows the same token again and again is asked no less for it."""

import pytest

from fastsse.auth.guard import Guard, Shown
from fastsse.server import Server
from tests.auth.minting import SECRET, grants, mint
from tests.auth.onenode import Node, bearer
from tests.http.conftest import Start
from tests.http.raw import Raw, connected, request
from tests.mercure.client import FORM, HUB, KEY, ask
from tests.mercure.client import bearer as signed

JSON = "Content-Type: application/json"


@pytest.fixture
async def hub(start: Start) -> Server:
    return await start(jwt_key=KEY)


async def publish(raw: Raw, *headers: str, topic: str = "a", path: str = "/events") -> int:
    await raw.send(request("POST", f"{path}?topic={topic}", *headers, body=b"topic=a&data=x"))
    return (await raw.answer()).status


async def test_a_token_that_was_shown_before_is_refused_when_it_is_revoked(hub: Server) -> None:
    by = signed(["a"], jti="one")
    async with connected(hub) as raw:
        assert [await publish(raw, by) for _ in range(4)] == [200] * 4
        revoked = await ask(hub, "POST", "/revoke", signed(["*"]), JSON, body=b'{"jti":"one"}')
        assert revoked.status == 204
        assert await publish(raw, signed(["a"], jti="other")) == 200
        assert await publish(raw, by) == 401


@pytest.mark.parametrize("worse", ["", "x", " x", ", Bearer x"])
async def test_each_request_is_judged_by_what_it_shows_itself(hub: Server, worse: str) -> None:
    one, other = signed(["a"]), signed(["b"])
    async with connected(hub) as raw:
        for _ in range(3):
            assert await publish(raw, one) == 200
            assert await publish(raw, one, topic="b") == 403
        for _ in range(3):
            assert await publish(raw, other) == 403
            assert await publish(raw, other, topic="b") == 200
        assert [await publish(raw, one) for _ in range(3)] == [200] * 3
        assert await publish(raw, *([one + worse] if worse else [])) == 401


async def test_a_cookie_next_to_another_scheme_is_checked_for_each_publish(start: Start) -> None:
    page = "https://app.example"
    hub = await start(jwt_key=KEY, publish_origins=[page])
    basic, origin = "Authorization: Basic dXNlcjpwYXNz", f"Origin: {page}"
    cookie = "Cookie: mercureAuthorization=" + signed(["a"]).split()[-1]
    async with connected(hub) as raw:
        assert [await publish(raw, basic, origin, cookie) for _ in range(3)] == [200] * 3
        assert await publish(raw, basic, origin) == 401
    async with connected(hub) as raw:
        assert await publish(raw, basic, cookie) == 401


async def test_what_one_interface_takes_is_no_pass_for_the_other(hub: Server) -> None:
    """Mercure is strict about how `Bearer` is spelt."""
    loose = signed(["a"]).replace("Bearer", "bearer")
    async with connected(hub) as raw:
        assert [await publish(raw, loose) for _ in range(3)] == [200] * 3
        assert await publish(raw, loose, FORM, path=HUB) == 401


def noted(guard: Guard, raw: bytes) -> Shown:
    """A header that was noted when it was found to be right."""
    header = bearer(raw)[b"authorization"]
    rights = guard.publisher(bearer(raw), ())
    shown = guard.note(header, rights)
    assert guard.again(shown) is rights
    return shown


async def test_a_token_that_was_shown_before_ends_when_it_ends() -> None:
    node = Node()
    shown = noted(node.one, mint(grants(publish=["a"]) | {"exp": node.clock.now_s + 10}))
    node.clock.now_s += 9
    assert node.one.again(shown)
    node.clock.now_s += 2
    assert node.one.again(shown) is None


async def test_a_known_token_is_verified_again_after_a_change_of_keys() -> None:
    node = Node(jwt_key=SECRET)
    shown = noted(node.one, mint())
    node.one.verifier.forget()
    assert node.one.again(shown) is None
