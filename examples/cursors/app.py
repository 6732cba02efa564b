"""Each other's cursors on one page: `python -m examples.cursors.app`."""

from pathlib import Path

from examples.site import Example, run

# Where a cursor was is worth nothing: one event a cursor is kept.
EXAMPLE = Example(
    Path(__file__).parent, options={"topics": [{"match": "cursors/*", "history_events": 1}]}
)

if __name__ == "__main__":
    run(EXAMPLE)
