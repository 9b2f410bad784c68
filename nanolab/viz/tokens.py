"""Tokens to look at: chips, packed batches as strips, and tables. All text in them is escaped."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nanolab.viz import output
from nanolab.viz.output import COLOURS, dress, new_figure, number, show

if TYPE_CHECKING:
    from nanolab.tokenizer import Tokenizer

SPECIAL_NAME = re.compile(r"<\|[a-z_]+\|>")
BYTES = re.compile(r"<([0-9a-f]{2}(?: [0-9a-f]{2})*)>")
VISIBLE = {" ": "·", "\n": "↵", "\r": "␍", "\t": "⇥", "\\n": "↵", "\\r": "␍", "\\t": "⇥"}
"""What cannot be seen, and what stands for it; `Tokenizer.token_text` escapes line breaks and tabs."""
BLOCKS = "▁▂▃▄▅▆▇█"
HIGH, LOW = (213, 94, 0), (0, 114, 178)
"""Colours of the largest and of the most negative value: Okabe and Ito's vermilion and blue."""

_CHIP = "color:#111;padding:1px 3px;margin:1px;border-radius:3px;display:inline-block;white-space:pre;"
_PANEL = "background:#fff;color:#111;padding:10px 12px;border-radius:6px;line-height:1.9;"


def is_fragment(piece: str | bytes) -> bool:
    """Whether a token is part of a character only: bytes that are no UTF-8, or `<e2 80>` for them."""
    if isinstance(piece, str):
        return BYTES.fullmatch(piece) is not None
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def visible(piece: str | bytes) -> str:
    r"""A token as readable text: `" a\n"` -> `·a↵`, bytes that are no text as hex, `e2 80`."""
    if is_fragment(piece):
        return piece.hex(" ") if isinstance(piece, bytes) else piece[1:-1]
    if isinstance(piece, bytes):
        piece = piece.decode("utf-8")
    if not piece:
        return "∅"
    text = re.sub(r"\\[nrt]|[ \n\r\t]", lambda match: VISIBLE[match[0]], piece)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shade(value: float, largest: float) -> str:
    """A background from white (0) to vermilion (`largest`), or to blue for negative values."""
    if not math.isfinite(value) or largest <= 0:
        return "#eeeeee"
    share = min(1.0, abs(value) / largest)
    target = HIGH if value >= 0 else LOW
    return "#" + "".join(f"{round(255 + share * 0.85 * (channel - 255)):02x}" for channel in target)


def block(value: float, largest: float) -> str:
    """The size of a value as a block of text, for where colours are taken away (GitHub does)."""
    if not math.isfinite(value) or largest <= 0:
        return ""
    return BLOCKS[min(7, int(abs(value) / largest * 8))]


def chips(
    pieces: Sequence[str | bytes],
    values: Sequence[float] | None = None,
    mask: Sequence[int | bool] | None = None,
    special: Sequence[int | bool] | Collection[str] | None = None,
    caption: str = "",
    alt: str = "",
    unit: str = "",
    dimmed: str = "masked: not in the loss",
) -> None:
    """Display tokens as chips, with blanks made visible and bytes that are no text as hex.

    values: a number a token, shown as colour, with a scale; pointing at a chip shows the number. Negative
    values are blue. mask: tokens with 0 are dimmed; `dimmed`: what that means, for the legend. special: a
    flag a token, or the names of the special tokens; by default pieces that look like one, `<|bos|>`.
    Neighbouring chips without values alternate between two colours, so that it can be seen where a token
    ends.
    """
    texts = [visible(piece) for piece in pieces]
    flags = _special_flags(pieces, special)
    numbers = None if values is None else [float(value) for value in values]
    finite = [abs(value) for value in numbers or [] if math.isfinite(value)]
    largest = max(finite, default=0.0)
    parts = []
    for index, text in enumerate(texts):
        off = mask is not None and not mask[index]
        value = numbers[index] if numbers is not None else None
        parts.append(_chip(text, index, value, largest, off, flags[index], pieces[index], unit))
    legend = _legend(numbers, largest, "" if mask is None else dimmed, unit)
    what = alt or caption or f"{len(texts)} tokens"
    head = f'<div style="font-size:90%;color:#555">{html.escape(caption)}</div>' if caption else ""
    body = f"<div>{''.join(parts)}</div>" if parts else "<div>(no tokens)</div>"
    page = f'<div role="group" aria-label="{html.escape(what)}" style="{_PANEL}">{head}{body}{legend}</div>'
    plain = " | ".join(
        text + (f" {number(numbers[index])}" if numbers is not None else "")
        + (" (dimmed)" if mask is not None and not mask[index] else "")
        for index, text in enumerate(texts)
    )  # fmt: skip
    output.publish({"text/html": page, "text/plain": f"{what}: {plain}"})


def _special_flags(
    pieces: Sequence[str | bytes], special: Sequence[int | bool] | Collection[str] | None
) -> list[bool]:
    if special is None:
        return [isinstance(piece, str) and SPECIAL_NAME.fullmatch(piece) is not None for piece in pieces]
    if all(isinstance(item, str) for item in special) and len(special):
        return [piece in special for piece in pieces]
    return [bool(flag) for flag in special] or [False] * len(pieces)


def _chip(
    text: str, index: int, value: float | None, largest: float, off: bool, special: bool,
    piece: str | bytes, unit: str,
) -> str:  # fmt: skip
    if value is not None:
        look = f"background:{shade(value, largest)};"
    else:
        look = f"background:{'#d6e9f8' if index % 2 == 0 else '#fdeccb'};"
    if special:
        look += "border:1.5px solid #009E73;font-weight:bold;"
    elif is_fragment(piece):
        look += "border:1px dashed #767676;font-style:italic;"
    else:
        look += f"border:1px solid {'#cccccc' if value is not None else 'transparent'};"
    if off:
        look += "opacity:0.38;" if value is not None else "background:#f0f0f0;color:#767676;"
    told = f"token {index}"
    if value is not None:
        told += f": {number(value)}{' ' + unit if unit else ''}"
    told += ", dimmed" if off else ""
    bar = block(value, largest) if value is not None else ("✕" if off else "")
    # Shown only where style attributes are taken away, as GitHub does: there it stands for the colour.
    hidden = f'<sub style="display:none">{bar}</sub>' if bar else ""
    inner = html.escape(text).replace("↵", "↵<wbr>")
    return f'<code title="{html.escape(told)}" style="{_CHIP}{look}">{inner}</code>{hidden}'


def _legend(numbers: list[float] | None, largest: float, dimmed: str, unit: str) -> str:
    parts = []
    if numbers is not None and largest > 0:
        parts.append("scale:")
        negative = any(value < 0 for value in numbers)
        stops = [-1, -0.5, 0, 0.5, 1] if negative else [0, 0.25, 0.5, 0.75, 1]
        for stop in stops:
            look = f"{_CHIP}background:{shade(stop * largest, largest)};border:1px solid #ccc;"
            parts.append(f'<code style="{look}">{stop * largest:.2g}</code>')
        parts.append(html.escape(unit))
    if dimmed:
        look = f"{_CHIP}background:#f0f0f0;color:#767676;"
        parts.append(f'<code style="{look}">dimmed</code> {html.escape(dimmed)}')
    if not parts:
        return ""
    return f'<div style="font-size:85%;color:#555;margin-top:4px">{" ".join(parts)}</div>'


def table(rows: Sequence[Mapping[str, Any]] | Mapping[str, Any], caption: str = "") -> None:
    """Display rows as a plain table, which GitHub shows too; numbers stand right.

    rows: `[{"column": value}, ...]`; or `{"name": {"column": value}}`, a row a name; or `{"column":
    [values]}`; or `{"name": value}`, two columns without a head.
    """
    head, body = _cells(rows)
    body = [[_scalar(value) for value in row] for row in body]
    lines = [f"<caption>{html.escape(caption)}</caption>"] if caption else []
    if head:
        sides = ["right" if all(map(_is_number, column)) else "left" for column in zip(*body, strict=True)]
        cells = [
            f'<th align="{side}" style="text-align:{side}">{html.escape(name)}</th>'
            for name, side in zip(head, sides or ["left"] * len(head), strict=True)
        ]
        lines.append(f"<thead><tr>{''.join(cells)}</tr></thead>")
    shown = [[_show_value(value) for value in row] for row in body]
    lines.append("<tbody>")
    for row, texts in zip(body, shown, strict=True):
        cells = [
            f'<td align="{side}" style="text-align:{side}">{html.escape(text)}</td>'
            for value, text in zip(row, texts, strict=True)
            for side in ["right" if _is_number(value) else "left"]
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    page = f"<table>{''.join(lines)}</tbody></table>"
    output.publish({"text/html": page, "text/plain": _plain_table(head, body, shown, caption)})


def _cells(rows: Any) -> tuple[list[str], list[list[Any]]]:
    """The head of a table, empty for none, and its rows, each as long as the head."""
    if isinstance(rows, Mapping):
        values = list(rows.values())
        if values and all(isinstance(value, Mapping) for value in values):
            rows = [{"": name, **value} for name, value in rows.items()]
        elif values and all(isinstance(value, list | tuple) for value in values):
            longest = max(len(value) for value in values)
            return [str(name) for name in rows], [
                [value[i] if i < len(value) else "" for value in values] for i in range(longest)
            ]
        else:
            return [], [[name, value] for name, value in rows.items()]
    head = list(dict.fromkeys(name for row in rows for name in row))
    return [str(name) for name in head], [[row.get(name, "") for name in head] for row in rows]


def _scalar(value: Any) -> Any:
    """The number in a tensor of no dimensions, as a model gives it; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _show_value(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return number(float(value))
    return "" if value is None else str(value)


def _plain_table(head: list[str], body: list[list[Any]], shown: list[list[str]], caption: str) -> str:
    grid = ([head] if head else []) + shown
    if not grid:
        return f"{caption}\n(no rows)".strip()
    widths = [max(len(row[i]) for row in grid) for i in range(len(grid[0]))]
    right = [bool(body) and all(_is_number(row[i]) for row in body) for i in range(len(widths))]
    texts = [
        "  ".join(
            text.rjust(width) if flag else text.ljust(width)
            for text, width, flag in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in grid
    ]
    return "\n".join(([caption] if caption else []) + texts)


def strips(ids: Any, tokenizer: Tokenizer, title: str = "", alt: str = "") -> None:
    """Display a packed batch, ids `(rows, positions)`: a strip a row, a colour a document.

    Black is `<|bos|>`, with which every document begins; light grey is padding, `<|bos|>` after `<|bos|>` to
    the end of a row. A document that does not fit goes on, in its colour, in the next row.
    """
    batch = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
    bos = tokenizer.get_bos_token_id()
    fields, documents = _documents(batch, bos)
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    paint = [*COLOURS[:6], "#000000", "#E6E6E6"]
    figure = new_figure(7.2, min(6.0, 1.5 + 0.28 * len(batch)))
    axes = figure.add_subplot()
    axes.imshow(
        fields,
        cmap=ListedColormap(paint),
        vmin=0,
        vmax=len(paint) - 1,
        aspect="auto",
        interpolation="nearest",
    )
    for row in range(1, len(batch)):
        axes.axhline(row - 0.5, color="white", linewidth=3)
    dress(axes, "position in the row (tokens)", "row", title, legend=False)
    axes.grid(False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    keys = [
        Patch(color="#000000", label="<|bos|>"),
        Patch(color=paint[0], label="a document, one colour each"),
    ]
    if (fields == 7).any():
        keys.append(Patch(facecolor="#E6E6E6", label="padding"))
    figure.legend(handles=keys, loc="outside lower left", ncol=3, frameon=False, fontsize=9)
    padding = float((fields == 7).mean())
    what = alt or title or "A batch as coloured strips"
    words = f"{batch.shape[0]} rows of {batch.shape[1]} tokens hold {documents} documents"
    show(figure, f"{what.rstrip('.')}. {words}; {padding:.0%} is padding.")


def _documents(batch: np.ndarray, bos: int) -> tuple[np.ndarray, int]:
    """Colour numbers `(rows, positions)`, 0 to 5 a document, 6 bos, 7 padding; and how many documents."""
    fields = np.zeros(batch.shape, dtype=int)
    document, seen = -1, 0
    for row in range(batch.shape[0]):
        tail = batch.shape[1]
        while tail > 0 and batch[row, tail - 1] == bos:
            tail -= 1
        # One bos at the very end may begin a document that goes on in the next row; two are padding.
        tail = batch.shape[1] if batch.shape[1] - tail == 1 else tail
        for column in range(batch.shape[1]):
            if column >= tail:
                fields[row, column] = 7
            elif batch[row, column] == bos:
                document, seen = document + 1, seen + 1
                fields[row, column] = 6
            else:
                if document < 0:
                    document, seen = 0, 1
                fields[row, column] = document % 6
    return fields, seen
