"""`[[hooks]]`: addresses that are notified of streams; and the one that decides who may do what."""

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fastsse.config.kinds import (
    Count,
    OptionGroup,
    Seconds,
    Selectors,
    ValueKind,
    duration,
    option,
    read_list,
    read_rules,
    repeated_names,
)
from fastsse.config.sources import Secrets, SourceName
from fastsse.config.webhooks import WEBHOOK_URL, check_url

__all__ = [
    "AUTHORIZE_HEADERS",
    "HOOKS",
    "HOOK_KINDS",
    "HOOK_LISTS",
    "OPERATIONS",
    "HookKind",
    "HookOptions",
    "HookRule",
    "Operation",
    "hook_conflicts",
]

if TYPE_CHECKING:
    from fastsse.config.settings import Config

HOOKS = ValueKind("JSON", "a list of at most 20 tables with name, url and secrets")
HookKind = Literal["connect", "disconnect", "first", "last"]
HOOK_KINDS: Final[tuple[HookKind, ...]] = ("connect", "disconnect", "first", "last")
Operation = Literal["subscribe", "publish"]
OPERATIONS: Final[tuple[Operation, ...]] = ("subscribe", "publish")
#: Headers that the callback may be sent.
AUTHORIZE_HEADERS: Final = ("authorization", "cookie", "origin", "referer", "user-agent")
HOOK_NAMES = ValueKind("HOOK", f"some of {', '.join(HOOK_KINDS)}", ",".join)
OPERATION_NAMES = ValueKind("OPERATION", "subscribe, publish or both", ",".join)
SENT_HEADERS = ValueKind("NAME", f"some of {', '.join(AUTHORIZE_HEADERS)}", ",".join)
#: Kinds of lists, whose flags may be repeated.
HOOK_LISTS: Final = (HOOK_NAMES, OPERATION_NAMES, SENT_HEADERS)
_NODE = ValueKind("NAME", "1 to 128 visible characters")


def _one_of(allowed: tuple[str, ...]) -> AfterValidator:
    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        chosen = tuple(dict.fromkeys(name.lower() for name in names))
        if not set(chosen) <= set(allowed):
            raise ValueError("must be of the list")
        return chosen

    return AfterValidator(check)


class HookRule(BaseModel):
    """One address that is notified of streams of this node."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: SourceName = option(..., "Names the hook in logs and metrics.")
    url: Annotated[str, AfterValidator(check_url), WEBHOOK_URL] = option(
        ..., "Where the notices are sent."
    )
    secrets: Annotated[Secrets, Field(min_length=1)] = option(
        ...,
        "Sign the requests (Standard Webhooks): the first one and, while it is replaced, the next.",
    )
    on: Annotated[
        tuple[str, ...],
        BeforeValidator(read_list),
        Field(min_length=1),
        _one_of(HOOK_KINDS),
        HOOK_NAMES,
    ] = option(
        HOOK_KINDS,
        "`connect` and `disconnect` of each stream; `first` and `last` subscriber of each topic.",
    )
    topics: Selectors = option(("*",), "Topics or templates such as `orders/{id}`; `*` is all.")
    linger: Annotated[Seconds, Field(ge=0, le=24 * 3600)] = option(
        5.0, "How long a topic has no subscriber before that is sent as `last`."
    )
    node: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$"), _NODE] | None = option(
        None, "Names this node in requests. Without it the name of the machine."
    )
    batch: Annotated[Count, Field(ge=1, le=1_000)] = option(100, "The most notices of a request.")
    timeout: Annotated[Seconds, Field(ge=0.1, le=120)] = option(10.0, "How long one try may take.")
    give_up: Annotated[Seconds, Field(ge=1, le=24 * 3600)] = option(
        3600.0, "How long notices of `connect` and `disconnect` are tried."
    )

    @property
    def node_name(self) -> str:
        """What names this node in requests."""
        return self.node or socket.gethostname()


class HookOptions(OptionGroup):
    """Other services are notified of streams, and asked who may open them."""

    title = "Hooks"

    hooks: Annotated[tuple[HookRule, ...], BeforeValidator(read_rules), HOOKS] = option(
        (),
        "Addresses that are notified of streams and of the first and last subscriber of topics: "
        "name, url, secrets, on, topics, linger, node, batch, timeout, give_up. In the file: "
        "[[hooks]].",
        max_length=20,
    )
    authorize_url: Annotated[str, AfterValidator(check_url), WEBHOOK_URL] | None = option(
        None,
        "Asked by a signed POST whether a client may subscribe or publish to topics. Without an "
        "answer no client may.",
    )
    authorize_secrets: Secrets = option(
        (), "Sign the requests to authorize_url (Standard Webhooks). Repeat it for several."
    )
    authorize_operations: Annotated[
        tuple[str, ...],
        BeforeValidator(read_list),
        Field(min_length=1),
        _one_of(OPERATIONS),
        OPERATION_NAMES,
    ] = option(OPERATIONS, "What authorize_url is asked about.")
    authorize_headers: Annotated[
        tuple[str, ...],
        BeforeValidator(read_list),
        _one_of(AUTHORIZE_HEADERS),
        SENT_HEADERS,
    ] = option(
        (),
        "Headers of the client that authorize_url is sent. Answers are kept for equal ones.",
    )
    authorize_timeout: Seconds = duration(
        "2s", "How long an answer of authorize_url may take.", least="50ms", most="30s"
    )
    authorize_cache: Seconds = duration(
        "30s",
        "How long an answer of authorize_url is used again; the member ttl of an answer shortens "
        "it.",
        least="0s",
        most="1h",
    )


_OF_THE_CALLBACK: Final = {
    "authorize_secrets", "authorize_operations", "authorize_headers", "authorize_timeout",
    "authorize_cache",
}  # fmt: skip


def hook_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """Conflicts between hooks, and between the options of the callback."""
    yield from repeated_names("hooks", config.hooks)
    if config.authorize_url is not None and not config.authorize_secrets:
        yield "authorize_secrets", "set with authorize_url, because requests to it are signed"
    given = config.model_fields_set & _OF_THE_CALLBACK
    if config.authorize_url is None and given:
        defaults = type(config)()
        for name in sorted(given):
            if getattr(config, name) != getattr(defaults, name):
                yield name, "left out without authorize_url"
