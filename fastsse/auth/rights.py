"""What the bearer of a token may do: made once from a verified token, shared, never changed."""

import secrets
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import orjson

from fastsse.errors import Forbidden
from fastsse.events import RESERVED_TOPIC_PREFIX
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY

__all__ = ["ANONYMOUS", "REVOKE_TOPIC", "Claims", "Rights", "claim_hash", "is_named"]

# Whoever may publish to this topic (by its name or by *) may revoke tokens. Nobody can publish to
# it: topics that begin with $ are the server's.
REVOKE_TOPIC: Final = "$fastsse/revoke"

_KNOWN_MAX: Final = 8

# A subject's name is chosen by others; without our key none can be made that meets another's hash.
_HASH_KEY: Final = secrets.token_bytes(16)


def claim_hash(claim: str | None) -> int:
    """A `sub` or `jti` as the native core knows it: 64 bits, 0 for none.

    Keyed anew in each process: both sides of a comparison must come from the same one.
    """
    if claim is None:
        return 0
    digest = blake2b(claim.encode(), digest_size=8, key=_HASH_KEY).digest()
    return int.from_bytes(digest) or 1


#: What `Sender.attach` keeps beside a stream: the token's end in unix ms (0: none), hashes of
#: subject and token, and when it was issued (0: unknown, so older than anything).
Claims = tuple[int, int, int, int]


def is_named(claims: Claims, subject_hash: int, token_hash: int, issued_before_s: int) -> bool:
    """Whether claims meet every condition that is not 0, as in `Sender.revoke`."""
    _, subject, token, issued_s = claims
    return (
        subject_hash in (0, subject)
        and token_hash in (0, token)
        and (issued_before_s == 0 or issued_s < issued_before_s)
    )


class _Grants:
    """Selectors of one claim, arranged so that plain topics are found by one look."""

    __slots__ = ("_exact", "_templates", "any")

    def __init__(self, selectors: Sequence[str]) -> None:
        compiled = [compile_selector(text) for text in selectors]
        self.any: Final = ANY in selectors
        self._exact = frozenset(selectors)
        self._templates = tuple(one for one in compiled if not one.is_exact)

    def __contains__(self, topic: str) -> bool:
        if self.any or topic in self._exact:
            return True
        if topic.startswith(RESERVED_TOPIC_PREFIX):  # No template means those by accident.
            return False
        return any(template.matches(topic) for template in self._templates)


class Rights:
    """Grants of a token, and what is needed to end what it opened. Attributes are never assigned
    again; equal only to itself.

    Arguments:
        publish: selectors of topics that may be published to.
        subscribe: selectors of topics whose private events may be read.
        payload: any JSON value, told in subscription events.
        subject: who it is (`sub`), token_id: which token (`jti`).
        issued_s, expires_s: unix seconds; None: the token does not tell, or never ends.

    `subscribe` is sorted and without repeats; a `*` makes the others superfluous.
    """

    __slots__ = (
        "_publish",
        "_subscribe",
        "claims",
        "expires_s",
        "issued_s",
        "payload",
        "publish",
        "subject",
        "subscribe",
        "token_id",
    )

    def __init__(
        self,
        publish: Iterable[str] = (),
        subscribe: Iterable[str] = (),
        payload: object = None,
        subject: str | None = None,
        token_id: str | None = None,
        issued_s: float | None = None,
        expires_s: float | None = None,
    ) -> None:
        self.publish: Final = _simplest(publish)
        self.subscribe: Final = _simplest(subscribe)
        self.payload: Final = payload
        self.subject: Final = subject
        self.token_id: Final = token_id
        self.issued_s: Final = issued_s
        self.expires_s: Final = expires_s
        self.claims: Final[Claims] = (
            0 if expires_s is None else max(1, int(expires_s * 1000)),
            claim_hash(subject),
            claim_hash(token_id),
            0 if issued_s is None else int(issued_s),
        )
        self._publish: _Grants | None = None
        self._subscribe: _Grants | None = None

    @property
    def renewal(self) -> tuple[int, int, int]:
        """What `Sender.renew` takes: new end in unix ms, the token's hash, when it was issued."""
        expires_ms, _, token_hash, issued_s = self.claims
        return expires_ms, token_hash, issued_s

    def covers_publish(self, topics: Iterable[str]) -> bool:
        """Whether every one of the topics may be published to. O(topics x templates)."""
        grants = self._publish
        if grants is None:
            grants = self._publish = _Grants(self.publish)
        return grants.any or all(topic in grants for topic in topics)

    def check_publish(self, topics: Iterable[str]) -> None:
        """Raises Forbidden unless every one of the topics may be published to."""
        for topic in topics:
            if not self.covers_publish((topic,)):
                raise Forbidden(f"The token's mercure.publish does not cover the topic {topic}.")

    def covers_subscribe(self, topics: Iterable[str]) -> bool:
        """Whether a private event of these topics may be read: one of them is enough."""
        if self._subscribe is None:
            self._subscribe = _Grants(self.subscribe)
        return any(topic in self._subscribe for topic in topics)

    def pack(self) -> bytes:
        """All but the grants to publish, for another process of the node."""
        return orjson.dumps(
            {
                "subscribe": self.subscribe,
                "payload": self.payload,
                "subject": self.subject,
                "token_id": self.token_id,
                "issued_s": self.issued_s,
                "expires_s": self.expires_s,
            }
        )

    @classmethod
    def unpack(cls, packed: bytes) -> "Rights":
        """What `pack` made."""
        members: dict[str, Any] = orjson.loads(packed)
        return cls((), **members)

    def __repr__(self) -> str:
        return f"Rights(publish={len(self.publish)}, subscribe={len(self.subscribe)})"


def _simplest(selectors: Iterable[str]) -> tuple[str, ...]:
    given = tuple(selectors)
    return _known_simplest(given) if len(given) <= _KNOWN_MAX else _sorted(given)


def _sorted(given: tuple[str, ...]) -> tuple[str, ...]:
    wanted = set(given)
    return (ANY,) if ANY in wanted else tuple(sorted(wanted))


# Many tokens grant the same few: they share one tuple.
_known_simplest: Final = lru_cache(maxsize=4096)(_sorted)


#: A subscriber without a token, where that is allowed: public events only.
ANONYMOUS: Final = Rights()
