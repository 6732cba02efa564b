"""What a token says, and what a server thinks of it."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fastsse.auth.rights import Rights
from fastsse.auth.token import Token, open_token, read_payload
from fastsse.auth.verifier import Side
from fastsse.errors import Unauthorised

__all__ = ["Judged", "read_claims"]


class Judged(NamedTuple):
    """A token's content, or why it can't be read; for each side the rights or why not. Without a
    key there are no sides."""

    content: Token | str
    claims: dict[str, Any]
    verdicts: Mapping[Side, Rights | str]

    @property
    def is_taken(self) -> bool:
        """Whether a side takes it; without sides, whether it can be read."""
        verdicts = self.verdicts.values()
        has_rights = any(isinstance(verdict, Rights) for verdict in verdicts)
        return has_rights if verdicts else not isinstance(self.content, str)

    def members(self, topics: Iterable[str] = ()) -> dict[str, Any]:
        """All of it as JSON has it, and what may be done with topics."""
        said = isinstance(self.content, Token)
        return {
            "alg": self.content.algorithm if isinstance(self.content, Token) else None,
            "kid": self.content.kid if isinstance(self.content, Token) else None,
            "claims": self.claims if said else None,
            "unreadable": None if said else self.content,
            "sides": {side: _side(side, verdict) for side, verdict in self.verdicts.items()},
            "topics": {topic: self.topic(topic) for topic in topics},
        }

    def topic(self, topic: str) -> dict[str, bool]:
        """What may be done with a topic."""
        publisher, subscriber = self.verdicts.get("publish"), self.verdicts.get("subscribe")
        return {
            "publish": isinstance(publisher, Rights) and publisher.covers_publish([topic]),
            "read private events": isinstance(subscriber, Rights)
            and subscriber.covers_subscribe([topic]),
        }


def read_claims(raw: bytes) -> tuple[Token | str, dict[str, Any]]:
    """The content of a token, its signature not checked, or the reason why it can't be read."""
    try:
        content = open_token(raw)
        return content, read_payload(content)
    except Unauthorised as error:
        return error.detail, {}


def _side(side: Side, verdict: Rights | str) -> dict[str, Any]:
    if isinstance(verdict, str):
        return {"taken": False, "why": verdict}
    return {"taken": True, "grants": getattr(verdict, side), "ends_s": verdict.expires_s}
