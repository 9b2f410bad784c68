"""The calculator: right where Python is right, silent about everything else, and never slow."""

from __future__ import annotations

import operator
import time
import warnings
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanolab.calculator import calculate

DEEP = 10**6
BALANCED = "+".join(["((1+1)+(1+1))"] * 8)  # 63 nodes, but only 10 levels
quick = settings(deadline=None, max_examples=60)

HOSTILE = [
    # empty, broken, unfinished
    "", " ", "\t\n", "(", ")", "()", "((((", "1+", "*1", "1 2", "1..2", "1.2.3", ".", "..", "...", "1e", "e5",
    "e", "E", "1e5e5", "1,2", "1,00", "10,00,000", ",", "(1,2)", "[1]", "{1}", "{1:2}", "{}", "1;2", "1\n2",
    "\\",
    # too large, too small, not a number
    "1/0", "1//0", "1%0", "0/0", "1.5/0", "0**-1", "9**9**9", "9**9**9**9", "10**100", "10**32", "2**-10**9",
    "99999999999999999**99999", "1e999", "-1e999", "1e308*10", "1e999-1e999", "nan", "inf", "-inf",
    "1e99999999999", "9" * 33, "9" * 200, "9" * 5000, "(-8)**(1/3)", "2**.5", "9**9**0.5", "1" + "0" * 40,
    # too long or too deep
    "(" * 100 + "1", "(" * 199, "(" * DEEP, "-" * 150 + "1", "1" * DEEP, "1+" * DEEP + "1", "-" * 30 + "1",
    "1" + "+1" * 22, BALANCED, "1e300*1e300/1e300/1e300", "+".join(["1"] * 60), "1" + "+1" * 30, "2**(" * 40,
    "[" * 190, "x" * DEEP, "\0" * DEEP, '"' * DEEP, '"a"' * 60,
    # names, calls, attributes, everything that runs
    "x", "_", "True", "False", "None", "abs(1)", "pow(2,3)", "print(1)", "int('1')", "eval('1')", "1 .real",
    "(1).bit_length()", "().__class__", "().__class__.__bases__[0].__subclasses__()", "''.__class__",
    "__import__('os').system('true')", "__import__", "open('x')", "exit()", "lambda: 1", "(lambda: 1)()",
    "[x for x in (1,2)]", "sum(x for x in range(9))", "{x for x in 'ab'}", "1 if 1 else 2", "1if 1else 2",
    "x:=1", "(x:=1)", "x=1", "import os", "yield 1", "await 1", "*1", "**1", "1 and 2", "not 1", "1<2",
    "1==1", "1 is 1",
    # operators that are not offered
    "~1", "1&2", "1|2", "1^2", "1<<9", "1>>1", "1@2", "50%", "$5", "3x4", "3×4", "6÷2", "5!", "2^8",
    # other numbers
    "0x10", "0b1", "0o7", "1_000", "1j", "2+3j", "1J*1J", "0x", "١+١", "１+１", "²", "½", "1+٣", "𝟙+𝟙", "Ⅷ",
    "1−1",
    # text
    '"a"', "'a'*9", "'a'*10**9", "'a'.zfill(50000000)", "'a'.ljust(10**9)", '"a"+"b"', 'f"{1}"',
    "f'{9**9**9}'.count('1')", 'b"a"', 'b"aa".count(b"a")', 'r"a".count("a")', '"a" "b"',
    '"""a""".count("a")', '"a".count', '"a".count()', '"a".count("a","b")', '"a".count("a",0)',
    '"a".count(1)', '"a".count(x)', '"a".upper()', '"a".count("a")*2', '"a".count("a") or "owned"',
    '"a".count("a");1', '"a".count("a").real', 'x.count("a")', '"a"[0]', '"a" % 1', '"%999999999d" % 1',
    '"{:>999999999}".format(1)', '"a\\"b".count("a")', '"\\N{BULLET}".count("a")', '"a\0b".count("a")',
    '"\ud800".count("a")', '"a\nb".count("a")', '"a\'.count("a")', "\ud800", "1\0", "\0", "1+1#", "# 1",
    "1+1 # two", "\ufeff1+1", "\u202e1+1", "🙂", "1🙂", "\x7f", "\x1b[31m",
]  # fmt: skip


def fastest(expression: str, enough: float) -> tuple[str | None, float]:
    """The result, and the least of up to twenty times in seconds: a busy machine must not fail a test."""
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        result = calculate(expression)
        best = min(best, time.perf_counter() - began)
        if best < enough:
            break
    return result, best


def test_there_are_more_than_a_hundred_hostile_texts():
    assert len(set(HOSTILE)) > 150


@pytest.mark.parametrize("expression", HOSTILE, ids=lambda text: ascii(text[:30]))
def test_hostile_text_gets_no_answer_no_exception_no_warning_and_no_time(expression):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, seconds = fastest(expression, enough=0.005)
    assert result is None
    assert seconds < 0.005


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3+4", "7"), ("48/2", "24"), ("7/2", "3.5"), ("2.50", "2.5"), ("3.0", "3"), ("1,000*3", "3000"),
        ("1,234,567+1", "1234568"), (".5*4", "2"), ("5.", "5"), ("20*.1", "2"), ("100-(20+30)", "50"),
        ("05+007", "12"), ("1.05+0", "1.05"), ("100", "100"), ("0", "0"), ("00", "0"), ("1e05", "100000"),
        ("2e-05", "2e-05"), ("-3", "-3"), ("--3", "3"), ("+3+3", "6"), ("3*+6", "18"), ("-3**2", "-9"),
        ("7//2", "3"), ("-7//2", "-4"), ("7%3", "1"), ("-7%3", "2"), ("2**10", "1024"), ("2**-1", "0.5"),
        ("0.3//0.1", "3"), ("0.3%0.1", "0"), ("0**0", "1"), ("10**31", "1" + "0" * 31),
        ("1/3", "0.333333333333"), ("1/3*3", "1"), (" 3 + 4 ", "7"), ("((((3))))", "3"),
        ("(" * 60 + "3" + ")" * 60, "3"), ("1-1.0", "0"), ("1e300/1e300", "1"),
        ("12345678.25*2", "24691356.5"),
    ],
)  # fmt: skip
def test_arithmetic_as_a_person_writes_it(expression, value):
    assert calculate(expression) == value


def test_a_tenth_and_two_tenths_are_three_tenths():
    """In floating point they are 0.30000000000000004, which a model would have to read and repeat."""
    assert calculate("0.1+0.2") == "0.3"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('"strawberry".count("r")', "3"), ("'strawberry'.count('r')", "3"),
        ("\"strawberry\".count('r')", "3"), ('"banana".count("an")', "2"), ('"banana".count("z")', "0"),
        ('"don\'t".count("\'")', "1"), ('"naïve".count("ï")', "1"), ('"abc".count("")', "4"),
        ('"a b".count( " " )', "1"), ('"".count("a")', "0"),
    ],
)  # fmt: skip
def test_letters_are_counted_with_either_quote(expression, value):
    assert calculate(expression) == value


OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}


def combined(parts: tuple) -> tuple[str, Fraction | None]:
    """Two (text, value) pairs and an operator as one such pair; None where zero divides."""
    (left, a), symbol, (right, b) = parts
    text = f"({left}{symbol}{right})"
    if a is None or b is None or (b == 0 and symbol in ("/", "//", "%")):
        return text, None
    return text, Fraction(OPERATORS[symbol](a, b))


NUMBERS = (st.integers(0, 999) | st.decimals(0, 99, places=2)).map(lambda n: (str(n), Fraction(n)))
SUMS = st.recursive(
    NUMBERS,
    lambda part: (
        st.tuples(part, st.sampled_from(sorted(OPERATORS)), part).map(combined)
        | part.map(lambda pair: (f"(-{pair[0]})", None if pair[1] is None else -pair[1]))
    ),
    max_leaves=6,
)


@quick
@given(SUMS)
def test_agrees_with_python_fractions(pair):
    expression, expected = pair
    got = calculate(expression)
    if expected is None:
        assert got is None
    elif expected.denominator == 1:
        assert got == str(expected.numerator)
    else:
        assert float(got) == pytest.approx(float(expected), rel=1e-11)


@quick
@given(st.integers(-99, 99), st.integers(0, 12))
def test_small_powers_agree_with_python(base, exponent):
    assert calculate(f"({base})**{exponent}") == str(base**exponent)


@quick
@given(st.text(max_size=40) | st.text("0123456789.+-*/%() ,eE\"'", max_size=60))
def test_no_text_raises_and_every_answer_is_short(text):
    result = calculate(text)
    assert result is None or 0 < len(result) <= 32


@quick
@given(st.text(st.characters(exclude_characters='"\\', categories=["L", "N", "P"]), max_size=30))
def test_counting_agrees_with_python(text):
    assert calculate(f'"{text}".count("a")') == str(text.count("a"))


@quick
@given(st.floats(1e-3, 1e9) | st.integers(0, 10**30))
def test_an_answer_can_be_calculated_again(number):
    once = calculate(str(number))
    assert once is not None and calculate(once) == once
