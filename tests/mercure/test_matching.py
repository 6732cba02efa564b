"""Matching: statements M1 to M7 (0.x dialect: exact, `*`, URI templates)."""

from urllib.parse import quote

import pytest

from fastsse.server import Server
from tests.mercure.client import bearer, publish, subscribed, texts, update


async def matches(hub: Server, selector: str, topic: str) -> bool:
    """Whether a stream with this selector gets an update of this topic. What is published under
    both after it must come in any case."""
    async with subscribed(hub, f"topic={quote(selector)}&topic=end") as stream:
        await update(hub, topic, "it")
        await update(hub, "end", "end")
        return await texts(stream, 1) == ["it"]


@pytest.mark.parametrize("topic", ["a", "https://example.com/x/y?z", "{x}", "*", "ü 1"])
async def test_M1_a_star_matches_everything(hub: Server, topic: str) -> None:
    assert await matches(hub, "*", topic)


@pytest.mark.parametrize(
    ("selector", "topic", "does"),
    [
        ("https://example.com/a", "https://example.com/a", True),
        ("https://example.com/a", "https://example.com/A", False),
        ("https://example.com/a", "https://EXAMPLE.com/a", False),
        ("https://example.com/a", "https://example.com/a/", False),
        ("https://example.com/%61", "https://example.com/a", False),
        ("https://example.com/{x}", "https://example.com/{x}", True),
        ("a*", "ab", False),
    ],
)
async def test_M2_then_text_is_compared_byte_by_byte(
    hub: Server, selector: str, topic: str, does: bool
) -> None:
    assert await matches(hub, selector, topic) is does


@pytest.mark.parametrize(
    ("selector", "topic", "does"),
    [
        ("https://example.com/{foo}/bar", "https://example.com/x/bar", True),
        ("https://example.com/{foo}/bar", "https://example.com/x/bar/baz", False),
        ("https://example.com/{foo}/bar", "https://other.example/x/bar", False),
        ("https://example.com/{foo}/bar", "xhttps://example.com/x/bar", False),
        ("/{a}/{b}", "/1/2", True),
        ("/{a}/{b}", "/1/2/3", False),
        ("/{a}", "/1/2", False),
        ("/{+a}", "/1/2", True),
    ],
)
async def test_M3_a_template_matches_whole_topics(
    hub: Server, selector: str, topic: str, does: bool
) -> None:
    assert await matches(hub, selector, topic) is does


@pytest.mark.parametrize("selector", ["/{a", "/a}", "/{}", "/{a b}", "/{=a}", "{" * 50])
async def test_M4_what_is_no_template_is_plain_text(hub: Server, selector: str) -> None:
    assert await matches(hub, selector, selector)
    assert not await matches(hub, selector, "/x")


async def private(hub: Server, query: str, by: str, *topics: str) -> bool:
    """Whether a private update of these topics comes."""
    async with subscribed(hub, query + "&topic=end", by) as stream:
        fields = [("topic", topic) for topic in topics]
        assert (await publish(hub, *fields, ("data", "it"), ("private", "on"))).status == 200
        await update(hub, "end", "end")
        return await texts(stream, 1) == ["it"]


async def test_M6_a_private_update_needs_a_selector_and_a_grant(hub: Server) -> None:
    assert await private(hub, "topic=a", bearer(subscribe=["a"]), "a")
    assert await private(hub, "topic=a", bearer(subscribe=["*"]), "a")
    assert not await private(hub, "topic=b", bearer(subscribe=["a"]), "a")
    assert not await private(hub, "topic=a", bearer(subscribe=["b"]), "a")
    assert not await private(hub, "topic=a", bearer(subscribe=[]), "a")


async def test_M6_selector_and_grant_may_match_different_topics_of_one_update(
    hub: Server,
) -> None:
    by = bearer(subscribe=["https://example.com/users/{id}"])
    topics = ("https://example.com/books/1", "https://example.com/users/7")
    assert await private(hub, "topic=" + quote("https://example.com/books/{id}"), by, *topics)
    assert not await private(hub, "topic=" + quote("https://example.com/books/{id}"), by, topics[0])


async def test_M6_without_a_token_there_is_no_private_update_and_no_error(hub: Server) -> None:
    assert not await private(hub, "topic=*", "X-None: 1", "a")


async def test_M7_what_matched_once_matches_again(hub: Server) -> None:
    async with subscribed(hub, "topic=" + quote("/{a}/{b}")) as stream:
        for topic in ("/1/2", "/1", "/1/2", "/1", "/3/4"):
            await update(hub, topic, topic)
        assert await texts(stream, 3) == ["/1/2", "/1/2", "/3/4"]
