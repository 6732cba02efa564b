"""Views of channels: filter, rate and form of events, for the sender and for pages of replays. A
view is made once for each channel."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from fastsse._core import Frame
from fastsse._core import View as CoreView
from fastsse.auth.rights import Rights
from fastsse.errors import StreamRefused
from fastsse.expressions import compile_expression
from fastsse.selectors import compile_selector
from fastsse.subscriptions import ANY, InitialId, Subscription, View

__all__ = [
    "FILTER_BOUNDS",
    "ChannelView",
    "Described",
    "FilterBounds",
    "FilterUse",
    "core_view",
    "shown_topics",
    "view_of",
]

_MARKS: Final[dict[InitialId, str]] = {
    "true": "block",
    "line": "line",
    "data": "data",
    "false": "",
}


class ChannelView(NamedTuple):
    """The properties that streams with a view must have in common to share a channel.

    Attributes:
        view: the view of all its streams.
        mark: the form in which ids of left-out events are sent: `block`, `line`, `data`, or none.
    """

    view: View
    mark: str


class FilterBounds(NamedTuple):
    """The bounds on channels with a filter, for one topic or template and in total. Each filter is
    evaluated for every event of its topics."""

    of_selector: int = 1_000
    in_total: int = 10_000


FILTER_BOUNDS: Final = FilterBounds()


class FilterUse:
    """Counts channels with filters.

    Arguments:
        bounds: above them a stream is refused.

    Attributes:
        count: channels with a filter.
        refused: streams that were refused.
    """

    def __init__(self, bounds: FilterBounds) -> None:
        self.count = 0
        self.refused = 0
        self._bounds = bounds
        self._by_selector: Counter[str] = Counter()

    def check(self, selectors: Iterable[str]) -> None:
        """Raises StreamRefused if one more would be too many."""
        most = max(self._by_selector[text] for text in selectors)
        if self.count >= self._bounds.in_total or most >= self._bounds.of_selector:
            self.refused += 1
            raise StreamRefused("filters")

    def add(self, selectors: Iterable[str]) -> None:
        """Counts a channel of these selectors."""
        self.count += 1
        self._by_selector.update(selectors)

    def drop(self, selectors: Iterable[str]) -> None:
        """A channel of these selectors was removed."""
        self.count -= 1
        for text in selectors:
            self._by_selector[text] -= 1
            if not self._by_selector[text]:
                del self._by_selector[text]


class Described(NamedTuple):
    """A frame with the topics and the meta of its event."""

    frame: Frame
    topics: tuple[str, ...]
    meta: bytes | None


def view_of(subscription: Subscription) -> ChannelView | None:
    """The view of a subscription's channel; None: every event is sent as it is."""
    view = subscription.view
    if view is None:
        return None
    return ChannelView(view, _MARKS[subscription.dialect.initial_id] if view.is_partial else "")


def core_view(channel_view: ChannelView) -> CoreView:
    """The native form of a view."""
    view, mark = channel_view
    return CoreView(
        types=view.types,
        envelope=view.envelope,
        until=view.until,
        until_data=view.until_data,
        mark=mark,
        filter=None if view.filter is None else compile_expression(view.filter),
        interval_ms=view.interval_ms,
        notices=view.notices,
    )


def shown_topics(one: Described, selectors: Sequence[str], rights: Rights | None) -> int | None:
    """The topics of an event that its reader may see, as bits; None: all. Of a private event, those
    that the reader selects and has grants for."""
    if not one.frame.private or len(one.topics) == 1:
        return None
    shown = 0
    for place, name in enumerate(one.topics):
        is_selected = any(text == ANY or compile_selector(text).matches(name) for text in selectors)
        if is_selected and rights is not None and rights.covers_subscribe((name,)):
            shown |= 1 << place
    return shown
