"""The rules of `[[topics]]` for what the hub process publishes itself: events of sources, alerts.

Publishes that workers take are judged there.
"""

from collections.abc import Callable, Sequence
from typing import Any

from fastsse.config import Config
from fastsse.errors import InvalidEvent
from fastsse.events import Event
from fastsse.hub.topics import Rules, Topics
from fastsse.rules.intercepting import Publish

__all__ = ["TopicRules"]


class TopicRules:
    """Judges events before they are appended. Loop thread only.

    Arguments:
        config: the options.
    """

    def __init__(self, config: Config) -> None:
        self._topics = Topics(Rules(config, config.lag_policy), 0)

    def apply(self, config: Config) -> None:
        """Judges by the rules of these options from now on."""
        self._topics.rules.apply(config)

    def judging(self, publish: Publish) -> Publish:
        """A `publish` that refuses a batch with an event of a type, or with data, that a rule does
        not allow, and makes events private where a rule says so. O(events x rules), O(1) without
        such rules."""

        def publish_judged(events: Sequence[Event], done: Callable[[Any], None]) -> None:
            rules = self._topics.rules
            try:
                for event in events if rules.restricts else ():
                    self._topics.check(event)
            except InvalidEvent as error:
                done(error)
                return
            if rules.hides:
                events = [self._topics.hidden(event) for event in events]
            publish(events, done)

        return publish_judged
