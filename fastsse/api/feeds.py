"""`POST /feeds`: stores a selection that is too long for a URL; `GET /events?feed=ID` reads it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import orjson

from fastsse.api.access import CREDENTIAL_NAMES, Access
from fastsse.auth.rights import Rights
from fastsse.control.feeds import FeedBounds, Feeds, FeedTopics
from fastsse.errors import BadRequest, FastsseError, InvalidSubscription, Unavailable
from fastsse.events import check_topic
from fastsse.http.problems import Problem, retry_problem
from fastsse.http.request import Request
from fastsse.http.responses import Response, json_response
from fastsse.http.router import Exchange, Paths, Route, admit_length
from fastsse.hub.channels import Channels
from fastsse.subscriptions import ANY

__all__ = [
    "FEED_BYTES_MAX",
    "FEED_TOPICS_MAX",
    "UNKNOWN_FEED",
    "FeedsInUse",
    "feed_bounds",
    "feed_of_topics",
    "feed_routes",
    "read_feed",
    "unread",
]

FEED_TOPICS_MAX: Final = 10_000
#: A selection is one message between processes.
FEED_BYTES_MAX: Final = 512 * 1024
UNKNOWN_FEED: Final = "There is no such feed. Store it again by POST /feeds."
CHANNELS_A_STEP: Final = 1_000
_FORM: Final = 'must be a JSON list of topics: ["a", "b/{id}"]'


def feed_bounds(count: int, total_bytes: int, life_s: float) -> FeedBounds:
    """The bounds that the options say."""
    return FeedBounds(count, total_bytes, round(life_s * 1000))


def feed_routes(feeds: Feeds, access: Access) -> Paths:
    """`/feeds`.

    Arguments:
        feeds: where selections are stored.
        access: decides who may store a selection: each client that may subscribe.
    """

    def make(request: Request, exchange: Exchange) -> None:
        def allowed(rights: Rights | None) -> None:
            topics = read_feed(request.body)
            feeds.store(topics, stored(topics))

        def stored(topics: FeedTopics) -> Callable[[FastsseError | None], None]:
            def answered(outcome: FastsseError | None) -> None:
                if outcome is None:
                    exchange.respond(_answer(topics, feeds.life_s))
                else:
                    exchange.fail(unread(outcome))

            return answered

        access.subscriber(request, exchange, allowed)

    return {b"/feeds": {b"POST": Route(make, _admit)}}


def read_feed(body: bytes | bytearray) -> FeedTopics:
    """The selection in a body: a list of topics, templates and `*`, or of objects with a `topic`.

    Raises InvalidSubscription that names the item; Problem (413) for too many bytes.
    """
    try:
        items = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidSubscription("body", _FORM) from None
    if not isinstance(items, list) or not items:
        raise InvalidSubscription("body", _FORM)
    if len(items) > FEED_TOPICS_MAX:
        detail = f"must have at most {FEED_TOPICS_MAX} topics; got {len(items)}"
        raise InvalidSubscription("body", detail)
    return _made(items)


def feed_of_topics(topics: Iterable[str]) -> FeedTopics:
    """The feed of 1 to FEED_TOPICS_MAX topics, templates and `*`. Raises InvalidSubscription."""
    items = list(topics)
    if not 0 < len(items) <= FEED_TOPICS_MAX:
        detail = f"must have 1 to {FEED_TOPICS_MAX} topics; got {len(items)}"
        raise InvalidSubscription("feed", detail)
    return _made(items)


def _made(items: Sequence[object]) -> FeedTopics:
    topics = FeedTopics.of(_topics(items))
    if len(topics.pack()) > FEED_BYTES_MAX:
        raise Problem(413, f"A feed may have at most {FEED_BYTES_MAX} bytes.", field="body")
    return topics


def unread(error: FastsseError) -> FastsseError:
    """The answer when feeds can't be stored or read now."""
    if not isinstance(error, Unavailable):
        return error
    return retry_problem(error, "The feed can't be stored or read now. Retry the request later.")


class FeedsInUse:
    """Reports the feeds of open streams as used, so that none ends while a stream has it.

    Arguments:
        feeds: takes the reports.
        channels: those of all streams.
    """

    def __init__(self, feeds: Feeds, channels: Channels) -> None:
        self._feeds = feeds
        self._channels = channels
        self._next_s = 0.0
        self._place: int | None = None

    def step(self, now_s: float) -> None:
        """Looks at some channels; call it once a second. `now_s` is a clock that only goes
        forward. O(CHANNELS_A_STEP)."""
        if self._place is None:
            if now_s < self._next_s:
                return
            self._next_s = now_s + self._feeds.use_every_s
            self._place = 0
        found, self._place = self._channels.some(self._place, CHANNELS_A_STEP)
        for channel in found:
            if isinstance(channel.selectors, FeedTopics):
                self._feeds.use(channel.selectors)


def _admit(request: Request) -> None:
    """Checks the head. Raises Problem (400, 411, 413)."""
    for name, _ in request.target.pairs:
        if name not in CREDENTIAL_NAMES:
            raise BadRequest(name, "is no parameter of POST /feeds; give it to GET /events")
    admit_length(request, 2 * FEED_BYTES_MAX, f"A feed may have at most {FEED_BYTES_MAX} bytes.")


def _topics(items: Sequence[object]) -> list[str]:
    topics = [_topic(index, item) for index, item in enumerate(items)]
    return [ANY] if ANY in topics else topics


def _topic(index: int, item: object) -> str:
    where = f"body[{index}]"
    if isinstance(item, dict):
        for name in item:
            if name != "topic":
                detail = f"{name} holds for all topics; give it to GET /events"
                raise InvalidSubscription(where, detail)
        item = item.get("topic")
    if not isinstance(item, str):
        raise InvalidSubscription(where, "must be a topic")
    try:
        return check_topic(item, InvalidSubscription)
    except InvalidSubscription as error:
        raise InvalidSubscription(where, error.detail) from None


def _answer(topics: FeedTopics, life_s: float) -> Response:
    members = {"feed": topics.feed, "topics": len(topics), "expires_in_s": life_s}
    return json_response(orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE))
