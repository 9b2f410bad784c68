"""Guesses and bands: what the learner predicts, what came out, and what it should have been.

    guess = predict("first loss, in nats", 8.0)      the guess is kept
    reveal(guess, loss, "nats")                      and stands beside the result
    expect("base/first_loss", loss)                  which is compared with the band of the profile

Bands live in `bands.json`: a low and a high end for each profile, and the likely cause on either side.
"""

from __future__ import annotations

import contextlib
import html
import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from nanolab.errors import ConfigError
from nanolab.paths import atomic_write, home
from nanolab.profiles import get_profile
from nanolab.viz.output import number, publish

GOOD, ODD, QUIET, WARNING = "#009E73", "#D55E00", "#767676", "#E69F00"
WHITE, YELLOW = "#FFFFFF", "#FFF2CC"


@dataclass(frozen=True)
class Prediction:
    """What the learner expects, before the cell that tells."""

    question: str
    value: Any


@dataclass(frozen=True)
class Outcome:
    """A measured value beside its band."""

    name: str
    value: float
    low: float
    high: float
    ok: bool
    message: str

    def _ipython_display_(self) -> None:
        """Nothing: `expect` has shown it, also where its call is the last line of a cell."""


def note(text: str, colour: str = QUIET, paper: str = WHITE) -> None:
    """One line below a cell, with a coloured edge; plain text where no notebook runs."""
    style = f"border-left:4px solid {colour};padding:4px 10px;margin:4px 0;background:{paper};color:#222222"
    publish({"text/html": f'<div style="{style}">{html.escape(text)}</div>', "text/plain": text})


def banner(text: str) -> None:
    """A note that must not be missed, on yellow: what stands in for something the learner lacks."""
    note(text, WARNING, YELLOW)


def predict(question: str, guess: Any) -> Prediction:
    """Keep the learner's guess. Change the second argument to yours, then run the cell."""
    path = home() / "predictions.json"
    kept: dict[str, Any] = {}
    # None yet, or damaged: a lost guess is not worth an error.
    with contextlib.suppress(OSError, ValueError, TypeError):
        kept = dict(json.loads(path.read_text(encoding="utf-8")))
    atomic_write(path, json.dumps({**kept, question: guess}, indent=1, default=str) + "\n")
    note(f"Your guess for {question}: {_shown(guess)}")
    return Prediction(question, guess)


def reveal(guess: Prediction, measured: Any, unit: str = "") -> None:
    """Show the guess beside the result."""
    unit, measured = f" {unit}" if unit else "", _plain(measured)
    text = f"{guess.question}: you said {_shown(guess.value)}, it is {_shown(measured)}{unit}."
    if _is_number(guess.value) and _is_number(measured):
        off = abs(float(guess.value) - float(measured))
        close = off <= 0.1 * max(abs(float(measured)), 1e-9)
        text += " Close." if close else f" That is {number(off)}{unit} apart."
    note(text, "#0072B2")


def expect(name: str, value: Any, profile: str | None = None) -> Outcome:
    """Compare a measured value with the band of the profile, and show what to make of it.

    A value outside is no error: the line names the likely cause. `profile` is `$NANOLAB_PROFILE`, or laptop.
    Where a profile has no band, it says so: gpu has none, workshop those that the worksheet states.
    Raises ConfigError for an unknown name.
    """
    if name not in bands():
        raise ConfigError(f"expect({name!r}): nothing of that name is in nanolab/bands.json.")
    band, value = bands()[name], float(_plain(value))
    low, high = band.get(profile or get_profile().name) or (-math.inf, math.inf)
    unit = f" {band['unit']}" if band.get("unit") else ""
    range_text = f"{number(low)} to {number(high)}{unit}"
    what = f"{band['what']}: {number(value)}{unit}"
    ok = low <= value <= high
    if math.isinf(low) and math.isinf(high):
        message = f"{what}. No band was measured for this profile."
    elif ok:
        message = f"As expected. {what[0].upper()}{what[1:]}, and {range_text} is usual here."
    else:
        cause = band["low"] if value < low else band["high"]
        # Half sentences, as most bands have them, and whole ones.
        cause = cause if cause[:1].isupper() else f"Likely cause: {cause}."
        message = f"Not as expected. {what[0].upper()}{what[1:]}, where {range_text} is usual. {cause}"
    note(message, GOOD if ok else ODD)
    return Outcome(name, value, low, high, ok, message)


@cache
def bands() -> dict[str, Any]:
    """All bands, by name."""
    text = resources.files("nanolab").joinpath("bands.json").read_text(encoding="utf-8")
    return json.loads(text)


def _plain(value: Any) -> Any:
    """A number out of a `Score` (its accuracy) or out of a tensor or array of one element; else the value."""
    value = getattr(value, "accuracy", value)
    return value.item() if hasattr(value, "item") else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return number(float(value)) if _is_number(value) else str(value)
