"""`[[webhooks]]`: events that are sent to addresses of other services."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from fastsse.config.kinds import (
    Count,
    Networks,
    OptionGroup,
    Seconds,
    Selectors,
    Switch,
    ValueKind,
    option,
    read_rules,
    repeated_names,
)
from fastsse.config.sources import FILE_PREFIX, FilterText, Secrets, SourceName
from fastsse.config.store import MEMORY

__all__ = ["WEBHOOKS", "WEBHOOK_URL", "WebhookOptions", "WebhookRule", "webhook_conflicts"]

if TYPE_CHECKING:
    from fastsse.config.settings import Config

WEBHOOK_URL = ValueKind("URL", "an http:// or https:// URL without a login")
LETTER_FILE = ValueKind("FILE", "file: and a path")
WEBHOOKS = ValueKind("JSON", "a list of at most 100 tables with name, url, topics and secrets")


def check_url(url: str) -> str:
    """A URL that can be sent to, and shown."""
    parts = urlsplit(url)
    _ = parts.port
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("must be an http URL")
    if not re.fullmatch(r"[\x21-\x7e]+", url, re.ASCII) or parts.fragment:
        raise ValueError("must be an http URL")
    return url


def check_letters(path: str) -> str:
    """A file of dead letters."""
    if not path.startswith(FILE_PREFIX) or len(path) == len(FILE_PREFIX):
        raise ValueError("must be file: and a path")
    return path


class WebhookRule(BaseModel):
    """One address, and the events that are sent there."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: SourceName = option(..., "Names the webhook in logs and metrics.")
    url: Annotated[str, AfterValidator(check_url), WEBHOOK_URL] = option(
        ..., "Where the events are sent."
    )
    topics: Selectors = option(..., "Topics or templates such as `orders/{id}`; `*` is all.")
    secrets: Annotated[Secrets, Field(min_length=1)] = option(
        ...,
        "Sign the requests (Standard Webhooks): the first one and, while it is replaced, the next.",
    )
    filter: FilterText | None = option(
        None, "An expression; events that do not match are left out."
    )
    private: Switch = option(False, "Private events are sent too.")
    batch: Annotated[Count, Field(ge=1, le=1_000)] = option(100, "The most events of a request.")
    timeout: Annotated[Seconds, Field(ge=0.1, le=120)] = option(10.0, "How long one try may take.")
    give_up: Annotated[Seconds, Field(ge=1, le=30 * 24 * 3600)] = option(
        24 * 3600.0, "How long a batch is tried."
    )
    dead_letter: Annotated[str, AfterValidator(check_letters), LETTER_FILE] | None = option(
        None, "A file for events that were refused or given up. Without it they are only logged."
    )


class WebhookOptions(OptionGroup):
    """Events that are sent to other services."""

    title = "Webhooks"

    webhooks: Annotated[tuple[WebhookRule, ...], BeforeValidator(read_rules), WEBHOOKS] = option(
        (),
        "Addresses that events are sent to: name, url, topics, secrets, filter, private, batch, "
        "timeout, give_up, dead_letter. Needs a store that survives a restart. In the file: "
        "[[webhooks]].",
        max_length=100,
    )
    outbound_networks: Networks = option(
        (),
        "Networks that webhooks may reach although they are not public, such as 10.0.0.0/8. "
        "Repeat it for several.",
    )


_UNIX: Final = "unix"


def webhook_conflicts(config: "Config") -> Iterator[tuple[str, str]]:
    """Conflicts between webhooks, and between webhooks and the store."""
    yield from repeated_names("webhooks", config.webhooks)
    if config.webhooks and config.store == MEMORY:
        yield (
            "webhooks",
            "left out with store = memory, because the place of each is kept over restarts",
        )
    if _UNIX in config.outbound_networks:
        yield "outbound_networks", "IP addresses or networks"
