"""Positions are leased ahead, so none is ever used twice, whatever was lost and whatever the clock
says.

Clients may see a position before it is stored durably: at once with `received`, and with `written`
before it would survive a crash of the machine. So the file records, synced, up to which place
positions may be in use. After an unclean end the next process begins above that.
"""

from functools import cache
from pathlib import Path
from typing import Final

from fastsse.backbone.sqlite.places import place_of
from fastsse.backbone.sqlite.schema import State
from fastsse.positions import position_at, position_ms

__all__ = ["LEASE_MS", "boot_id", "has_rebooted", "lease_for", "may_have_lost", "opened"]

# The `ack` of a file that is in use and has no event yet, as far as the file itself says. The log
# may contain newer values, but a loss of power leaves it complete only if each commit was synced.
_OPEN: Final = "open"
_OPEN_UNSYNCED: Final = "open unsynced"

# How far a lease reaches beyond the clock. While events come, each half of it costs one synced
# write, so it is a second. On a disk with slow commits it is longer, so that publishers that are
# acknowledged before their events are stored need not wait for the disk. A killed process leaves
# positions this far ahead of the clock; further kills do not add to it.
LEASE_MS_MIN: Final = 1_000
LEASE_MS: Final = 10_000
LEASE_COMMITS: Final = 8
# Positions of one millisecond, which is how they rise while they are ahead of the clock.
LEASE_POSITIONS: Final = 1 << 16
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """A text that changes with each start of the machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def lease_for(position: int, leased_through: int, now_ms: int, commit_s: float = 0.0) -> int | None:
    """The place up to which to lease if `position` is the last in use. None if the present lease
    reaches well beyond it.

    Arguments:
        now_ms: unix milliseconds.
        commit_s: how long the last commit took.
    """
    step_ms = min(max(LEASE_MS_MIN, round(commit_s * 1000) * LEASE_COMMITS), LEASE_MS)
    place = place_of(position)
    if position_ms(position) > now_ms:
        enough, wanted = place + LEASE_POSITIONS // 2, place + LEASE_POSITIONS
    else:
        enough = place_of(position_at(now_ms + step_ms // 2))
        wanted = place_of(position_at(now_ms + step_ms))
    return None if max(enough, place) <= leased_through else max(wanted, place)


def opened(ack: str) -> str:
    """The `ack` that a file records from the start of a server with this option."""
    return _OPEN if ack == "synced" else _OPEN_UNSYNCED


def has_rebooted(state: State) -> bool:
    """Whether the machine was started since the last writer of the file began."""
    return state.boot != boot_id()


def may_have_lost(state: State) -> bool:
    """Whether events that a reader has received may be missing from the file without a trace."""
    if state.ack == "received":
        return True
    return state.ack in ("written", _OPEN_UNSYNCED) and has_rebooted(state)
