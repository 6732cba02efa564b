"""Waiting for other processes to leave the machine alone before something is measured."""

from __future__ import annotations

import time

from bench.machine import busy_us

LOOK_S = 0.5
QUIET_SHARE = 0.15
"""Of one core."""


class Quiet:
    """Patience that is used up by waiting, so that a busy machine delays a run only so long.

    Args:
        patience_s: for all waits together; 0: never waits.
    """

    def __init__(self, patience_s: float) -> None:
        self.left_s = patience_s

    def wait(self) -> bool:
        """Waits until the machine has been quiet for half a second; whether it came to be."""
        while self.left_s > 0:
            before = busy_us()
            time.sleep(LOOK_S)
            self.left_s -= LOOK_S
            if busy_us() - before < LOOK_S * QUIET_SHARE * 1e6:
                return True
        return False
