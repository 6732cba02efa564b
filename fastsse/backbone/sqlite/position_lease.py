"""Positions leased ahead: none is ever given out twice, whatever was lost and whatever the clock
says.

A position may be seen before it is stored for good: at once under `received`, and under `written`
before it would survive a crash of the machine. So the file says, synced, up to which place
positions may be in use. After an end that was not clean the next process begins above that.
"""

from functools import cache
from pathlib import Path
from typing import Final

from fastsse.backbone.sqlite.places import place_of
from fastsse.backbone.sqlite.schema import State
from fastsse.positions import position_at, position_ms

__all__ = ["LEASE_MS", "boot_id", "has_rebooted", "lease_for", "may_have_lost", "opened"]

# The `ack` of a file that is in use and was not published to yet, as far as it knows: the log may
# know better. A loss of power leaves the log whole only when each commit was synced.
_OPEN: Final = "open"
_OPEN_UNSYNCED: Final = "open unsynced"

# How far a lease reaches beyond the clock. One synced write each half of it while events come, so
# it is a second; on a disk on which a commit takes long it is longer, so that publishers who are
# acknowledged before the disk has their events need not wait for it. A killed process leaves
# positions so far ahead of the clock, and not further with each kill.
LEASE_MS_MIN: Final = 1_000
LEASE_MS: Final = 10_000
LEASE_COMMITS: Final = 8
# While positions are ahead of the clock they only rise within a millisecond: so many of them.
LEASE_POSITIONS: Final = 1 << 16
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """Another text after each start of the machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def lease_for(position: int, leased_through: int, now_ms: int, commit_s: float = 0.0) -> int | None:
    """The place up to which to lease when `position` is the last in use, or None when what is
    leased reaches well beyond it.

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
    """What a file says of itself from the start of a server that acknowledges so."""
    return _OPEN if ack == "synced" else _OPEN_UNSYNCED


def has_rebooted(state: State) -> bool:
    """Whether the machine was started since the last writer of the file began."""
    return state.boot != boot_id()


def may_have_lost(state: State) -> bool:
    """Whether events that a reader has seen may be missing from the file, without a trace."""
    if state.ack == "received":
        return True
    return state.ack in ("written", _OPEN_UNSYNCED) and has_rebooted(state)
