"""Static charts: lines, bars and heat maps, each with labelled axes and a text alternative."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from nanolab.errors import ConfigError
from nanolab.viz.output import COLOURS, GREY, INK, dress, new_figure, number, show

BEHIND_TEXT = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8}
Mark = float | tuple[float | None, float]
Error = float | tuple[float, float]


def lines(
    data: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    alt: str = "",
    logx: bool = False,
    logy: bool = False,
    marks: Mapping[str, Mark] | None = None,
) -> None:
    """Display a line chart of `{"name": (xs, ys)}`. Short lines get a dot at every point.

    `marks` labels places: `{"here": 3.0}` a vertical line at x = 3, `{"ln(2048)": (None, 7.62)}` a
    horizontal one, `{"best": (3.0, 1.2)}` a point. Values of 0 or less are left out on a log axis.
    """
    figure = new_figure()
    axes = figure.add_subplot()
    words = []
    for index, (name, (xs, ys)) in enumerate(data.items()):
        x, y = _floats(xs), _floats(ys)
        if len(x) != len(y):
            raise ConfigError(
                f"lines, {name!r}: {len(x)} x and {len(y)} y.\nGive as many of one as of the other."
            )
        style = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"))[index // len(COLOURS) % 4]
        axes.plot(
            x, y, color=COLOURS[index % len(COLOURS)], linestyle=style[0], linewidth=1.8, label=name,
            marker=style[1] if len(x) <= 40 else None, markersize=4,
        )  # fmt: skip
        finite = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
        if finite:
            words.append(
                f"{name}: from {number(finite[0][1])} at {number(finite[0][0])} "
                f"to {number(finite[-1][1])} at {number(finite[-1][0])}."
            )
    dress(axes, xlabel, ylabel, title, logx=logx, logy=logy)
    for name, mark in (marks or {}).items():
        _mark(axes, name, mark)
    what = alt or f"Line chart{': ' + title if title else ''}"
    show(figure, f"{what.rstrip('.')}. {ylabel} against {xlabel}. {' '.join(words)}".strip())


def _floats(values: Any) -> list[float]:
    """Numbers out of a list, an array or a tensor, wherever it lies."""
    return [float(value) for value in values]


def _mark(axes: Any, name: str, mark: Mark) -> None:
    if not isinstance(mark, tuple):
        axes.axvline(mark, color=GREY, linestyle=":", linewidth=1.2)
        axes.annotate(
            name, (mark, 1), xycoords=("data", "axes fraction"), xytext=(4, -12),
            textcoords="offset points", va="top", fontsize=9, color=GREY, bbox=BEHIND_TEXT,
        )  # fmt: skip
    elif mark[0] is None:
        axes.axhline(mark[1], color=GREY, linestyle=":", linewidth=1.2)
        # Beside the axes, where it hides no line.
        axes.annotate(
            fill(name, 14), (1, mark[1]), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=9, color=GREY, annotation_clip=False,
        )  # fmt: skip
    else:
        axes.plot(*mark, marker="o", markersize=8, markerfacecolor="none", markeredgecolor=INK)
        axes.annotate(name, mark, xytext=(8, 6), textcoords="offset points", fontsize=9, color=INK)


def bars(
    data: Mapping[str, float] | Mapping[str, Mapping[str, float]],
    ylabel: str = "",
    xlabel: str = "",
    title: str = "",
    alt: str = "",
    errors: Mapping[str, Any] | None = None,
) -> None:
    """Display a bar chart of `{"name": value}`, or of `{"group": {"name": value}}`: one colour a name.

    `ylabel` is the label of the values, with their unit. `errors` has the same form as `data`: each a
    number, or a pair of lengths (below, above). Many bars or long names are drawn lying down.
    """
    grouped = bool(data) and all(isinstance(value, Mapping) for value in data.values())
    groups: dict[str, Any] = dict(data) if grouped else {name: {"": value} for name, value in data.items()}
    bounds: dict[str, Any] = (
        dict(errors or {}) if grouped else {name: {"": error} for name, error in (errors or {}).items()}
    )
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    room = 76 / max(1, len(groups))
    lying = any(len(name) > room for name in groups) or len(groups) * len(names) > 14
    figure = new_figure(7.2, max(2.4, 1.2 + 0.26 * len(groups) * len(names)) if lying else 3.4)
    axes = figure.add_subplot()
    thick = 0.8 / max(1, len(names))
    crowded = not lying and len(groups) * len(names) > 8
    for index, name in enumerate(names):
        at, heights, reach = [], [], []
        for place, (group, values) in enumerate(groups.items()):
            if name in values:
                at.append(place + (index - (len(names) - 1) / 2) * thick)
                heights.append(float(values[name]))
                reach.append(_pair(bounds.get(group, {}).get(name, 0.0)))
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "label": name or None}
        error = np.array(reach).T if errors else None
        draw: Any = axes.barh if lying else axes.bar
        drawn = draw(at, heights, thick * 0.92, **style, **{"xerr" if lying else "yerr": error},
                     error_kw={"elinewidth": 1.2, "capsize": 3, "ecolor": INK})  # fmt: skip
        if lying or len(groups) * len(names) <= 12:
            texts = [_bar_text(height, crowded) for height in heights]
            axes.bar_label(drawn, texts, fontsize=7.5 if crowded else 8.5, padding=3)
    axes.margins(x=0.14 if lying else None, y=None if lying else 0.14)
    if all(not height < 0 for values in groups.values() for height in values.values()):
        # An error bar may reach below 0, where shares and counts cannot go.
        (axes.set_xlim if lying else axes.set_ylim)(0, None)
    ticks = list(range(len(groups)))
    if lying:
        axes.set_yticks(ticks, list(groups))
        axes.invert_yaxis()
        dress(axes, ylabel, xlabel, title)
    else:
        axes.set_xticks(ticks, list(groups))
        dress(axes, xlabel, ylabel, title)
    axes.grid(False, axis="y" if lying else "x")
    words = [
        f"{group}{', ' + name if name else ''}: {number(float(value))}"
        for group, values in groups.items()
        for name, value in values.items()
    ]
    what = alt or f"Bar chart{': ' + title if title else ''}"
    show(figure, f"{what.rstrip('.')}. {ylabel}: {'; '.join(words)}.")


def _bar_text(height: float, crowded: bool) -> str:
    """The value above a bar; two digits are enough where many bars stand close together."""
    if not math.isfinite(height):
        return "no value"
    return f"{height:.2g}" if crowded and abs(height) < 1 else number(height)


def _pair(error: Error) -> tuple[float, float]:
    return (float(error[0]), float(error[1])) if isinstance(error, tuple | list) else (float(error),) * 2


def heatmap(
    matrix: Any,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    title: str = "",
    alt: str = "",
    xlabel: str = "",
    ylabel: str = "",
    numbers: bool = False,
    label: str = "",
) -> None:
    """Display a 2-D matrix as colours, with a scale; `label` is the scale's, with its unit.

    Values of one sign go from dark to light (cividis), both signs from purple over white to orange with
    0 in the middle: both made for colour-blind eyes too. What is not a number is light grey.
    `numbers` writes each value into its field.
    """
    if hasattr(matrix, "detach"):
        matrix = matrix.detach().float().cpu().numpy()
    values = np.atleast_2d(np.asarray(matrix, dtype=float))
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    both = low < 0 < high
    if both:
        high = max(-low, high)
        low = -high
    high_rows, wide = values.shape
    figure = new_figure(7.2, min(7.2, max(2.2, 1.5 + 5.0 * high_rows / max(wide, 6))))
    axes = figure.add_subplot()
    axes.set_facecolor("#DDDDDD")
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap="PuOr_r" if both else "cividis", vmin=low, vmax=high,
        aspect="auto", interpolation="nearest",
    )  # fmt: skip
    dress(axes, xlabel, ylabel, title, legend=False)
    axes.grid(False)
    _name_ticks(axes.xaxis, columns, wide, 70)
    _name_ticks(axes.yaxis, rows, high_rows, 40)
    if columns is not None and sum(len(name) + 2 for name in columns) > 70:
        for tick in axes.get_xticklabels():
            tick.set(rotation=50, ha="right", rotation_mode="anchor")
    figure.colorbar(image, ax=axes, label=label, pad=0.02, fraction=0.05)
    if numbers:
        for (row, column), value in np.ndenumerate(values):
            if math.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else INK
                text = f"{value:.2f}" if high < 10 else number(value)
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    what = alt or f"Heat map{': ' + title if title else ''}"
    show(
        figure,
        f"{what.rstrip('.')}. {high_rows} by {wide} values{' of ' + label if label else ''}"
        + (f", from {number(float(finite.min()))} to {number(float(finite.max()))}." if finite.size else "."),
    )


def _name_ticks(axis: Any, names: Sequence[str] | None, count: int, most: int) -> None:
    """A tick for each name; every so many where there are too many to read."""
    if names is not None:
        stride = max(1, math.ceil(count / most))
        axis.set_ticks(list(range(0, count, stride)), [names[i] for i in range(0, count, stride)])
        axis.set_tick_params(labelsize=9 if count <= 24 else 7)
