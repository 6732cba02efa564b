"""The topics of the file that selectors match, and what they evicted."""

import json
import sqlite3
from collections import OrderedDict
from typing import Final, NamedTuple

from fastsse.backbone.sqlite.places import PLACE_N_MAX
from fastsse.backbone.sqlite.values import TOPIC_EVICTED, TOPIC_NAME
from fastsse.selectors import Selector, compile_selector
from fastsse.subscriptions import ANY

__all__ = ["Selection", "Selections"]

# Templates whose topics are cached.
TEMPLATES_MAX: Final = 256


class Selection(NamedTuple):
    """`topics` are the numbers of those that are stored, None for all; `selectors` are tried on an
    event's topics where there are too many numbers; `evicted_through` is the highest place of an
    event that was evicted, `lost_through` of one that may be lost, `begins` the place up to which
    nothing was stored as far as is known; `mean_bytes` what one of their events has, by which it is
    judged how many fill a page."""

    topics: list[int] | None
    selectors: list[Selector]
    evicted_through: int
    lost_through: int
    begins: int
    mean_bytes: int


class _TemplateSelection:
    """The topics that match a template, as far as topics were looked at."""

    __slots__ = ("looked_through", "numbers")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.looked_through = 0


class Selections:
    """Finds selections, for one thread and one connection."""

    def __init__(self) -> None:
        self._templates: OrderedDict[str, _TemplateSelection] = OrderedDict()

    def find(self, connection: sqlite3.Connection, selectors: tuple[str, ...]) -> Selection:
        """The topics that the selectors match in the current transaction.

        O(requested topics); for a template O(stored topics), once.
        """
        whole, forgotten, lost, events, total_bytes = connection.execute(
            "SELECT evicted_through, forgotten_through, lost_through, events, bytes FROM state"
        ).fetchone()
        if ANY in selectors:
            return Selection(None, [], whole, lost, _begins(whole), _mean(events, total_bytes))
        compiled = [compile_selector(text) for text in selectors]
        # A selector equals its own text, also where it is a template.
        named = _named(connection, selectors)
        found = set(named)
        for selector in compiled:
            if not selector.is_exact:
                found.update(self._matching(connection, selector))
        topics = sorted(found)
        known, events, total_bytes = connection.execute(
            f"SELECT ifnull(max({TOPIC_EVICTED}), 0), total(events), total(bytes) FROM topic"
            " WHERE number IN (SELECT value FROM json_each(?))",
            (json.dumps(topics),),
        ).fetchone()
        # The row of a topic is exact.
        are_known = len(named) == len(set(selectors)) and all(one.is_exact for one in compiled)
        unknown = 0 if are_known else forgotten
        begins = _begins(known) or (unknown if known <= unknown else 0)
        evicted = max(known, unknown)
        return Selection(topics, compiled, evicted, lost, begins, _mean(events, total_bytes))

    def _matching(self, connection: sqlite3.Connection, selector: Selector) -> list[int]:
        template = self._templates.get(selector.text)
        if template is None:
            template = self._templates[selector.text] = _TemplateSelection()
            if len(self._templates) > TEMPLATES_MAX:
                self._templates.popitem(last=False)
        self._templates.move_to_end(selector.text)
        (found,) = connection.execute(
            f"SELECT json_group_array(json_array(number, {TOPIC_NAME})) FROM topic"
            " WHERE number > ?",
            (template.looked_through,),
        ).fetchone()
        topics = json.loads(found)
        template.numbers += [
            number for number, name in topics if name is not None and selector.matches(name)
        ]
        template.looked_through = max((number for number, _ in topics), default=0) or (
            template.looked_through
        )
        return template.numbers


def _named(connection: sqlite3.Connection, names: tuple[str, ...]) -> set[int]:
    (numbers,) = connection.execute(
        "SELECT json_group_array(number) FROM topic WHERE name IN (SELECT value FROM json_each(?))",
        (json.dumps(names),),
    ).fetchone()
    return set(json.loads(numbers))


def _begins(evicted_through: int) -> int:
    """The place itself where it is no event's: then it is where the file began. 0 elsewhere."""
    return 0 if evicted_through & PLACE_N_MAX else evicted_through


def _mean(events: float, total_bytes: float) -> int:
    return max(1, int(total_bytes / events)) if events else 1
