"""A room in which pages publish: `python -m examples.chat.app`."""

from pathlib import Path

from examples.site import Example, run

# The room's history is what a late visitor sees.
EXAMPLE = Example(
    Path(__file__).parent,
    options={"topics": [{"match": "rooms/*", "history_events": 200, "history_age": "1d"}]},
)

if __name__ == "__main__":
    run(EXAMPLE)
