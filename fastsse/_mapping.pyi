"""Maps messages that are JSON objects to events, by the templates of a source's rule."""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Words

from fastsse.events import Event

Part = str | tuple[str, str | None]
"""A text, or the name of a word and the text that stands for it where it is missing."""

Template = Sequence[Part]

class Mapping:
    """Makes the events of a rule. Loop thread only.

    Arguments:
        templates: of topic, event type, own id and data (None: the rule has none), and of the
            members of `meta`, each with its name.
        is_json: what the rule says of the whole payload.
        private: likewise of the event.
        checks: of a topic, an event type and an own id: they return what the event has, and raise
            FastsseError. What a topic and a type give must never change, because it is remembered.
    """

    def __init__(
        self,
        templates: tuple[
            Template,
            Template | None,
            Template | None,
            Template | None,
            Sequence[tuple[str, Template]],
        ],
        is_json: bool,
        private: bool,
        checks: tuple[Callable[[str], str], Callable[[str], bytes | None], Callable[[str], bytes]],
    ) -> None: ...
    def event_of(self, payload: bytes, words: Words[str, str]) -> Event | None:
        """The event of a message. None: the payload is no JSON object, or it makes no event, or one
        that only Python makes. O(bytes)."""
