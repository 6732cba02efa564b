"""What a subscriber asks for and what a grant allows: a topic, `*`, or a URI template.

A selector is tried in this order: `*` matches every topic; a selector equals its own text; one
that holds `{` and is a URI template (RFC 6570, all levels and operators) matches the topics that
the template can become, and nothing more before or after them. What is no template is plain text.

Whether a topic is an expansion is decided by an automaton that looks at each byte once, whatever
the template is: its states are sets of places in the template, found when they are first needed
and kept within bounds. No regular expression with choices to take back is involved.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = ["Selector", "compile_selector"]

# A template beyond any of these is plain text.
TEMPLATE_BYTES_MAX: Final = 4 * 1024
EXPRESSIONS_MAX: Final = 32
VARIABLES_MAX: Final = 64
# Compiled selectors kept, and of each the steps between states: about 100 bytes a step.
SELECTORS_KEPT: Final = 1024
STEPS_KEPT: Final = 512

_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_RESERVED: Final = b":/?#[]@!$&'()*+,;="
_HEX_DIGITS: Final = b"0123456789ABCDEFabcdef"
_ESCAPE: Final = r"%[0-9A-Fa-f]{2}"
# RFC 6570 §2.1, in Unicode's letters.
_LITERAL: Final = re.compile(
    rf"(?:[!#$&-;=?-\[\]_a-z~\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\uffef\U00010000-\U0010fffd]|{_ESCAPE})*+"
)
# RFC 6570 §2.2 to §2.4; the operators that are kept for later make no template.
_NAME: Final = rf"(?:[A-Za-z0-9_]|{_ESCAPE})++(?:\.(?:[A-Za-z0-9_]|{_ESCAPE})++)*+"
_VARIABLE: Final = re.compile(rf"({_NAME})(\*|:[1-9][0-9]{{0,3}})?+")


class Selector:
    """A selector, ready to match. Immutable to its users; loop thread only.

    `is_exact` says that no topic but `text` itself matches.
    """

    __slots__ = ("_prefix", "_suffix", "_template", "is_exact", "text")

    def __init__(self, text: str) -> None:
        parts = _parse(text) if "{" in text else None
        self.text: Final = text
        self.is_exact: Final = parts is None and text != "*"
        self._template = None if parts is None else _Template(parts)
        self._prefix = text[: text.index("{")] if parts else ""
        self._suffix = text[text.rindex("}") + 1 :] if parts else ""

    def matches(self, topic: str) -> bool:
        """Whether the topic is one of those meant. O(bytes of topic) at most."""
        if topic == self.text:
            return True
        if self._template is None:
            return not self.is_exact
        if not (topic.startswith(self._prefix) and topic.endswith(self._suffix)):
            return False
        rest = topic[len(self._prefix) :].encode("utf-8", "surrogatepass")
        return self._template.matches(rest)

    def __repr__(self) -> str:
        return f"Selector({self.text!r})"


@lru_cache(maxsize=SELECTORS_KEPT)
def compile_selector(text: str) -> Selector:
    """The selector of this text; the 1,024 used last are kept. Never raises."""
    return Selector(text)


class _Operator(NamedTuple):
    """What an expression's operator makes of its values (RFC 6570, appendix A)."""

    first: bytes
    separator: bytes
    named: bool
    allowed: bytes


_OPERATORS: Final = {
    "": _Operator(b"", b",", False, _UNRESERVED),
    "+": _Operator(b"", b",", False, _UNRESERVED + _RESERVED),
    "#": _Operator(b"#", b",", False, _UNRESERVED + _RESERVED),
    ".": _Operator(b".", b".", False, _UNRESERVED),
    "/": _Operator(b"/", b"/", False, _UNRESERVED),
    ";": _Operator(b";", b";", True, _UNRESERVED),
    "?": _Operator(b"?", b"&", True, _UNRESERVED),
    "&": _Operator(b"&", b"&", True, _UNRESERVED),
}


class _Variable(NamedTuple):
    name: bytes
    explodes: bool


class _Expression(NamedTuple):
    operator: _Operator
    variables: tuple[_Variable, ...]


def _parse(text: str) -> list[bytes | _Expression] | None:
    """The parts of a template from its first expression on; None when the text is none."""
    if len(text.encode("utf-8", "surrogatepass")) > TEMPLATE_BYTES_MAX:
        return None
    first, *others = text.split("{")
    if not _LITERAL.fullmatch(first) or len(others) > EXPRESSIONS_MAX:
        return None
    parts: list[bytes | _Expression] = []
    for other in others:
        inside, brace, literal = other.partition("}")
        expression = _parse_expression(inside)
        if not brace or expression is None or not _LITERAL.fullmatch(literal):
            return None
        parts += (expression, literal.encode())
    variables = sum(len(part.variables) for part in parts if isinstance(part, _Expression))
    return parts if variables <= VARIABLES_MAX else None


def _parse_expression(inside: str) -> _Expression | None:
    sign = inside[:1] if inside[:1] in _OPERATORS else ""
    variables = []
    for spec in inside[len(sign) :].split(",", VARIABLES_MAX):
        found = _VARIABLE.fullmatch(spec)
        if found is None:
            return None
        variables.append(_Variable(found[1].encode(), found[2] == "*"))
    return _Expression(_OPERATORS[sign], tuple(variables))


class _Fragment(NamedTuple):
    """A part of the automaton: may it be left out, and its first and last places, as bits."""

    optional: bool
    first: int
    last: int


_NOTHING: Final = _Fragment(True, 0, 0)


class _Places:
    """The places of an automaton: what byte is taken at each, and which may come next.

    A place is a number, and a set of places an integer with their bits set (Glushkov's
    construction: no step without a byte, so no loop can spin).
    """

    def __init__(self) -> None:
        self.takers: dict[bytes, int] = {}  # The places that take one of these bytes.
        self.follow: list[int] = []

    def one_of(self, allowed: bytes) -> _Fragment:
        bit = 1 << len(self.follow)
        self.takers[allowed] = self.takers.get(allowed, 0) | bit
        self.follow.append(0)
        return _Fragment(False, bit, bit)

    def text(self, literal: bytes) -> _Fragment:
        whole = _NOTHING
        for byte in literal:
            whole = self.then(whole, self.one_of(bytes((byte,))))
        return whole

    def then(self, one: _Fragment, other: _Fragment) -> _Fragment:
        self.link(one.last, other.first)
        return _Fragment(
            one.optional and other.optional,
            one.first | (other.first if one.optional else 0),
            other.last | (one.last if other.optional else 0),
        )

    def either(self, one: _Fragment, other: _Fragment) -> _Fragment:
        optional = one.optional or other.optional
        return _Fragment(optional, one.first | other.first, one.last | other.last)

    def link(self, last: int, first: int) -> None:
        for place in _bits(last):
            self.follow[place] |= first

    def value(self, allowed: bytes) -> _Fragment:
        """Any number of these bytes and of percent-encoded ones."""
        escape = self.then(self.one_of(b"%"), self.one_of(_HEX_DIGITS))
        escape = self.then(escape, self.one_of(_HEX_DIGITS))
        one = self.either(self.one_of(allowed), escape)
        self.link(one.last, one.first)
        return one._replace(optional=True)

    def expression(self, expression: _Expression) -> _Fragment:
        """All that the expression may become, also nothing: variables may be undefined."""
        operator, variables = expression
        if operator.named:
            return self._named(operator, variables)
        # Lists are joined with commas; a map that explodes has = between name and value.
        explodes = any(variable.explodes for variable in variables)
        allowed = operator.allowed + (b",=" if explodes else b",")
        if operator.separator == b"/" and not explodes:
            return self._segments(len(variables), allowed)
        if operator.separator == b"/":
            allowed += b"/"
        return self.then(self.text(operator.first), self.value(allowed))._replace(optional=True)

    def _segments(self, count: int, allowed: bytes) -> _Fragment:
        """At most so many of `/value`, one in the other from the last on."""
        rest = _NOTHING
        for _ in range(count):
            segment = self.then(self.one_of(b"/"), self.value(allowed))
            rest = self.then(segment, rest)._replace(optional=True)
        return rest

    def _named(self, operator: _Operator, variables: tuple[_Variable, ...]) -> _Fragment:
        """`name=value` by the variables' names, any of them, in any order."""
        pairs = self._pair(operator, variables[0])
        for variable in variables[1:]:
            pairs = self.either(pairs, self._pair(operator, variable))
        again = self.one_of(operator.separator)
        self.link(pairs.last, again.first)
        self.link(again.last, pairs.first)
        return self.then(self.one_of(operator.first), pairs)._replace(optional=True)

    def _pair(self, operator: _Operator, variable: _Variable) -> _Fragment:
        if variable.explodes:  # A map's names are its own.
            return self.value(operator.allowed + b",=")._replace(optional=False)
        name = self.text(variable.name)
        pair = self.then(name, self.then(self.one_of(b"="), self.value(operator.allowed + b",")))
        # An empty value has no = after `;` (RFC 6570 §3.2.7).
        return self.either(pair, name) if operator.first == b";" else pair


class _State(dict[int, "_State"]):
    """A set of places that may come next, and the steps from here by byte; a step that is not
    known yet is found when it is asked for."""

    __slots__ = ("ends", "places", "template")

    def __init__(self, template: "_Template", places: int, ends: bool) -> None:
        self.template = template
        self.places = places  # 0: nothing can match any more.
        self.ends = ends

    def __missing__(self, byte: int) -> "_State":
        state = self[byte] = self.template.step(self, byte)
        return state


class _Template:
    """A template's automaton, for what comes after the literal text that it begins with.

    Built when something is first matched. Of its steps 512 are kept; then it is built again.
    """

    __slots__ = (
        "_accepts",
        "_begin",
        "_branching",
        "_follow",
        "_last",
        "_parts",
        "_states",
        "_steps",
    )

    def __init__(self, parts: list[bytes | _Expression]) -> None:
        self._parts = parts
        self._states: dict[tuple[int, bool], _State] = {}
        self._steps = 0
        self._begin: tuple[int, bool] | None = None

    def matches(self, rest: bytes) -> bool:
        """Whether the whole of `rest` is an expansion. One step a byte."""
        state = self._state(*(self._begin or self._build()))
        for byte in rest:
            state = state[byte]
            if not state.places and not state.ends:
                return False
        return state.ends

    def step(self, state: _State, byte: int) -> _State:
        """Where `byte` leads: the places that take it, and what may come after them.

        O(variables of the template), not its length.
        """
        self._steps += 1
        if self._steps > STEPS_KEPT:
            self._steps = 0
            self._states.clear()
        taken = state.places & self._accepts[byte]
        branching = taken & self._branching
        places = (taken ^ branching) << 1
        for place in _bits(branching):
            places |= self._follow[place]
        return self._state(places, bool(taken & self._last))

    def _build(self) -> tuple[int, bool]:
        places = _Places()
        whole = _NOTHING
        for part in self._parts:
            fragment = places.text(part) if isinstance(part, bytes) else places.expression(part)
            whole = places.then(whole, fragment)
        accepts = [0] * 256
        for allowed, takers in places.takers.items():
            for byte in set(allowed):
                accepts[byte] |= takers
        # Places are numbers as long as the template: equal ones are kept once.
        once: dict[int, int] = {}
        self._accepts = [once.setdefault(takers, takers) for takers in accepts]
        self._last = whole.last
        # Within literal text the next place is the following one; only the others need a look each,
        # and only theirs are kept.
        follow = places.follow
        self._follow = {at: next for at, next in enumerate(follow) if next != 2 << at}
        self._branching = sum(1 << place for place in self._follow)
        self._begin = (whole.first, whole.optional)
        return self._begin

    def _state(self, places: int, ends: bool) -> _State:
        state = self._states.get((places, ends))
        if state is None:
            state = self._states[places, ends] = _State(self, places, ends)
        return state


def _bits(places: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while places:
        lowest = places & -places
        yield lowest.bit_length() - 1
        places ^= lowest
