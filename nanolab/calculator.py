"""The calculator a model may use while it answers: arithmetic, and counting letters. Nothing else.

What a model writes is never run. The text is parsed to a syntax tree, and a walker that knows numbers
and seven operators computes it: `48/2` -> `24`, `1,000*3` -> `3000`, `"strawberry".count("r")` -> `3`.
Everything is bounded, so that no text costs more than milliseconds.
"""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction

MAX_CHARACTERS = 200
MAX_NODES = 50
MAX_DEPTH = 20
MAX_RESULT_CHARACTERS = 32
MAX_BITS = 1024  # of any numerator or denominator on the way; a float holds no more either

ARITHMETIC = re.compile(r"[0-9.eE+\-*/%(), ]+")
THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
LEADING_ZEROS = re.compile(r"(?<![0-9.eE])(?<![eE][+\-])0+(?=[0-9])")
QUOTED = r"""("[^"\\]*"|'[^'\\]*')"""
COUNT = re.compile(rf"{QUOTED}\.count\( ?{QUOTED} ?\)")

BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


class Refused(Exception):
    """Not something this calculator computes."""


def calculate(expression: str) -> str | None:
    """The value of `expression` as text of at most 32 characters, or None. Never raises.

    Knows decimal numbers (`1,000` and `05` too), `+ - * / // % **`, brackets, and
    `"text".count("letter")`. Fractions are exact on the way, so `.1+.2` is `0.3`; a result that is not
    whole is rounded to 12 significant digits.
    """
    if len(expression) > MAX_CHARACTERS:
        return None
    expression = expression.strip()
    if counting := COUNT.fullmatch(expression):
        text, wanted = (quoted[1:-1] for quoted in counting.groups())
        return str(text.count(wanted)) if (text + wanted).isprintable() else None
    if not ARITHMETIC.fullmatch(expression):
        return None
    source = LEADING_ZEROS.sub("", THOUSANDS.sub("", expression))
    try:
        tree = ast.parse(source, mode="eval").body
        if sum(isinstance(node, ast.expr) for node in ast.walk(tree)) > MAX_NODES:
            return None
        return number_text(evaluate(tree, MAX_DEPTH))
    except (Refused, ArithmeticError, SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def evaluate(node: ast.expr, depth: int) -> Fraction:
    """The exact value of a syntax tree at most `depth` levels deep. Raises Refused."""
    if depth == 0:
        raise Refused
    match node:
        case ast.Constant(value=int() | float() as value):
            result = Fraction(str(value))  # through its text: 0.1 is one tenth, not the nearest float
        case ast.UnaryOp(op=ast.USub()):
            result = -evaluate(node.operand, depth - 1)
        case ast.UnaryOp(op=ast.UAdd()):
            result = evaluate(node.operand, depth - 1)
        case ast.BinOp(op=ast.Pow()):
            result = power(evaluate(node.left, depth - 1), evaluate(node.right, depth - 1))
        case ast.BinOp() if type(node.op) in BINARY:
            left, right = evaluate(node.left, depth - 1), evaluate(node.right, depth - 1)
            result = Fraction(BINARY[type(node.op)](left, right))
        case _:
            raise Refused
    return bounded(result)


def power(base: Fraction, exponent: Fraction) -> Fraction:
    """base ** exponent for a whole exponent, refused *before* it is computed if it would be too long."""
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or bits * abs(exponent) > MAX_BITS:
        raise Refused
    return base ** int(exponent)


def bounded(value: Fraction) -> Fraction:
    """The value itself, unless it is too long."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Refused
    return value


def number_text(value: Fraction) -> str | None:
    """3/1 -> "3", 5/2 -> "2.5"; None when longer than 32 characters."""
    text = str(value.numerator) if value.denominator == 1 else f"{float(value):.12g}"
    return text if len(text) <= MAX_RESULT_CHARACTERS else None
