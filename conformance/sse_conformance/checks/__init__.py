"""The checks, a module for each group; importing this registers all of them, in their order."""

from sse_conformance.checks import (  # noqa: F401, I001
    wire,
    clients,
    resume,
    fanout,
    slow,
    overload,
    auth,
    drain,
    http,
    proxies,
)
