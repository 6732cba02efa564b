"""The rights of a token: made once from a verified token, shared, immutable."""

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

# A token that may publish to this topic (by its name or by *) may revoke tokens. No client can
# publish to it: topics that begin with $ are reserved.
REVOKE_TOPIC: Final = "$fastsse/revoke"

_KNOWN_MAX: Final = 8

# Others choose the names of subjects. Without this key they can't choose one that collides with the
# hash of another.
_HASH_KEY: Final = secrets.token_bytes(16)


def claim_hash(claim: str | None) -> int:
    """The 64-bit hash of a `sub` or `jti` for the native core; 0 for None.

    Each process has its own key, so compare only hashes from one process.
    """
    if claim is None:
        return 0
    digest = blake2b(claim.encode(), digest_size=8, key=_HASH_KEY).digest()
    return int.from_bytes(digest) or 1


#: What `Sender.attach` stores with a stream: the end of the token in unix ms (0: none), hashes of
#: subject and token, and when it was issued (0: unknown, treated as oldest).
Claims = tuple[int, int, int, int]


def is_named(claims: Claims, subject_hash: int, token_hash: int, issued_before_s: int) -> bool:
    """Whether claims match every condition that is not 0, as in `Sender.revoke`."""
    _, subject, token, issued_s = claims
    return (
        subject_hash in (0, subject)
        and token_hash in (0, token)
        and (issued_before_s == 0 or issued_s < issued_before_s)
    )


class _Grants:
    """Selectors of one claim; plain topics are found in one lookup."""

    __slots__ = ("_exact", "_templates", "any")

    def __init__(self, selectors: Sequence[str]) -> None:
        compiled = [compile_selector(text) for text in selectors]
        self.any: Final = ANY in selectors
        self._exact = frozenset(selectors)
        self._templates = tuple(one for one in compiled if not one.is_exact)

    def __contains__(self, topic: str) -> bool:
        if self.any or topic in self._exact:
            return True
        if topic.startswith(
            RESERVED_TOPIC_PREFIX
        ):  # Reserved topics need an explicit grant, not a template.
            return False
        return any(template.matches(topic) for template in self._templates)


class Rights:
    """Grants of a token, and the data to end the streams that it opened. Attributes are never
    assigned again; equal only to itself.

    Arguments:
        publish: selectors of topics that may be published to.
        subscribe: selectors of topics whose private events may be read.
        payload: any JSON value, sent in subscription events.
        subject: the claim `sub`; token_id: the claim `jti`.
        issued_s, expires_s: unix seconds; None: not in the token, or no end.
        console: what an operator may do: `read`, `act`, or nothing.

    `subscribe` is sorted and without duplicates; if it has `*`, it has no other selector.
    """

    __slots__ = (
        "_publish",
        "_subscribe",
        "claims",
        "console",
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
        console: str = "",
    ) -> None:
        self.publish: Final = _simplest(publish)
        self.subscribe: Final = _simplest(subscribe)
        self.payload: Final = payload
        self.subject: Final = subject
        self.token_id: Final = token_id
        self.issued_s: Final = issued_s
        self.expires_s: Final = expires_s
        self.console: Final = console
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
        """The arguments of `Sender.renew`: new end in unix ms, hash of the token, when it was
        issued."""
        expires_ms, _, token_hash, issued_s = self.claims
        return expires_ms, token_hash, issued_s

    def has_expired(self, now_s: float) -> bool:
        """Whether they have ended at a time, in unix seconds."""
        return self.expires_s is not None and self.expires_s <= now_s

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
        """Whether a private event of these topics may be read: a grant for one of them is
        enough."""
        if self._subscribe is None:
            self._subscribe = _Grants(self.subscribe)
        return any(topic in self._subscribe for topic in topics)

    def pack(self) -> bytes:
        """Bytes without the grants to publish, for another process of the node."""
        members = {
            "subscribe": self.subscribe,
            "payload": self.payload,
            "subject": self.subject,
            "token_id": self.token_id,
            "issued_s": self.issued_s,
            "expires_s": self.expires_s,
        }
        # Left out without a role: a node of an earlier version reads the bytes too.
        return orjson.dumps({**members, "console": self.console} if self.console else members)

    @classmethod
    def unpack(cls, packed: bytes) -> "Rights":
        """The rights from the bytes of `pack`."""
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


# Many tokens have equal grants: they share one tuple.
_known_simplest: Final = lru_cache(maxsize=4096)(_sorted)


#: A subscriber without a token, if that is allowed: public events only.
ANONYMOUS: Final = Rights()
