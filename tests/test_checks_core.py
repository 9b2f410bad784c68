"""The framework of the checks: three outcomes, calls that come back, comparisons that say what differs."""

from __future__ import annotations

import math
import sys
import time

import numpy as np
import pytest
import torch

from nanolab.checks import core, verdicts
from nanolab.checks.core import (
    Misconception,
    NotAttempted,
    Wrong,
    attempted,
    call,
    call_printed,
    check,
    check_function,
    compare,
    diagnose_value,
)
from nanolab.errors import NanolabError


@pytest.fixture
def shown(monkeypatch):
    """What checks would show in a notebook, as mime bundles."""
    bundles: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.core.interactiveshell.InteractiveShell.initialized", lambda: True)
    for module in (core, verdicts):
        monkeypatch.setattr(module, "publish", bundles.append)
    return bundles


@check
def is_four(answer: object) -> str:
    compare(answer, 4, "the answer")
    return "Four it is."


# ---- outcomes


def test_right_wrong_and_not_attempted_are_three_visibly_different_things(shown):
    is_four(4)
    with pytest.raises(Wrong):
        is_four(5)
    with pytest.raises(NotAttempted):
        is_four(...)
    pages = [bundle["text/html"] for bundle in shown]
    for words, page in zip(("✓ Right.", "✗ Not right yet", "○ Not attempted yet"), pages, strict=True):
        assert words in page and not any(words in other for other in pages if other is not page)
    assert "Four it is." in pages[0]
    styles = [page.partition('style="')[2].partition('"')[0] for page in pages]
    backgrounds = [style.partition("background:")[2].partition(";")[0] for style in styles]
    assert len(set(backgrounds)) == 3
    # Dark ink on light paper, whatever the theme.
    assert all("color:#222222" in style for style in styles)


def test_the_box_has_what_came_what_was_expected_and_how_far_apart(shown):
    with pytest.raises(Wrong):
        is_four(5.5)
    for text in ("5.5", "expected:</b>", "largest difference:</b>", "1.5"):
        assert text in shown[0]["text/html"]
    assert "you have: 5.5" in shown[0]["text/plain"]


def test_what_a_learner_wrote_cannot_become_markup(shown):
    with pytest.raises(Wrong):
        is_four("<script>alert(1)</script>")
    assert "<script>" not in shown[0]["text/html"]


def test_what_stands_between_backticks_is_code_except_in_the_learners_own_values(shown):
    with pytest.raises(Wrong):
        is_four("`x`")
    assert "`x`" in shown[0]["text/html"]
    assert verdicts.marked_up("`f` of <b> is ` not right.") == "<code>f</code> of &lt;b&gt; is ` not right."


def test_a_notebook_shows_one_plain_line_instead_of_a_stack_trace():
    for failure in (NotAttempted(), Wrong("no", got=1, expected=2, cause="why")):
        (line,) = failure._render_traceback_()
        assert "\n" not in line and "Traceback" not in line
        assert isinstance(failure, AssertionError) and isinstance(failure, NanolabError)


def test_a_failed_check_carries_no_trace_of_ours():
    for answer in (5, object()):
        with pytest.raises(Wrong) as caught:
            is_four(answer)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize("blank", [..., None, [1, ...], {"a": ...}, (1, [2, ...])])
def test_a_blank_is_not_attempted_and_no_other_thing(blank):
    assert not attempted(blank)
    with pytest.raises(NotAttempted, match="answer"):
        is_four(blank)


@pytest.mark.parametrize("value", [0, "", [], False, [None], torch.zeros(3), lambda: ...])
def test_whatever_else_was_filled_in_counts_as_attempted(value):
    assert attempted(value)


def test_a_check_that_stumbles_says_so_in_plain_words():
    @check
    def broken(answer: object) -> None:
        raise KeyError("loss")

    with pytest.raises(Wrong, match="cannot read what it was given.*a list") as caught:
        broken([1, 2])
    assert "KeyError" in str(caught.value) and "Traceback" not in str(caught.value)


def test_interrupting_a_check_stops_it():
    @check
    def slow(answer: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slow(1)


# ---- calling


def test_a_call_gives_what_the_function_returns():
    assert call(lambda a, *, b: a + b, 1, b=2) == 3


def blank_function(x):
    """Nothing yet."""
    ...


def unwritten(x):
    raise NotImplementedError


@pytest.mark.parametrize("fn", [blank_function, unwritten])
def test_a_function_still_to_be_written_is_not_attempted(fn):
    with pytest.raises(NotAttempted, match=fn.__name__):
        call(fn, 1)


def divides(x):
    y = 0
    return x / y


def test_an_exception_is_told_with_the_learners_own_line():
    line = divides.__code__.co_firstlineno + 2
    with pytest.raises(
        Wrong, match=f"`divides` raised ZeroDivisionError: .*, in line {line}: `return x / y`"
    ):
        call(divides, 1)


def test_leaving_the_program_or_recursing_for_ever_is_an_exception_like_any_other():
    def again(x):
        return again(x)

    with pytest.raises(Wrong, match="SystemExit"):
        call(lambda: sys.exit(3))
    with pytest.raises(Wrong, match="RecursionError"):
        call(again, 1)


def endless(x):
    while True:
        print("still here", x)
        time.sleep(0.001)


def stubborn(x):
    while x:
        try:
            time.sleep(0.001)
        except BaseException:
            x -= 1


@pytest.mark.parametrize("fn", [endless, stubborn])
def test_a_loop_that_never_ends_is_told_and_stopped(fn):
    start = time.monotonic()
    with pytest.raises(Wrong, match="did not come back within 0.2 seconds: is there a loop that never ends"):
        call(fn, 3, seconds=0.2)
    assert time.monotonic() - start < 5


def test_what_a_function_prints_is_kept_back_and_told_when_it_fails(capsys):
    assert call_printed(lambda: print("hello")).text == "hello\n"
    with pytest.raises(Wrong, match="still here 7"):
        call(endless, 7, seconds=0.2)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("thing", [3, "text", [1]])
def test_a_value_where_a_function_is_needed_is_told(thing):
    with pytest.raises(Wrong, match="needs a function"):
        call(thing)


# ---- comparing


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.00005, 1.0), (torch.tensor(1.0), 1), (np.float32(2.5), 2.5), (torch.tensor([3.0]), 3), (1e6 + 50, 1e6),
        ([1, 2.0], torch.tensor([1, 2])), ([torch.tensor(1.0), 2], [1, 2]), ((0.5, 1), np.array([0.5, 1])),
        (torch.tensor([1.0], dtype=torch.bfloat16, requires_grad=True), [1.0]), (np.bool_(True), True),
        (torch.tensor(False), False), ("a", "a"), (("a", "b"), ["a", "b"]), ({"x": 1.0}, {"x": 1}),
        (range(3), [0, 1, 2]), (math.inf, math.inf),
    ],
)  # fmt: skip
def test_equivalent_answers_are_equal(got, expected):
    compare(got, expected)


@pytest.mark.parametrize(
    ("got", "expected", "words"),
    [
        (1.1, 1.0, "largest difference: 0.1"),
        ([1.0, 5.0], [1.0, 2.0], "at index 1"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], r"shape \(2,\).*shape \(3,\)"),
        (torch.zeros(2, 3), 1.0, "shape .2, 3.*a single number"),
        ("1.0", 1.0, "should be a number, and is a text"),
        (True, 1, "True or False"),
        (1, True, "should be True or False, and is a whole number"),
        (max, 1.0, "a function: call it"),
        (float("nan"), 1.0, "not finite"),
        ([1.0, math.inf], [1.0, 2.0], "not finite at index 1"),
        ([[1, 2], [3]], [1.0], "should be numbers"),
        ("b", "a", "'b'"),
        (["a", "c"], ["a", "b"], "not right"),
        (["a"], ["a", "b"], "1 entries, where 2"),
        ({"x": 1}, {"x": 2}, "at 'x'"),
        ({"y": 1}, {"x": 2}, "no entry 'x'"),
        ({"x": 2, "y": 1}, {"x": 2}, "too many: 'y'"),
        ([1], {"x": 2}, "should be a dictionary"),
    ],
)
def test_what_differs_is_said_in_plain_words(got, expected, words):
    with pytest.raises(Wrong, match=f"(?s){words}"):
        compare(got, expected)


def test_the_unit_and_the_name_of_the_value_are_told():
    with pytest.raises(Wrong, match=r"(?s)The loss is not right.*2 nats.*1 nats"):
        compare(2.0, 1.0, "the loss", unit="nats")


def test_a_missing_value_is_not_attempted():
    with pytest.raises(NotAttempted):
        compare(..., 1.0)


# ---- why


CASES = [(1.5,), (0.3,), (2.0,)]
TRAPS = [
    Misconception("base two", lambda x: 2**x),
    Misconception("upside down", lambda x: math.exp(-x)),
    Misconception("raises", lambda x: 1 / 0),
]


def test_the_right_function_passes_in_any_form():
    for fn in (math.exp, lambda x: torch.tensor(x).exp(), lambda x: np.exp(x)):
        check_function(fn, math.exp, CASES, TRAPS)


@pytest.mark.parametrize(
    ("fn", "cause"), [(lambda x: 2**x, "base two"), (lambda x: 1 / math.exp(x), "upside down")]
)
def test_a_misconception_is_named(fn, cause):
    with pytest.raises(Wrong, match=f"likely cause: {cause}"):
        check_function(fn, math.exp, CASES, TRAPS)


def test_a_misconception_that_explains_only_some_of_the_answers_is_not_named():
    with pytest.raises(Wrong) as caught:
        check_function(lambda x: 2**x if x > 1 else 7, math.exp, CASES, TRAPS)
    assert "likely cause" not in str(caught.value)


def test_a_way_through_without_return_is_not_a_blank():
    def first_forgotten(x):
        if x < 1:
            return math.exp(x)

    with pytest.raises(Wrong, match="every way through it must end with `return`"):
        check_function(first_forgotten, math.exp, CASES)
    with pytest.raises(NotAttempted):
        check_function(lambda x: None, math.exp, CASES)


def test_an_answer_that_never_varies_was_typed_in():
    with pytest.raises(Wrong, match="typed in by hand"):
        check_function(lambda x: math.exp(1.5), math.exp, CASES, TRAPS)


@pytest.mark.parametrize("digits", [0, 1, 3])
def test_an_answer_that_was_rounded_hears_so(digits):
    def root(x):
        return round(math.sqrt(x), digits)

    with pytest.raises(Wrong) as caught:
        check_function(root, math.sqrt, [(3,), (11,), (240,)])
    assert "rounded" in caught.value.cause

    with pytest.raises(Wrong) as caught:
        check_function(lambda x: root(x) + 0.04, math.sqrt, [(3,), (11,), (240,)])
    assert caught.value.cause == ""


def test_an_answer_that_should_not_vary_is_not_called_typed_in():
    with pytest.raises(Wrong) as caught:
        check_function(lambda x: 3.0, lambda x: 2.0, CASES)
    assert "typed in" not in str(caught.value)


def test_a_function_that_changes_its_arguments_harms_nobody():
    def doubles(x, items):
        x.mul_(2)
        items.append(1)
        return x.sum()

    tensor, items = torch.ones(3), [1]
    check_function(doubles, lambda x, items: 2.0 * 3, [(tensor, items)] * 2)
    assert tensor.eq(1).all() and items == [1]


def test_a_wrong_value_is_recognised():
    with pytest.raises(Wrong, match="likely cause: that is in nats"):
        diagnose_value(0.693, 1.0, {"that is in nats": math.log(2)}, tolerance=1e-3)
    diagnose_value(1.0, 1.0, {"never shown": 1.0})
    with pytest.raises(NotAttempted):
        diagnose_value(..., 1.0, {})
