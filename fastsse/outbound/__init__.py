"""Outbound HTTP: what the server sends to addresses that others may choose.

One place for the checks that every such request needs: no address inside the network unless it is
allowed (`guard`), signatures (`signing`), deadlines and retries (`client`).
"""

from fastsse.outbound.client import Answer, OutboundClient, OutboundError, OutboundOptions
from fastsse.outbound.guard import AddressGuard, AddressRefused
from fastsse.outbound.signing import InvalidSignature, Signer

__all__ = [
    "AddressGuard",
    "AddressRefused",
    "Answer",
    "InvalidSignature",
    "OutboundClient",
    "OutboundError",
    "OutboundOptions",
    "Signer",
]
