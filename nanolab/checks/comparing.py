"""Whether an answer is right: numbers within a tolerance, texts exactly, and what to say where it is not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from nanolab.checks.running import shown
from nanolab.checks.verdicts import CheckFailed, NotAttempted, Wrong, attempted
from nanolab.viz.output import number


def compare(
    got: object, expected: object, what: str = "", tolerance: float = 1e-4, unit: str = "", cause: str = ""
) -> None:
    """Raise `Wrong` where `got` is not `expected`, NotAttempted where it is `...` or None.

    Numbers, arrays, tensors and nested sequences are equal where they differ by no more than `tolerance`
    times the larger of 1 and the expected size; texts, True and False exactly; mappings key by key. A single
    number may come as a tensor or array of one element.
    """
    what = what or "your answer"
    if not attempted(got):
        raise NotAttempted(f"{what} is not there yet. Fill in the TODO above, run it, then this.")
    if isinstance(expected, Mapping):
        _compare_mappings(got, expected, what, tolerance, unit, cause)
    elif isinstance(expected, (str, bool)) or _has_texts(expected):
        _compare_exactly(got, expected, what, cause)
    else:
        _compare_numbers(got, expected, what, tolerance, unit, cause)


def same(got: object, expected: object, tolerance: float = 1e-4) -> bool:
    """Whether `compare` would find nothing to say."""
    try:
        compare(got, expected, tolerance=tolerance)
    except CheckFailed:
        return False
    return True


def _compare_mappings(
    got: object, expected: Mapping[Any, Any], what: str, tolerance: float, unit: str, cause: str
) -> None:
    if not isinstance(got, Mapping):
        raise Wrong(f"{what} should be a dictionary, and is {kind_of(got)}.", got=shown(got), cause=cause)
    missing = [key for key in expected if key not in got]
    if missing:
        raise Wrong(f"{what} has no entry {missing[0]!r}.", got=shown(list(got)), cause=cause)
    extra = [key for key in got if key not in expected]
    if extra:
        raise Wrong(f"{what} has an entry too many: {extra[0]!r}.", got=shown(list(got)), cause=cause)
    for key, value in expected.items():
        compare(got[key], value, f"{what}, at {key!r},", tolerance, unit, cause)


def _compare_exactly(got: object, expected: object, what: str, cause: str) -> None:
    plain = _unwrapped(got)
    if isinstance(expected, (str, bool)) and not isinstance(plain, type(expected)):
        kind = "a text" if isinstance(expected, str) else "True or False"
        raise Wrong(f"{what} should be {kind}, and is {kind_of(got)}.", got=shown(got), cause=cause)
    if isinstance(expected, (list, tuple)):
        if isinstance(plain, (str, Mapping)) or not isinstance(plain, Iterable):
            raise Wrong(f"{what} should be a list, and is {kind_of(got)}.", got=shown(got), cause=cause)
        plain, expected = list(plain), list(expected)
        if len(plain) != len(expected):
            lengths = f"{what} has {len(plain)} entries, where {len(expected)} are expected."
            raise Wrong(lengths, got=shown(plain), expected=shown(expected), cause=cause)
    if plain != expected:
        raise Wrong(f"{what} is not right.", got=shown(plain), expected=shown(expected), cause=cause)


def _compare_numbers(
    got: object, expected: object, what: str, tolerance: float, unit: str, cause: str
) -> None:
    import numpy as np

    unit = f" {unit}" if unit else ""
    wanted = _array(expected)
    assert wanted is not None, "a check compares with numbers, texts, or mappings of these"
    values = None if isinstance(got, (str, bool)) else _array(got)
    if values is None:
        kind = "a number" if wanted.ndim == 0 else "numbers"
        raise Wrong(f"{what} should be {kind}, and is {kind_of(got)}.", got=shown(got), cause=cause)
    if wanted.ndim == 0 and values.size == 1 and type(got) is tuple:
        comma = cause or "A comma after the value makes a tuple of it."
        raise Wrong(f"{what} should be a number, and is {kind_of(got)}.", got=shown(got), cause=comma)
    if wanted.ndim == 0 and values.size == 1 and not isinstance(got, (list, tuple)):
        values = values.reshape(())
    if values.shape != wanted.shape:
        raise Wrong(
            f"{what} has the wrong shape.",
            got=_shape_words(values),
            expected=_shape_words(wanted),
            cause=cause,
        )
    if values.size == 0:
        return
    odd = ~np.isfinite(values) & np.isfinite(wanted)
    if odd.any():
        place = np.unravel_index(int(odd.argmax()), values.shape)
        raise Wrong(
            f"{what} is not finite{_where(place)}.", got=f"{values[place]}",
            expected=f"{_precise(float(wanted[place]))}{unit}",
            cause=cause or "A logarithm of zero, a division by zero, or a search that found nothing?",
        )  # fmt: skip
    with np.errstate(invalid="ignore"):
        equal = (values == wanted) | (np.isnan(values) & np.isnan(wanted))
        gaps = np.where(equal, 0.0, np.abs(values - wanted))
    allowed = tolerance * np.maximum(1.0, np.abs(np.where(np.isfinite(wanted), wanted, 1.0)))
    excess = np.where(np.isnan(gaps), math.inf, gaps / np.maximum(allowed, 1e-300))
    if (excess <= 1).all():
        return
    place = np.unravel_index(int(gaps.argmax()), gaps.shape)
    off = int((excess > 1).sum())
    many = f" {off} of {gaps.size} values are off; this is the worst." if gaps.ndim else ""
    raise Wrong(
        f"{what} is not right{_where(place)}.{many}",
        got=f"{_precise(float(values[place]))}{unit}", expected=f"{_precise(float(wanted[place]))}{unit}",
        difference=f"{number(float(gaps[place]))}{unit}", cause=cause,
    )  # fmt: skip


def diagnose_value(
    got: object,
    expected: object,
    wrong_values: Mapping[str, object],
    tolerance: float = 1e-4,
    what: str = "",
    unit: str = "",
) -> None:
    """Compare a value; the message of that one of `wrong_values`, `{message: value}`, is the likely cause."""
    if attempted(got) and same(got, expected, tolerance):
        return
    cause = next((text for text, value in wrong_values.items() if same(got, value, tolerance)), "")
    compare(got, expected, what, tolerance, unit, cause)


# ---- plain words and plain numbers


def _array(value: object) -> Any:
    """The value as a float64 array; None where it holds anything but numbers."""
    import numpy as np

    def plain(item: Any) -> Any:
        if hasattr(item, "detach"):
            return item.detach().cpu().double().numpy()
        if isinstance(item, (list, tuple)):
            return [plain(one) for one in item]
        return item

    if isinstance(value, (str, bytes, Mapping)) or callable(value):
        return None
    if isinstance(value, (set, frozenset)) or (isinstance(value, Iterable) and not hasattr(value, "__len__")):
        # Zero-dimensional tensors and arrays are iterable in type only.
        value = list(value) if not hasattr(value, "ndim") else value
    try:
        array = np.asarray(plain(value))
        return array.astype(np.float64) if array.dtype.kind in "biuf" else None
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _unwrapped(value: object) -> object:
    """A number or truth value out of a tensor or array of one element; everything else as it is."""
    if hasattr(value, "item") and hasattr(value, "dtype"):
        try:
            return value.item()
        except (TypeError, ValueError, RuntimeError):
            return value
    return value


def _has_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and any(isinstance(one, (str, bool)) for one in value)


def kind_of(value: object) -> str:
    """What a value is, in the words of a learner."""
    words: dict[type, str] = {
        bool: "True or False", int: "a whole number", float: "a number", str: "a text", list: "a list",
        tuple: "a tuple", dict: "a dictionary", type(None): "None",
    }  # fmt: skip
    if type(value) in words:
        return words[type(value)]
    if callable(value) and not hasattr(value, "parameters"):
        return "a function: call it, with its brackets"
    return f"of type {type(value).__name__}"


def _shape_words(array: Any) -> str:
    return "a single number" if array.ndim == 0 else f"shape {tuple(array.shape)}"


def _where(place: tuple[Any, ...]) -> str:
    return f" at index {', '.join(str(int(one)) for one in place)}" if place else ""


def _precise(value: float) -> str:
    return f"{value:.6g}"
