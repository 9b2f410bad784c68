"""What all checks share: three outcomes, a safe way to call a learner's function, and careful comparing.

    @check
    def perplexity(answer: object) -> str:
        check_function(answer, lambda loss: math.exp(loss), [(2.31,), (0.7,)], [
            Misconception("That is 2 to the power of the loss: the loss is in nats.", lambda loss: 2**loss),
        ])
        return "Losses are logarithms, and the exponential undoes them."

A check that passes shows "Right. ..."; else it raises `NotAttempted` or `Wrong`, which no notebook shows as
a stack trace.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

from nanolab.checks.comparing import compare, diagnose_value, kind_of, same
from nanolab.checks.running import Printed, call, call_printed, shown
from nanolab.checks.verdicts import CheckFailed, NotAttempted, Wrong, attempted, marked_up
from nanolab.viz.output import publish

__all__ = [
    "CheckFailed", "Misconception", "NotAttempted", "Printed", "Wrong", "attempted", "call", "call_printed",
    "check", "check_function", "check_unchanged", "compare", "diagnose_value", "same", "shown",
]  # fmt: skip

P = ParamSpec("P")

TYPED_IN = "It is the same answer for every input. Was it typed in by hand? Compute it from what comes in."
ROUNDED = "Is it rounded? Give the number as it is: what is shown of it may be short."
NO_RETURN = "For other inputs it did: every way through it must end with `return` and a value."


# ---- a check cell


def check(function: Callable[P, str | None]) -> Callable[P, None]:
    """Make a check of a function that raises `NotAttempted` or `Wrong`, or returns what to add to "Right".

    A positional argument that is `...` or None was not attempted. Any other exception becomes a `Wrong` in
    plain words: whatever a learner hands in, they see no stack trace of ours.
    """
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        failure: CheckFailed
        try:
            for position, value in enumerate(args):
                if not attempted(value):
                    name = f"`{names[min(position, len(names) - 1)]}`" if position else "your answer"
                    if value is None:
                        raise NotAttempted(
                            f"{name} is None. `print`, `append` and a function without `return` give that: "
                            "put the value itself there, run it, then this."
                        )
                    raise NotAttempted(
                        f"{name} still has a `...`. Fill in the TODO that it comes from, run it, then this."
                    )
            praise = function(*args, **kwargs)
        except CheckFailed as error:
            failure = error
        except Exception as error:
            kinds = ", ".join(kind_of(value).partition(":")[0] for value in args)
            failure = Wrong(
                f"this check cannot read what it was given ({kinds}).",
                cause=f"Compare with the form that the task asks for. ({type(error).__name__}: {error})",
            )
        else:
            _show_right(praise or "")
            return
        failure.show()
        raise failure.with_traceback(None) from None

    return checked


def _show_right(praise: str) -> None:
    style = "border-left:6px solid #009E73;background:#E6F5F0;color:#222222;padding:6px 12px;margin:4px 0"
    markup = f'<div style="{style}"><b>✓ Right.</b> {marked_up(praise)}</div>'
    publish({"text/html": markup, "text/plain": f"✓ Right. {praise}".strip()})


# ---- finding out why


@dataclass(frozen=True)
class Misconception:
    """A way to get it wrong, and what to tell who did."""

    message: str
    wrong: Callable[..., object]
    """takes a case, as the right function does; where it raises, it explains nothing"""


def check_function(
    fn: object,
    right: Callable[..., object],
    cases: Iterable[tuple[Any, ...]],
    misconceptions: Sequence[Misconception] = (),
    tolerance: float = 1e-4,
    what: str = "",
    seconds: float = 10.0,
    unit: str = "",
) -> None:
    """Call the learner's `fn` on every case and compare with `right`, which must not use anything of theirs.

    If it differs, the first misconception that gives the learner's answers on all cases is named. Give
    several cases, drawn with a seed, none of which stands in the notebook. Arguments are copied before
    each call, so that a function which changes them harms nobody.
    """
    cases = list(cases)
    what = what or f"`{getattr(fn, '__name__', 'your function')}`"
    answers: list[object] = []
    for case in cases:
        try:
            got = call(fn, *_copies(case), seconds=seconds)
        except NotAttempted:
            if not answers and not any(_answered(fn, later, seconds) for later in cases[1:]):
                raise
            raise Wrong(f"{what} of {_arguments(case)} returned nothing.", cause=NO_RETURN) from None
        answers.append(got)
        expected = right(*_copies(case))
        try:
            compare(got, expected, f"{what} of {_arguments(case)}", tolerance, unit)
        except Wrong as wrong:
            # The other cases help to tell one misconception from another.
            for later in cases[len(answers) :]:
                try:
                    answers.append(call(fn, *_copies(later), seconds=seconds))
                except CheckFailed:
                    break
            cause = _cause(answers, cases, right, misconceptions, tolerance)
            raise wrong.because(cause) from None


def check_unchanged(fn: object, *case: Any, cause: str) -> None:
    """Raise `Wrong` where the learner's `fn` changes an array, tensor or list of the `case` it is given."""
    given = _copies(case)
    call(fn, *given)
    for after, before in zip(given, case, strict=True):
        differs = after != before
        if bool(differs.any()) if hasattr(differs, "any") else differs:
            raise Wrong("your function changed what it was given: after it, the notebook goes on with that.",
                        cause=cause)  # fmt: skip


def _answered(fn: object, case: tuple[Any, ...], seconds: float) -> bool:
    """Whether a function that returned nothing for one input has something to say of another."""
    try:
        return attempted(call(fn, *_copies(case), seconds=min(1.0, seconds)))
    except CheckFailed:
        return False


def _cause(
    answers: Sequence[object],
    cases: Sequence[tuple[Any, ...]],
    right: Callable[..., object],
    misconceptions: Sequence[Misconception],
    tolerance: float,
) -> str:
    tried = list(zip(answers, cases, strict=False))
    for misconception in misconceptions:
        try:
            if all(same(got, misconception.wrong(*_copies(case)), tolerance) for got, case in tried):
                return misconception.message
        except Exception:
            continue
    first, rest = answers[0], answers[1:]
    try:
        # What is not finite is the same for every input, too, and was not typed in.
        constant = bool(rest) and not _is_nan(first) and all(same(other, first, 1e-9) for other in rest)
    except AssertionError:  # answers that are no numbers
        constant = False
    varies = any(not same(right(*case), right(*cases[0]), tolerance) for _, case in tried)
    if constant and varies:
        return TYPED_IN
    return ROUNDED if _rounded(tried, right) else ""


def _rounded(tried: Sequence[tuple[object, tuple[Any, ...]]], right: Callable[..., object]) -> bool:
    """Whether all answers are the right ones, rounded to as many digits."""
    import numpy as np

    try:
        rights = [(got, np.asarray(right(*_copies(case)), float)) for got, case in tried]
        return any(all(same(got, one.round(digits), 1e-9) for got, one in rights) for digits in range(5))
    except (TypeError, ValueError, AssertionError):  # answers that are no numbers
        return False


def _is_nan(value: Any) -> bool:
    try:
        return math.isnan(value)
    except (TypeError, ValueError, RuntimeError):
        return False


# ---- the arguments of a case


def _arguments(case: tuple[Any, ...]) -> str:
    return ", ".join(shown(value, 60) for value in case) or "nothing"


def _copies(case: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_copy(value) for value in case)


def _copy(value: Any) -> Any:
    """Tensors, arrays and containers anew; models and the like as they are."""
    if hasattr(value, "clone") and hasattr(value, "detach"):
        return value.detach().clone()
    if type(value).__module__ == "numpy" and hasattr(value, "copy"):
        return value.copy()
    if type(value) in (list, tuple, set):
        return type(value)(_copy(one) for one in value)
    return {key: _copy(one) for key, one in value.items()} if type(value) is dict else value
