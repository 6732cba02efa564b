"""What a new configuration changes, and which of these changes a reload can apply."""

from collections.abc import Collection
from typing import Final

from fastsse.config import (
    Config,
    HistoryOptions,
    ListenOptions,
    PresenceOptions,
    ProcessOptions,
    catalogue,
)
from fastsse.config.store import RedisOptions, StoreOptions

__all__ = [
    "NOT_LIVE",
    "RESTART",
    "adapted",
    "fixed_for_workers",
    "fixed_while_serving",
    "sentence",
    "taken_over",
]

# Options that one process can change while it serves.
_LIVE: Final = frozenset(
    (
        "log_level", "log_format", "access_lines", "drain",
        "max_body", "max_head", "max_headers",
        "head_timeout", "body_timeout", "idle_timeout",
        "rules", "topics",
        "tls_cert", "tls_key", "tls_min",  # Unless TLS is turned on or off.
    )
)  # fmt: skip

_TLS: Final = frozenset(("tls_cert", "tls_key", "tls_min"))

#: Options that one process can't change while it serves.
NOT_LIVE: Final = frozenset(catalogue()) - _LIVE

# Options that processes which run take over together: the hub process and all workers.
_TAKEN_OVER: Final = frozenset(("topics", "log_level", "log_format", "access_lines"))

#: Options that new workers can't change either: listeners, processes, and those of the hub.
RESTART: Final = frozenset(
    (
        *ListenOptions.model_fields,
        *ProcessOptions.model_fields,
        *HistoryOptions.model_fields,
        *StoreOptions.model_fields,
        *RedisOptions.model_fields,
        *PresenceOptions.model_fields,
        "redirect_port",
        # Set on the listeners, once.
        "user_timeout",
        "notsent_lowat",
    )
) - {"topics"}


def fixed_while_serving(old: Config, new: Config) -> frozenset[str]:
    """Options that one process can't change from `old` to `new`: other certificates are possible,
    TLS for a listener that has none is not."""
    return NOT_LIVE if bool(old.tls_cert) == bool(new.tls_cert) else NOT_LIVE | _TLS


def fixed_for_workers(old: Config, new: Config) -> frozenset[str]:
    """Options that new workers can't change: alerts are counted by the hub process."""
    alerts = [[rule for rule in one.rules if rule.action == "alert"] for one in (old, new)]
    return RESTART if alerts[0] == alerts[1] else RESTART | {"rules"}


def taken_over(old: Config, new: Config) -> tuple[bool, bool]:
    """Whether processes that run have something to take over, and whether something else changes,
    or nothing does. Then workers are replaced: files that options name may have changed."""
    changed = {name for name in catalogue() if getattr(old, name) != getattr(new, name)}
    return bool(changed & _TAKEN_OVER), not changed or not changed <= _TAKEN_OVER


def adapted(old: Config, new: Config, fixed: Collection[str]) -> tuple[Config, list[str]]:
    """`new` with the `fixed` options as in `old`, and the names of the fixed options that `new`
    would have changed."""
    kept = [
        name for name in catalogue() if name in fixed and getattr(old, name) != getattr(new, name)
    ]
    return new.model_copy(update={name: getattr(old, name) for name in kept}), kept


def sentence(kept: Collection[str]) -> str:
    """The message about options that keep their old values; empty if there are none."""
    return f"Only a restart changes {', '.join(kept)}." if kept else ""
