"""Which topics of the file a reader's selectors mean, and what was let go of them."""

import json
import sqlite3
from collections import OrderedDict
from typing import Final, NamedTuple

from fastsse.selectors import Selector, compile_selector
from fastsse.subscriptions import ANY

__all__ = ["Selection", "Selections"]

# Templates whose topics are kept at hand.
TEMPLATES_MAX: Final = 256


class Selection(NamedTuple):
    """`topics` are the numbers of those that are stored, None for all; `selectors` are tried on an
    event's topics where there are too many numbers; `evicted_through` is a place."""

    topics: list[int] | None
    selectors: list[Selector]
    evicted_through: int


class _Template:
    """The topics that match a template, as far as topics were looked at."""

    __slots__ = ("looked_through", "numbers")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.looked_through = 0


class Selections:
    """Finds selections, for one thread and one connection."""

    def __init__(self) -> None:
        self._templates: OrderedDict[str, _Template] = OrderedDict()

    def find(
        self, connection: sqlite3.Connection, selectors: tuple[str, ...], floor: int
    ) -> Selection:
        """What the selectors mean in the transaction under way.

        Arguments:
            floor: the place up to which events of any topic may be missing.

        O(topics asked for); for a template O(topics stored), once.
        """
        whole, forgotten = connection.execute(
            "SELECT evicted_through, forgotten_through FROM state"
        ).fetchone()
        if ANY in selectors:
            return Selection(None, [], max(whole, floor))
        compiled = [compile_selector(text) for text in selectors]
        # A selector equals its own text, also where it is a template.
        numbers, evicted_through = _named(connection, selectors)
        found = set(numbers)
        for selector in compiled:
            if not selector.is_exact:
                matching = self._matching(connection, selector)
                found.update(matching)
                evicted_through = max(evicted_through, _evicted_through(connection, matching))
        return Selection(sorted(found), compiled, max(evicted_through, forgotten, floor))

    def forget(self) -> None:
        """The file is not the one that it was."""
        self._templates.clear()

    def _matching(self, connection: sqlite3.Connection, selector: Selector) -> list[int]:
        template = self._templates.get(selector.text)
        if template is None:
            template = self._templates[selector.text] = _Template()
            if len(self._templates) > TEMPLATES_MAX:
                self._templates.popitem(last=False)
        self._templates.move_to_end(selector.text)
        (found,) = connection.execute(
            "SELECT json_group_array(json_array(number, name)) FROM topic WHERE number > ?",
            (template.looked_through,),
        ).fetchone()
        topics = json.loads(found)
        template.numbers += [number for number, name in topics if selector.matches(name)]
        template.looked_through = max((number for number, _ in topics), default=0) or (
            template.looked_through
        )
        return template.numbers


def _named(connection: sqlite3.Connection, names: tuple[str, ...]) -> tuple[list[int], int]:
    numbers, evicted_through = connection.execute(
        "SELECT json_group_array(number), max(evicted_through) FROM topic"
        " WHERE name IN (SELECT value FROM json_each(?))",
        (json.dumps(names),),
    ).fetchone()
    return json.loads(numbers), evicted_through or 0


def _evicted_through(connection: sqlite3.Connection, numbers: list[int]) -> int:
    (place,) = connection.execute(
        "SELECT max(evicted_through) FROM topic WHERE number IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    ).fetchone()
    return place or 0
