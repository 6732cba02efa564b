"""What is wrong with an expression, and where."""

from typing import Final

__all__ = ["InvalidExpression"]

_SHOWN_BEFORE: Final = 20
_SHOWN_BEHIND: Final = 20


class InvalidExpression(ValueError):
    """An expression that can't be used.

    Attributes:
        position: of the character that is wrong, from 0; the length of the text for its end.
        reason: what is wrong there.
    """

    def __init__(self, text: str, position: int, reason: str) -> None:
        self.position: Final = position
        self.reason: Final = reason
        super().__init__(f"{reason} at character {position + 1}: {_shown(text, position)}")


def _shown(text: str, position: int) -> str:
    """The text around a position, with a mark before the character that is wrong."""
    begin, end = max(0, position - _SHOWN_BEFORE), position + _SHOWN_BEHIND
    before, behind = text[begin:position], text[position:end]
    return "".join(
        (
            "…" if begin else "",
            before,
            "⟶",
            behind,
            "…" if end < len(text) else "",
        )
    )
