"""Tokens and private events. Every check needs an adapter with a table `[tokens]`."""

from __future__ import annotations

from typing import Any

from sse_conformance.registry import Case, check, expect

END = "the-end"
RFC = "RFC 8725"


def _refused(case: Case, token: str, what: str) -> str:
    """A publish with this token is refused and reaches no stream."""
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream:
        answer = hub.publish(topic, "forged", token=token)
        expect(not answer.is_accepted, f"{what} is answered with {answer.status}")
        hub.send(topic, END)
        found = [message.data for message in stream.until(END)]
        expect(not found, f"received {found}")
    return f"answered with {answer.status}"


def _publish_token(case: Case, **changes: Any) -> str:
    """For every topic of the next check step."""
    return case.hub.adapter.publish_token(["*"], **changes)


@check("auth.publish_without", "A publish without credentials is refused", needs=["publish_auth"])
def publish_without(case: Case) -> str:
    return _refused(case, "", "a publish without credentials")


@check("auth.signature", "A token with another signature is refused", source=RFC,
       needs=["publish_tokens"])  # fmt: skip
def signature(case: Case) -> str:
    return _refused(case, _publish_token(case, key="another-key" * 8), "another signature")


@check("auth.algorithm_none", "A token without a signature is refused", source=RFC,
       needs=["publish_tokens"])  # fmt: skip
def algorithm_none(case: Case) -> str:
    return _refused(case, _publish_token(case, algorithm="none"), "a token without signature")


@check("auth.expired", "An expired token is refused", source="RFC 7519 4.1.4",
       needs=["publish_tokens"])  # fmt: skip
def expired(case: Case) -> str:
    return _refused(case, _publish_token(case, lifetime_s=-3600), "an expired token")


@check("auth.publish_scope", "A publisher's token holds for its topics only",
       needs=["publish_tokens"])  # fmt: skip
def publish_scope(case: Case) -> str:
    token = case.hub.adapter.publish_token([f"{case.hub.topic()}-of-another"])
    return _refused(case, token, "a token for another topic")


@check("auth.private", "A private event reaches those with a right to it, and no other",
       needs=["private"])  # fmt: skip
def private(case: Case) -> None:
    hub, topic, other = case.hub, case.hub.topic(), case.hub.topic()
    granted = hub.adapter.listen_token([topic])
    elsewhere = hub.adapter.listen_token([other])
    with (
        hub.listen(topic) as anonymous,
        hub.listen(topic, token=granted) as reader,
        hub.listen(topic, token=elsewhere) as stranger,
    ):
        answer = hub.publish(topic, "secret", private=True)
        expect(answer.is_accepted, f"a private publish is answered with {answer.status}")
        hub.send(topic, END)
        for stream, wanted in ((anonymous, []), (reader, ["secret"]), (stranger, [])):
            found = [message.data for message in stream.until(END)]
            expect(found == wanted, f"received {found} instead of {wanted}")


@check("auth.private_resume", "A resume gives no private event without a right",
       needs=["private", "resume"])  # fmt: skip
def private_resume(case: Case) -> None:
    hub, topic = case.hub, case.hub.topic()
    with hub.listen(topic) as stream:
        hub.send(topic, "first")
        stream.next()
        place = stream.place
    hub.publish(topic, "secret", private=True)
    hub.send(topic, END)
    with hub.listen(topic, after=place) as stream:
        found = [message.data for message in stream.until(END)]
        expect(not found, f"received {found}")
    token = hub.adapter.listen_token([topic])
    with hub.listen(topic, after=place, token=token) as stream:
        found = [message.data for message in stream.until(END)]
        expect(found == ["secret"], f"with a right: received {found}")


@check("auth.bad_listener", "A subscriber's token with another signature gets no stream of its own",
       source=RFC, needs=["listen_tokens"])  # fmt: skip
def bad_listener(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    token = hub.adapter.listen_token([topic], key="another-key" * 8)
    with hub.subscribe(topic, token=token) as stream:
        if stream.status != 200:
            expect(400 <= stream.status < 500, f"answered with {stream.status}")
            return f"answered with {stream.status}"
        hub.publish(topic, "secret", private=True)
        hub.send(topic, END)
        stream.settle()
        found = [message.data for message in stream.taken()]
        expect(not found, f"received {found}")
        return "the stream ends" if stream.is_ended else "a stream without events"


@check("auth.expiry_ends", "A stream ends with its token", source="RFC 7519 4.1.4",
       needs=["listen_tokens", "expiry"], is_long=True)  # fmt: skip
def expiry_ends(case: Case) -> str:
    hub, topic = case.hub, case.hub.topic()
    token = hub.adapter.listen_token([topic], lifetime_s=3)
    with hub.listen(topic, token=token) as stream:
        stream.to_end(30.0)
        return "cut" if stream.was_cut else "ended with a last chunk"
