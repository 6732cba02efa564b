"""Subscriptions and wakes as JSON of the protocol."""

import time

from fastsse.streamoffsets import format_offset
from fastsse.wakes.subscription import Link, Subscription, Wake

__all__ = ["callback_body", "listed", "shown", "wake_message"]


def listed(one: Subscription, tails: dict[str, int]) -> list[dict[str, object]]:
    """The streams of a wake, with their ends, as the protocol lists them."""
    return [
        {
            **_link(path, one.links[path]),
            "tail_offset": format_offset(tail),
            "has_pending": True,
        }
        for path, tail in tails.items()
    ]


def shown(one: Subscription, kid: str) -> dict[str, object]:
    """A subscription; `kid` is the key that signs its webhooks."""
    config, webhook = one.config, None
    if one.webhook is not None:
        jwks_url = f"{one.base}/__ds/jwks.json"
        webhook = {
            "url": one.webhook,
            "signing": {"alg": "ed25519", "kid": kid, "jwks_url": jwks_url},
        }
    return {
        "id": one.id,
        "subscription_id": one.id,
        "type": config["type"],
        "pattern": config["pattern"],
        "streams": [_link(path, link) for path, link in one.links.items()],
        "webhook": webhook,
        "wake_stream": config["wake_stream"],
        "lease_ttl_ms": config["lease_ttl_ms"],
        "created_at": one.created_at,
        "status": "failed" if one.tries else "active",
        "description": config["description"],
    }


def wake_message(one: Subscription, path: str) -> dict[str, object]:
    """The event of a new wake in the wake stream; `path` is a stream with new content."""
    wake = {"type": "wake", "subscription_id": one.id, "stream": path}
    return {**wake, "generation": one.generation, "ts": int(time.time() * 1000)}


def callback_body(one: Subscription, wake: Wake, token: str) -> dict[str, object]:
    """The request to a webhook; `token` is that of the wake."""
    return {
        "subscription_id": one.id,
        "wake_id": wake.id,
        "generation": one.generation,
        "streams": listed(one, wake.tails),
        "callback_url": f"{one.base}/__ds/subscriptions/{one.id}/callback",
        "callback_token": token,
    }


def _link(path: str, link: Link) -> dict[str, object]:
    kind = "explicit" if link.is_explicit else "glob"
    return {"path": path, "link_type": kind, "acked_offset": format_offset(link.acked)}
