"""Expressions over an event: a subset of CEL (https://cel.dev), for filters of streams.

    data.price > 5 && (event == "trade" || topic.startsWith("eu/"))

`compile_expression` parses a text and makes the native filter of it; `matches` evaluates one by the
same native function, for callers in Python.
"""

from fastsse.expressions.compiler import compile_expression
from fastsse.expressions.errors import InvalidExpression
from fastsse.expressions.evaluation import matches

__all__ = ["InvalidExpression", "compile_expression", "matches"]
