"""Publishing: statements P1 to P14."""

import re
from urllib.parse import quote, urlencode

import pytest

from fastsse.server import Server
from tests.http.raw import connected, request
from tests.mercure.client import (
    FORM,
    HUB,
    PUBLISHER,
    ask,
    bearer,
    publish,
    subscribed,
    texts,
    update,
)

UUID7 = re.compile(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def test_P1_only_a_form_has_fields(hub: Server) -> None:
    body = urlencode({"topic": "a", "data": "x"}).encode()
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        answer = await ask(hub, "POST", HUB, f"Content-Type: {kind}", PUBLISHER, body=body)
        assert (answer.status, answer.field) == (415, "Content-Type")
        assert answer.headers["accept-post"] == "application/x-www-form-urlencoded"
    answer = await ask(hub, "POST", HUB, PUBLISHER, body=body)
    assert (answer.status, answer.field) == (415, "Content-Type")
    charset = FORM + "; charset=utf-8"
    assert (await ask(hub, "POST", HUB, charset, PUBLISHER, body=body)).status == 200


async def test_P2_an_update_needs_a_topic_and_goes_to_all_of_them(hub: Server) -> None:
    assert (await publish(hub, ("data", "x"))).status == 400
    async with subscribed(hub, "topic=alternate") as stream:
        await update(hub, "canonical", "x", ("topic", "alternate"))
        assert await texts(stream, 1) == ["x"]


async def test_P3_data_is_split_at_every_line_end_and_keeps_its_blanks(hub: Server) -> None:
    async with subscribed(hub, "topic=a") as stream:
        await update(hub, "a", "  one\r\ntwo\rthree\nfour")
        assert (await stream.next()).data == "  one\ntwo\nthree\nfour"
        assert b"data:   one\ndata: two\ndata: three\ndata: four\n\n" in stream.body
        assert (await publish(hub, ("topic", "a"))).status == 200
        assert b"\ndata: \n" in (stream.body + b"") or await stream.read()


@pytest.mark.parametrize("value", ["on", "", "false", "0"])
async def test_P4_private_is_private_whatever_its_value(hub: Server, value: str) -> None:
    async with subscribed(hub, "topic=a") as stream:
        await update(hub, "a", "hidden", ("private", value))
        await update(hub, "a", "open")
        assert await texts(stream, 1) == ["open"]


async def test_P5_the_hub_makes_an_id_that_holds_the_place(hub: Server) -> None:
    first, second = await update(hub, "a"), await update(hub, "a")
    assert UUID7.fullmatch(first)
    assert UUID7.fullmatch(second)
    assert first < second
    async with subscribed(hub, "topic=a", f"Last-Event-ID: {first}") as stream:
        assert (await stream.next()).last_event_id == second


@pytest.mark.parametrize("own", ['a "quoted" [one]', "https://example.com/1", "#x", "ü", "1"])
async def test_P5_a_publishers_own_id_is_returned_unchanged(hub: Server, own: str) -> None:
    async with subscribed(hub, "topic=a") as stream:
        answer = await publish(hub, ("topic", "a"), ("data", "x"), ("id", own))
        assert (answer.status, answer.body.decode()) == (200, own)
        assert (await stream.next()).last_event_id == own


@pytest.mark.parametrize("own", ["a\nb", "a\rb", "a\0b", "a\r\ndata: forged"])
async def test_P5_an_id_that_would_end_its_line_is_refused(hub: Server, own: str) -> None:
    answer = await publish(hub, ("topic", "a"), ("id", own))
    assert (answer.status, answer.field) == (400, "id")


async def test_P6_a_type_names_the_event_and_holds_no_control(hub: Server) -> None:
    async with subscribed(hub, "topic=a") as stream:
        await update(hub, "a", "x", ("type", "created"))
        assert (await stream.next()).type == "created"
    for kind in ("a\nb", "a\rb", "a\0b", "a\x1bb", "a\x7f", "a\x85b"):
        answer = await publish(hub, ("topic", "a"), ("type", kind))
        assert (answer.status, answer.field) == (400, "type")


async def test_P7_retry_is_an_unsigned_number_and_0_is_none(hub: Server) -> None:
    async with subscribed(hub, "topic=a") as stream:
        await update(hub, "a", "x", ("retry", "0"))
        await update(hub, "a", "x", ("retry", ""))
        await texts(stream, 2)
        assert b"retry:" not in stream.body
        await update(hub, "a", "x", ("retry", "2500"))
        await texts(stream, 1)
        assert b"retry: 2500\n" in stream.body
    for retry in ("-1", "+1", "1.5", "0x10", " 1", "1e3", "\u0661", str(1 << 64), "9" * 5000):
        answer = await publish(hub, ("topic", "a"), ("retry", retry))
        assert (answer.status, answer.field) == (400, "retry")


async def test_P8_fields_stand_in_the_hubs_order(hub: Server) -> None:
    async with subscribed(hub, "topic=a") as stream:
        await update(hub, "a", "x", ("id", "one"), ("type", "t"), ("retry", "2500"))
        await stream.next()
        assert stream.body == b":\nevent: t\nretry: 2500\nid: one\ndata: x\n\n"


async def test_P9_the_answer_is_the_id_and_nothing_else(hub: Server) -> None:
    answer = await publish(hub, ("topic", "a"))
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert UUID7.fullmatch(answer.body.decode())


async def test_P10_unknown_fields_mean_nothing_and_the_publisher_is_warned(hub: Server) -> None:
    answer = await publish(hub, ("topic", "a"), ("target", "b"), ("x\r\nX: [\u00fc]", "1"))
    assert answer.status == 200
    assert answer.headers["fastsse-warning"] == (
        "target is not a field of Mercure; x??X: [?] is not a field of Mercure"
    )
    assert "fastsse-warning" not in (await publish(hub, ("topic", "a"))).headers
    answer = await publish(hub, ("topic", "a"), ("type", "error"))
    assert "collides" in answer.headers["fastsse-warning"]


async def test_P10_a_field_of_our_own_interface_is_refused_and_names_mercures(hub: Server) -> None:
    answer = await publish(hub, ("topic", "a"), ("data", "x"), ("event", "tick"))
    assert (answer.status, answer.field) == (400, "event")
    assert "type" in answer.json["detail"]


async def test_P11_the_topic_that_is_not_granted_is_named(hub: Server) -> None:
    by = bearer(["a"], ["*"])
    answer = await publish(hub, ("topic", "a"), ("topic", "b"), ("data", "x"), by=by)
    assert answer.status == 401
    assert answer.json["detail"] == "The token's mercure.publish does not cover the topic b."
    answer = await ask(hub, "POST", "/events?topic=a&topic=c", by, body=b"x")
    assert answer.status == 403
    assert answer.json["detail"] == "The token's mercure.publish does not cover the topic c."


@pytest.mark.parametrize(
    ("grants", "topics", "status"),
    [
        (["*"], ["a", "b"], 200),
        (["a"], ["a"], 200),
        (["a", "/{x}"], ["a", "/b"], 200),
        (["a"], ["a", "b"], 401),
        (["b"], ["a"], 401),
        ([], ["a"], 401),
        (None, ["a"], 401),
    ],
)
async def test_P11_every_topic_must_be_granted_or_nothing_is_dispatched(
    hub: Server, grants: list[str] | None, topics: list[str], status: int
) -> None:
    async with subscribed(hub, "topic=*") as stream:
        fields = [("topic", topic) for topic in topics]
        answer = await publish(hub, *fields, ("data", "it"), by=bearer(grants, ["*"]))
        assert answer.status == status
        await update(hub, "end", "end")
        assert (await texts(stream, 1) == ["it"]) is (status == 200)


@pytest.mark.parametrize(
    "topic",
    [
        "https://example.com/.well-known/mercure/subscriptions/a/b",
        "/.well-known/mercure",
        "/.well-known/%6dercure",
        "/.well-known/../.well-known/mercure",
    ],
)
async def test_P12_the_hubs_own_topics_are_forbidden(hub: Server, topic: str) -> None:
    assert (await publish(hub, ("topic", "a"), ("topic", topic))).status == 403
    twice = urlencode({"topic": quote(topic)}).encode()
    assert (await ask(hub, "POST", HUB, FORM, PUBLISHER, body=twice)).status == 403


async def test_P13_more_topics_than_there_may_be_are_refused(hub: Server) -> None:
    topics = [("topic", str(number)) for number in range(1001)]
    answer = await publish(hub, *topics)
    assert answer.status == 400
    assert (await publish(hub, *topics[:100])).status == 200


async def test_P13_what_is_not_utf_8_is_refused(hub: Server) -> None:
    for body in (b"topic=%ff", b"topic=a&data=%ff", b"topic=a&data=%zz", b"topic=\xff"):
        assert (await ask(hub, "POST", HUB, FORM, PUBLISHER, body=body)).status == 400


async def test_P14_a_publisher_that_leaves_has_published(hub: Server) -> None:
    async with subscribed(hub, "topic=a") as stream:
        async with connected(hub) as raw:
            await raw.send(request("POST", HUB, FORM, PUBLISHER, body=b"topic=a&data=left"))
        assert await texts(stream, 1) == ["left"]
