"""What the log keeps of each topic:

at least what the options promise. Redis trims the common stream by whole blocks of entries, so it
keeps a little more, never less. A topic's own list is trimmed by count with each event, and expires
as a whole when its newest event is too old. Bytes are not counted there: `maxmemory` bounds Redis.
"""

from typing import Final

from fastsse.config import HistoryOptions

__all__ = ["MARK_EXTRA_MS", "RedisRetention"]

# How much longer than its events the last position of a topic is kept. So a reader of a quiet topic
# receives a `fastsse.gap` event only if there was a gap.
MARK_EXTRA_MS: Final = 24 * 60 * 60 * 1000
# For topics whose newest events are kept however old they are.
LONGEST_MS: Final = 3650 * 24 * 60 * 60 * 1000
# Topics whose rule is cached.
TOPICS_KEPT: Final = 10_000

TopicArguments = tuple[bytes, int, int, int]


class RedisRetention:
    """Limits by topic, in the form that the appending script takes.

    Arguments:
        history: the options; rules for topics among them.
        stream_events: events of all topics that the stream itself keeps.

    Attributes:
        key_window_ms, keys_bytes: how long publishers' keys are known, and the bound on them.
        producer_window_ms, producers_bytes: the same of producers, after the newest append of each.
        streams_bytes: the bound on durable streams.
        longest_ms: the longest age that any rule names.
    """

    def __init__(self, history: HistoryOptions, stream_events: int) -> None:
        self.stream_events: Final = stream_events
        self.key_window_ms: Final = max(1, round(history.key_window * 1000))
        self.keys_bytes: Final = history.keys_total
        self.producer_window_ms: Final = max(1, round(history.producer_window * 1000))
        self.producers_bytes: Final = history.producers_total
        self.streams_bytes: Final = history.streams_total
        self.apply_rules(history)

    def apply_rules(self, history: HistoryOptions) -> None:
        """Applies other `[[topics]]` to what is appended from now on."""
        ages_s = [history.history_age, *(rule.history_age or 0 for rule in history.topics)]
        self.longest_ms = max(1, round(max(ages_s) * 1000))
        self.mark_ms = self.longest_ms + MARK_EXTRA_MS
        self._history = history
        self._known: dict[str, TopicArguments] = {}

    def arguments(self, topic: str) -> TopicArguments:
        """Its name, the events kept (0 for none), how long in ms, and how long its last position
        is known. O(1) for topics in use, else O(rules)."""
        known = self._known.get(topic)
        if known is None:
            if len(self._known) >= TOPICS_KEPT:
                self._known.clear()
            limits = self._history.limits(topic)
            age_ms = round(limits.age_s * 1000)
            events = limits.events if limits.bytes and age_ms else 0
            mark_ms = self.mark_ms
            if limits.keep_last:
                # A list expires as a whole, so all of it is kept longer.
                age_ms, mark_ms = LONGEST_MS, LONGEST_MS + MARK_EXTRA_MS
            known = self._known[topic] = topic.encode(), events, max(1, age_ms), mark_ms
        return known

    def own_id_ms(self, topics: tuple[str, ...]) -> int:
        """How long an event is found by its publisher's id: as long as a topic keeps it."""
        return max(self.arguments(topic)[2] for topic in topics)
