"""One subscription: its configuration, its streams and its current wake."""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from fastsse.errors import BadRequest
from fastsse.events import check_topic
from fastsse.streamstate import position_text, read_position
from fastsse.wakes.globs import compile_glob

__all__ = ["LEASE_MS", "LINKS_MAX", "Link", "Subscription", "Wake", "read_config"]

LEASE_MS: Final = 30_000
LEASE_MS_MIN: Final = 1_000
LEASE_MS_MAX: Final = 600_000
#: Streams of one subscription.
LINKS_MAX: Final = 10_000
_NAME_BYTES_MAX: Final = 1_024
_URL_BYTES_MAX: Final = 2_048
_MEMBERS: Final = frozenset(
    {"type", "pattern", "streams", "webhook", "wake_stream", "lease_ttl_ms", "description"}
)


@dataclass(slots=True)
class Link:
    """One stream of a subscription: the place up to which it was processed, and how it was
    linked: by name, by a pattern, or both."""

    acked: int
    is_explicit: bool = False
    is_glob: bool = False


@dataclass(slots=True)
class Wake:
    """A wake that is not done.

    Attributes:
        id: unique.
        tails: the ends of the streams when it was made.
        holder: the worker that claimed it, or the webhook that took it; None: none yet.
        until_ms: when its lease ends, in unix milliseconds; None: it has none yet.
    """

    id: str
    tails: dict[str, int]
    holder: str | None = None
    until_ms: int | None = None

    def kept(self) -> list[object] | None:
        """The stored form; None: no worker holds it. Then a restart makes a new one."""
        tails = {path: position_text(tail) for path, tail in self.tails.items()}
        return None if self.holder is None else [self.id, tails, self.holder, self.until_ms]


@dataclass(slots=True)
class Subscription:
    """A subscription.

    Attributes:
        id: chosen by the client.
        config: the requested configuration, normalized.
        base: the URL of all streams, without a slash at its end.
        created_at: the time in the form of the protocol.
        links: its streams, by path.
        generation: of the newest wake.
        tries: deliveries in a row that failed.
        next_ms: when the next is due, in unix milliseconds.
        wake: the current one; None: it is idle.
    """

    id: str
    config: dict[str, Any]
    base: str
    created_at: str
    links: dict[str, Link] = field(default_factory=dict)
    generation: int = 0
    tries: int = 0
    next_ms: int = 0
    wake: Wake | None = None
    glob: re.Pattern[str] | None = None

    def __post_init__(self) -> None:
        if self.config["pattern"] is not None:
            self.glob = compile_glob(self.config["pattern"])

    @property
    def lease_ms(self) -> int:
        """How long a lease is held."""
        return int(self.config["lease_ttl_ms"])

    @property
    def webhook(self) -> str | None:
        """The URL that is called; None: a stream is written to."""
        url = self.config["webhook"]
        return None if url is None else str(url)

    def encode(self) -> bytes:
        """The stored form. A wake that no worker holds is not stored: a restart makes a new one."""
        links = [
            [path, position_text(one.acked), one.is_explicit, one.is_glob]
            for path, one in self.links.items()
        ]
        kept = {"config": self.config, "base": self.base, "at": self.created_at, "links": links}
        return orjson.dumps(
            {
                **kept,
                "generation": self.generation,
                "tries": self.tries,
                "next": self.next_ms,
                "wake": None if self.wake is None else self.wake.kept(),
            }
        )

    @classmethod
    def decode(cls, name: str, text: bytes) -> "Subscription":
        """What `encode` wrote. Raises ValueError."""
        try:
            kept = orjson.loads(text)
            links = {
                path: Link(read_position(acked), is_explicit, is_glob)
                for path, acked, is_explicit, is_glob in kept["links"]
            }
            one = cls(name, kept["config"], kept["base"], kept["at"], links, kept["generation"])
            one.tries, one.next_ms = kept["tries"], kept["next"]
            if kept.get("wake") is not None:
                wake_id, tails, holder, until_ms = kept["wake"]
                places = {path: read_position(tail) for path, tail in tails.items()}
                one.wake = Wake(wake_id, places, holder, until_ms)
        except (KeyError, TypeError, BadRequest):
            raise ValueError("not a subscription") from None
        return one


def read_config(asked: object) -> dict[str, Any]:
    """The configuration that a request asks for, normalized. Raises BadRequest."""
    if not isinstance(asked, dict):
        raise BadRequest("body", "must be a JSON object")
    unknown = next((name for name in asked if name not in _MEMBERS), None)
    if unknown is not None:
        raise BadRequest(
            str(unknown)[:64], f"is not known; known are {', '.join(sorted(_MEMBERS))}"
        )
    kind = asked.get("type")
    if kind not in ("webhook", "pull-wake"):
        raise BadRequest("type", "must be webhook or pull-wake")
    pattern, streams = asked.get("pattern"), asked.get("streams")
    if pattern is None and not streams:
        raise BadRequest("pattern", "or streams must be given")
    if pattern is not None:
        compile_glob(pattern)
    lease = asked.get("lease_ttl_ms", LEASE_MS)
    if type(lease) is not int or not LEASE_MS_MIN <= lease <= LEASE_MS_MAX:
        raise BadRequest("lease_ttl_ms", f"must be {LEASE_MS_MIN} to {LEASE_MS_MAX}")
    description = asked.get("description", "")
    if not isinstance(description, str) or len(description) > _NAME_BYTES_MAX:
        raise BadRequest("description", f"must be text of at most {_NAME_BYTES_MAX} characters")
    is_webhook = kind == "webhook"
    return {
        "type": kind,
        "pattern": pattern,
        "streams": sorted(set(read_paths(streams if streams is not None else []))),
        "webhook": _url(asked.get("webhook")) if is_webhook else None,
        "wake_stream": None if is_webhook else _path(asked.get("wake_stream"), "wake_stream"),
        "lease_ttl_ms": lease,
        "description": description,
    }


def read_paths(value: object) -> list[str]:
    """A list of stream paths. Raises BadRequest."""
    if not isinstance(value, list) or len(value) > LINKS_MAX:
        raise BadRequest("streams", f"must be a list of at most {LINKS_MAX} paths")
    return [_path(one, "streams") for one in value]


def _path(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadRequest(name, "must be the path of a stream")
    try:
        return check_topic(value.strip("/"))
    except BadRequest as error:
        raise BadRequest(name, error.detail) from None


def _url(value: object) -> str:
    url = value.get("url") if isinstance(value, dict) else None
    if not isinstance(url, str) or not 0 < len(url) <= _URL_BYTES_MAX:
        raise BadRequest("webhook.url", f"must be a URL of at most {_URL_BYTES_MAX} characters")
    return url
