"""Metrics of the busiest topics: an option, because each topic is a time series of its own."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from fastsse.api.admin.topics import merged_topics
from fastsse.control.gather import GatherClient, Gathered
from fastsse.errors import FastsseError

__all__ = ["BusiestTopics"]

_SORT: Final = "rate"
_PREFIX: Final = "fastsse_topic_"
# The member of a topic's row, the metric, and its help text.
_FIGURES: Final = (
    ("subscribers", "subscribers", "Streams of a busy topic."),
    ("rate", "events_per_second", "Events a second of a busy topic, over the last minute."),
    ("events", "history_events", "Events kept of a busy topic."),
    ("bytes", "history_bytes", "Bytes kept of a busy topic."),
)


class BusiestTopics:
    """Asks the workers of this node for the topics with the most events a second.

    Arguments:
        gather: asks them.
        count: how many topics.
    """

    def __init__(self, gather: GatherClient, count: int) -> None:
        self._gather = gather
        self._count = count

    def exposition(self, done: Callable[[bytes], None]) -> None:
        """Calls `done` with lines for `/metrics`, the same in both formats; with none if no worker
        answered. O(topics), divided over turns of the loop."""

        def gathered(outcome: Gathered | FastsseError) -> None:
            done(b"" if isinstance(outcome, FastsseError) else self._lines(outcome))

        self._gather.ask("topics", gathered, here=True, sort=_SORT, limit=self._count, after=None)

    def _lines(self, gathered: Gathered) -> bytes:
        rows = merged_topics(gathered, sort=_SORT, limit=self._count)["topics"]
        assert isinstance(rows, list)
        return generate_latest(_Families(rows))


class _Families:
    """A registry for `generate_latest`."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self._rows = [row for row in rows if row[_SORT]]

    def collect(self) -> Iterator[Metric]:
        """A family for each figure."""
        for member, name, text in _FIGURES:
            metric = GaugeMetricFamily(_PREFIX + name, text, labels=["topic"])
            for row in self._rows:
                metric.add_metric([str(row["topic"])], float(str(row[member])))
            yield metric
