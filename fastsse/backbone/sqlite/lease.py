"""Positions leased ahead: none is ever given out twice, whatever was lost and whatever the clock
says.

A position may be seen before it is stored for good: at once under `received`, and under `written`
before it would survive a crash of the machine. So the file says, synced, up to which place
positions may be in use; whoever opens it after an end that was not clean begins above that.
"""

from functools import cache
from pathlib import Path
from typing import Final

from fastsse.backbone.sqlite.places import place_of
from fastsse.backbone.sqlite.schema import State
from fastsse.positions import position_at, position_ms

__all__ = ["LEASE_MS", "OPEN", "boot_id", "has_rebooted", "lease_for", "may_have_lost"]

# The `ack` of a file that is in use and was not published to yet.
OPEN: Final = "open"

# One synced write each half of this while events come.
LEASE_MS: Final = 10_000
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """Another text after each start of the machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def lease_for(position: int, leased_through: int) -> int | None:
    """The place up to which to lease when `position` is the last in use, or None when what is
    leased reaches well beyond it."""
    ms = position_ms(position)
    if place_of(position_at(ms + LEASE_MS // 2)) <= leased_through:
        return None
    return place_of(position_at(ms + LEASE_MS))


def has_rebooted(state: State) -> bool:
    """Whether the machine was started since the last writer of the file began."""
    return state.boot != boot_id()


def may_have_lost(state: State) -> bool:
    """Whether events that somebody has seen may be missing from the file, and nobody can say."""
    if state.ack == "received":
        return True
    return state.ack == "written" and has_rebooted(state)
