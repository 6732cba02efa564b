"""Parses expressions. The grammar, from weak to strong:

either   = both ("||" both)*
both     = relation ("&&" relation)*
relation = unary [("==" | "!=" | "<" | "<=" | ">" | ">=") unary | "in" (list | path)]
unary    = "!" unary | primary
primary  = constant | "(" either ")" | "has" "(" path ")" | path ["." call]
path     = ("data" | "meta" | "event" | "topic") ("." name | "[" text or index "]")*
call     = ("startsWith" | "endsWith" | "contains") "(" (text | path) ")"
list     = "[" [constant ("," constant)*] "]"
"""

from typing import Final, NoReturn, cast

from fastsse.expressions.errors import InvalidExpression
from fastsse.expressions.tokens import END, Token, tokens_of
from fastsse.expressions.tree import (
    Both,
    Call,
    Compared,
    Constant,
    Has,
    In,
    Node,
    Not,
    Path,
    Value,
)

__all__ = ["EXPRESSION_BYTES_MAX", "parse"]

EXPRESSION_BYTES_MAX: Final = 2048
# A level takes up to three places of the stack in `native/filter.pxd`.
DEPTH_MAX: Final = 16
PATH_PARTS_MAX: Final = 16
INDEX_MAX: Final = 1_000_000
_ROOTS: Final = ("data", "meta", "event", "topic")
_WORDS: Final = {"true": True, "false": False, "null": None}
_COMPARISONS: Final = ("==", "!=", "<", "<=", ">", ">=")
_TOPIC: Final = Path(("topic",))
_CALLS: Final = ("startsWith", "endsWith", "contains")


def parse(text: str) -> Node:
    """The expression of a text. O(its length). Raises InvalidExpression."""
    if len(text.encode("utf-8", "surrogatepass")) > EXPRESSION_BYTES_MAX:
        position = min(len(text), EXPRESSION_BYTES_MAX)
        raise InvalidExpression(text, position, f"More than {EXPRESSION_BYTES_MAX} bytes")
    parser = _Parser(text)
    node = parser.either()
    parser.expect(END)
    return node


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens_of(text))
        self._at = 0
        self._depth = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += 1
        return token

    def _accept(self, kind: str) -> bool:
        if self._next.kind != kind:
            return False
        self._at += 1
        return True

    def expect(self, kind: str) -> Token:
        """Takes a token of this kind."""
        if self._next.kind != kind:
            self._fail(f"Expected {kind}")
        return self._take()

    def _fail(self, reason: str, token: Token | None = None) -> NoReturn:
        raise InvalidExpression(self._text, (token or self._next).position, reason)

    def either(self) -> Node:
        """The weakest binding."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            self._fail(f"Nested deeper than {DEPTH_MAX}")
        node = self._both()
        while self._accept("||"):
            node = Both("||", node, self._both())
        self._depth -= 1
        return node

    def _both(self) -> Node:
        node = self._relation()
        while self._accept("&&"):
            node = Both("&&", node, self._relation())
        return node

    def _relation(self) -> Node:
        left = self._unary()
        token = self._next
        if token.kind in _COMPARISONS:
            self._take()
            right = self._unary()
            if token.kind not in ("==", "!=") and _TOPIC in (left, right):
                # An event can have several topics.
                self._fail(f"topic has no order: {token.kind} can't compare it", token)
            node: Node = Compared(token.kind, left, right)  # type: ignore[arg-type]
        elif token.kind == "name" and token.value == "in":
            self._take()
            node = In(left, self._container())
        else:
            return left
        if self._next.kind in _COMPARISONS or self._next[:2] == ("name", "in"):
            self._fail("Comparisons can't be chained: use && or parentheses")
        return node

    def _unary(self) -> Node:
        count = 0
        while self._accept("!"):
            count += 1
        node = self._primary()
        return Not(node) if count % 2 else Not(Not(node)) if count else node

    def _primary(self) -> Node:
        token = self._next
        if token.kind in ("number", "text"):
            return Value(self._take().value)
        if self._accept("("):
            node = self.either()
            self.expect(")")
            return node
        if token.kind != "name":
            self._fail("Expected a value")
        if token.value in _WORDS:
            self._take()
            return Value(_WORDS[str(token.value)])
        if token.value == "has":
            return self._has()
        return self._path_or_call()

    def _has(self) -> Node:
        self._take()
        self.expect("(")
        token = self._next
        node = self._path_or_call()
        if not isinstance(node, Path) or len(node.parts) < 2:
            self._fail("has() takes a field below data or meta, such as data.price", token)
        self.expect(")")
        return Has(node)

    def _path_or_call(self) -> Node:
        token = self._take()
        if token.kind != "name" or token.value not in _ROOTS:
            self._fail(f"Expected {', '.join(_ROOTS)} or a constant", token)
        parts: list[str | int] = [str(token.value)]
        while True:
            if self._next.kind == "." and self._is_call():
                self._take()
                return self._call(self._path(parts, token))
            if not self._add_part(parts):
                return self._path(parts, token)
            if len(parts) > PATH_PARTS_MAX:
                self._fail(f"A field of more than {PATH_PARTS_MAX} parts", token)

    def _path(self, parts: list[str | int], token: Token) -> Path:
        if len(parts) > 1 and parts[0] in ("event", "topic"):
            self._fail(f"{parts[0]} has no fields", token)
        return Path(tuple(parts))

    def _is_call(self) -> bool:
        """Whether a test follows the dot that is next."""
        behind = self._tokens[self._at + 1 : self._at + 3]
        return len(behind) == 2 and behind[0].value in _CALLS and behind[1].kind == "("

    def _add_part(self, parts: list[str | int]) -> bool:
        if self._accept("."):
            if self._next.kind != "name":
                self._fail("Expected the name of a field")
            name = self._take()
            parts.append(str(name.value))
            if self._next.kind == "(":
                self._fail(f"A function that is not there; there are {', '.join(_CALLS)}", name)
            return True
        if not self._accept("["):
            return False
        token = self._take()
        is_index = token.kind == "number" and type(token.value) is int
        if is_index and 0 <= cast(int, token.value) <= INDEX_MAX:
            parts.append(cast(int, token.value))
        elif token.kind == "text":
            parts.append(str(token.value))
        else:
            self._fail(f"Expected a text, or an index from 0 to {INDEX_MAX}", token)
        self.expect("]")
        return True

    def _call(self, left: Path) -> Node:
        name = str(self._take().value)
        self.expect("(")
        token = self._next
        right = self._primary()
        is_text = isinstance(right, Value) and isinstance(right.value, str)
        if not is_text and not isinstance(right, Path):
            self._fail(f"{name}() takes a text", token)
        self.expect(")")
        return Call(name, left, right)

    def _container(self) -> Path | tuple[Constant, ...]:
        token = self._next
        if not self._accept("["):
            node = self._path_or_call()
            if not isinstance(node, Path):
                self._fail("Expected a list or a field", token)
            return node
        constants: list[Constant] = []
        while not self._accept("]"):
            if constants:
                self.expect(",")
            constants.append(self._constant())
        return tuple(constants)

    def _constant(self) -> Constant:
        token = self._take()
        if token.kind in ("number", "text"):
            return token.value
        if token.kind == "name" and token.value in _WORDS:
            return _WORDS[str(token.value)]
        return self._fail("Expected a constant", token)
