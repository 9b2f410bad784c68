"""Words, colours and plain tables that the widgets and their static twins have in common.

A learner's words, and a model's, are shown as text: they are escaped wherever HTML is made of them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets

from nanolab.autopsy import Token
from nanolab.errors import NanolabError
from nanolab.viz import tokens
from nanolab.viz.output import publish

SURPRISE = (
    (1, "#ffffd9", "#000000"),
    (3, "#c7e9b4", "#000000"),
    (5, "#7fcdbb", "#000000"),
    (8, "#41b6c4", "#000000"),
    (11, "#225ea8", "#ffffff"),
    (math.inf, "#081d58", "#ffffff"),
)
"""Up to so many bits: this background, this ink. Light to dark in even steps, yellow to blue: told apart
without red and green, and in grey (ColorBrewer's YlGnBu)."""
NO_PREDICTION = ("#e6e6e6", "#000000")


def visible(text: str) -> str:
    r"""A token's text with its blanks made visible, as `viz.chips` shows it: ` cat\n` -> `·cat↵`.

    Bytes that are part of a character keep their brackets, `<e2 80>`, where nothing else tells them apart.
    """
    return text if tokens.is_fragment(text) else tokens.visible(text)


def colours(token: Token) -> tuple[str, str]:
    """`(background, ink)` of a token's chip."""
    if not token.predicted or token.id is None:
        return NO_PREDICTION
    return next((back, ink) for limit, back, ink in SURPRISE if token.bits <= limit)


def percent(probability: float) -> str:
    """`0.123` -> `12.3%`; what is small keeps two digits, `0.00012` -> `0.012%`."""
    if math.isnan(probability):
        return "–"
    if probability < 1e-5:
        return "under 0.001%"
    return f"{probability:.1%}" if probability >= 0.01 else f"{100 * probability:.2g}%"


def bits(number: float) -> str:
    return "–" if math.isnan(number) else f"{number:.1f}"


def blocks(number: float, longest: int = 16) -> str:
    """A bar of block characters, one a bit, so that it shows where all styling is taken away."""
    return "" if math.isnan(number) else "█" * min(longest, round(number)) or "▏"


def in_html_table(rows: Sequence[Sequence[str]], head: Sequence[str], style: str = "") -> str:
    """A plain HTML table of texts, escaped. `style` of the cells is for tables that a kernel keeps alive."""
    # GitHub reads the attribute, Jupyter's own style sheet gives way to the style only.
    attributes = f'align="left" style="text-align:left;{style}"'

    def line(cells: Sequence[str], tag: str) -> str:
        columns = "".join(f"<{tag} {attributes}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{columns}</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def in_text_table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> str:
    """The same as monospaced text."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, *rows]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def beside(widget: ipywidgets.DOMWidget, text: str, markup: str) -> None:
    """Display a widget in one output with its static twin, which is shown where no kernel runs."""
    bundle = {**widget._repr_mimebundle_(), "text/plain": text, "text/html": markup}
    publish(bundle)


@contextmanager
def one_line(message: ipywidgets.HTML) -> Iterator[Callable[[], bool]]:
    """Show an error of this library as one line in `message`; yields a function: did all go well?"""
    failed = False
    try:
        yield lambda: not failed
    except NanolabError as error:
        failed = True
        message.value = f"<b>That did not work:</b> {html.escape(' '.join(str(error).split()))}"
