"""What is asked: the stream that receives nothing."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Question"]


def _is_same(grant: str, topic: str) -> bool:
    return grant in ("*", topic)


@dataclass(frozen=True, slots=True)
class Question:
    """A stream that receives nothing.

    Attributes:
        url: where it is opened, as the client does it.
        topic: what it asks for: a topic or a template.
        token: the client's.
        origin: the origin of its page; None: no page.
        operator: a token with a console role, or the console password; None: `token` may have one.
        event_id: where it resumes.
        tries_path: whether events are published to topics of the trial's own.
        patience_s: how long is waited for what should come at once.
        covers: whether a grant covers a topic.
        headers: names of request headers that the page sends.
        publish_url: where the publisher publishes; None: at the same address.
    """

    url: str
    topic: str
    token: str | None = None
    origin: str | None = None
    operator: str | None = None
    event_id: str | None = None
    tries_path: bool = True
    patience_s: float = 5.0
    covers: Callable[[str, str], bool] = _is_same
    publish_url: str | None = None
    headers: tuple[str, ...] = ()
