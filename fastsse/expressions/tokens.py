"""Tokens of expressions: texts, numbers, names and signs, each with its position."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from fastsse.expressions.errors import InvalidExpression

__all__ = ["END", "Token", "tokens_of"]

END: Final = "the end"
_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    |(?P<number>-?(?:0x[0-9a-fA-F]+|(?:[0-9]+\.[0-9]+|[0-9]+)(?:[eE][+-]?[0-9]+)?))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<text>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')
    |(?P<sign>&&|\|\||==|!=|<=|>=|[!<>()\[\],.])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(
    r"""\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([abfnrtv\\?"'`])|(.?))"""
)
_ESCAPED: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}


class Token(NamedTuple):
    """A part of the text. `kind` is `number`, `name`, `text`, or what a sign is; `value` is what a
    text or number says."""

    kind: str
    value: str | int | float
    position: int


def tokens_of(text: str) -> Iterator[Token]:
    """The tokens, and END behind the last. Raises InvalidExpression."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidExpression(text, at, _unknown(text[at]))
        kind = match.lastgroup
        if kind == "number":
            yield Token("number", _number(text, at, match.group()), at)
        elif kind == "text":
            yield Token("text", _text(text, at, match.group()[1:-1]), at)
        elif kind == "name":
            yield Token("name", match.group(), at)
        elif kind == "sign":
            yield Token(match.group(), match.group(), at)
        at = match.end()
    yield Token(END, "", at)


def _unknown(character: str) -> str:
    if character in "\"'":
        return "A text without its end"
    if character == "=":
        return "= is written =="
    if character in "&|":
        return f"{character} is written {character * 2}"
    return f"{character!r} means nothing"


def _number(text: str, at: int, digits: str) -> int | float:
    if "x" in digits:
        number: int | float = int(digits, 16)
    elif digits.lstrip("-").isdigit():
        number = int(digits) if len(digits) <= 20 else float(digits)
    else:
        number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise InvalidExpression(text, at, "A number that is too large")
    return number


def _text(text: str, at: int, inner: str) -> str:
    def escaped(match: re.Match[str]) -> str:
        hexadecimal = match.group(1) or match.group(2) or match.group(3)
        if hexadecimal is not None:
            point = int(hexadecimal, 16)
            if point <= 0x10FFFF and not 0xD800 <= point < 0xE000:
                return chr(point)
        elif match.group(4) is not None:
            return _ESCAPED.get(match.group(4), match.group(4))
        raise InvalidExpression(text, at + 1 + match.start(), "An unknown escape")

    return _ESCAPE.sub(escaped, inner)
