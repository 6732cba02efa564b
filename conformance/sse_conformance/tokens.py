"""Signed tokens (RFC 7515, RFC 7519), with HS256 and the standard library alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any


def signed(claims: dict[str, Any], key: str, *, algorithm: str = "HS256") -> str:
    """A token; with the algorithm `none` it has no signature."""
    head = _part(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    text = f"{head}.{_part(json.dumps(claims).encode())}"
    if algorithm == "none":
        return f"{text}."
    return f"{text}.{_part(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest())}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
