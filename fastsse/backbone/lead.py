"""How far positions are ahead of the clock: logged when it is more than a restart explains."""

from typing import Final

from fastsse.log import get_logger

__all__ = ["LeadLog"]

log = get_logger("positions")

# A restart after a kill may leave positions up to a lease ahead.
LOGGED_MS: Final = 15_000


class LeadLog:
    """Logs one line when positions become far ahead of the clock, and one when they no longer
    are. `is_ahead`: the first was logged."""

    def __init__(self) -> None:
        self.is_ahead = False

    def note(self, lead_ms: int) -> None:
        """The newest event's position is so far ahead of its time. O(1)."""
        is_ahead = lead_ms > LOGGED_MS
        if is_ahead is self.is_ahead:
            return
        self.is_ahead = is_ahead
        if is_ahead:
            log.warning(
                "Event ids are ahead of the clock: it was ahead before, and was set back.",
                ahead_s=round(lead_ms / 1000, 1),
            )
        else:
            log.info("The clock has reached the event ids.")
