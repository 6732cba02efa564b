"""Webhooks of subscriptions: which URLs may be called, and one call."""

import ipaddress
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import orjson

from fastsse.outbound import AddressGuard, OutboundClient, OutboundError, OutboundOptions
from fastsse.outbound.guard import Network
from fastsse.wakes.keys import WakeKeys

__all__ = ["WakeCalls"]

_TIMEOUT_S: Final = 10.0


class WakeCalls:
    """Calls webhooks. Loop thread only.

    Arguments:
        allowed: private networks that may be reached, also without TLS.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed: Final = AddressGuard(allowed)
        self._inside: Final = tuple(allowed)
        self._client: OutboundClient | None = None

    def objection(self, url: str) -> str | None:
        """Why a URL may not be called, judged by its text; None: it may. Each call checks the
        addresses of its host name too."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            return "The URL is not valid."
        if not host or parts.username is not None or parts.scheme not in ("http", "https"):
            return "The URL must be https, and have a host and no user."
        address = "127.0.0.1" if host == "localhost" else host
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return None if parts.scheme == "https" else "The URL must be https."
        is_inside = any(parsed in network for network in self._inside)
        if parts.scheme == "http" and not is_inside:
            return "The URL must be https."
        return None if self._allowed.allows(address) else "The address is not public."

    async def call(self, url: str, body: bytes, keys: WakeKeys) -> bool | None:
        """Whether the receiver says that it is done; None: the call failed."""
        if self._client is None:
            options = OutboundOptions(timeout_s=_TIMEOUT_S)
            self._client = OutboundClient(self._allowed, None, options)
        headers = {"Webhook-Signature": keys.signature(body, int(time.time()))}
        try:
            answer = await self._client.post_once(url, body, headers=headers)
        except OutboundError:
            return None
        try:
            said = orjson.loads(answer.body)
        except ValueError:
            return False
        return isinstance(said, dict) and said.get("done") is True

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()
