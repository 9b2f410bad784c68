"""Where pictures go: the notebook's output when there is a kernel, one line of text when there is none."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

from nanolab.errors import ConfigError
from nanolab.viz.ticks import make_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe and Ito's eight colours, told apart with every common kind of colour blindness; yellow, which is
faint on white, comes last."""

INK, GREY, GRID, PAPER = "#222222", "#767676", "#E3E3E3", "#FFFFFF"
"""Text, text that matters less, grid lines, and the panel behind everything: white in dark themes too."""

DPI = 90


def publish(
    data: dict[str, str],
    metadata: dict[str, Any] | None = None,
    *,
    display_id: str | None = None,
    update: bool = False,
) -> None:
    """Show a mime bundle, `{"text/html": ..., "text/plain": ...}`; with `update`, in place of the output that
    has this `display_id`. Without a kernel its text is printed, once: an update prints nothing.
    """
    from IPython.core.interactiveshell import InteractiveShell

    if not InteractiveShell.initialized():
        if not update:
            print(data["text/plain"])
        return
    from IPython.display import publish_display_data

    transient = {"display_id": display_id} if display_id else {}
    publish_display_data(data, metadata or {}, transient=transient, update=update)


def new_figure(width: float = 7.2, height: float = 3.4) -> Figure:
    """An empty white figure, in inches, that draws without pyplot and without a window."""
    # Imported here: a live plot draws hundreds of frames without matplotlib, which takes a while to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG of at most 256 colours: about a third of the size of a full one."""
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=DPI, facecolor=PAPER)
    Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display a matplotlib figure as a small PNG. `alt` says in words what the picture shows.

    Raises ConfigError for an empty `alt`: a picture without one is nothing to who cannot see it.
    """
    if not alt.strip():
        raise ConfigError('show(figure, alt=""): the picture has no text.\nSay in alt what it shows.')
    picture = base64.b64encode(png(figure)).decode()
    tag = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
    publish({"text/html": tag, "text/plain": alt})


def number(value: float) -> str:
    """A number as people write it: `12,345`, `3.14`, `0.0012`, `6.29 million`, `not a number`."""
    if value != value:
        return "not a number"
    value += 0.0  # makes 0 of -0
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.3g} {name}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def on_scale(label: str, log: bool) -> str:
    """The label of an axis, which says so where the scale is logarithmic."""
    return f"{label}, log scale" if log and "log" not in label.lower() else label


def dress(
    axes: Any,
    xlabel: str,
    ylabel: str,
    title: str = "",
    *,
    logx: bool = False,
    logy: bool = False,
    caption: str = "",
    legend: bool = True,
) -> None:
    """Labels, a quiet grid, and the legend above the picture, where it hides no data."""
    _scale(axes, axes.xaxis, "x", logx)
    _scale(axes, axes.yaxis, "y", logy)
    axes.set_xlabel(on_scale(xlabel, logx))
    axes.set_ylabel(on_scale(ylabel, logy))
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    _, labels = axes.get_legend_handles_labels()
    rows = 0
    if legend and labels:
        columns = max(1, min(len(labels), 84 // (8 + max(len(label) for label in labels))))
        rows = -(-len(labels) // columns)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncol=columns, frameon=False, fontsize=9,
            borderaxespad=0.2, handlelength=2,
        )  # fmt: skip
    lines = [line for line in (title, caption) if line]
    if lines:
        # The title stands above the legend: one line of padding, in points, for each of its rows.
        axes.set_title(lines[0], loc="left", fontsize=11, fontweight="bold",
                       pad=6 + 14 * rows + 14 * (len(lines) - 1))  # fmt: skip
    if len(lines) > 1:
        axes.annotate(
            caption, (0, 1), xycoords="axes fraction", xytext=(0, 8 + 14 * rows),
            textcoords="offset points", fontsize=9, color=GREY,
        )  # fmt: skip


def _scale(axes: Any, axis: Any, name: str, log: bool) -> None:
    """Round, readable ticks: 2 and 5 times powers of ten on a log axis, `6 million` instead of 6 and 1e6."""
    if log:
        data = axes.dataLim
        smallest, largest = (data.minposx, data.x1) if name == "x" else (data.minposy, data.y1)
        scale = make_axis([smallest, largest], log=True)
        getattr(axes, f"set_{name}scale")("log", nonpositive="mask")
        axis.set_ticks(scale.ticks, scale.labels())
        axis.set_ticks([], minor=True)
        room = (scale.high / scale.low) ** 0.02
        getattr(axes, f"set_{name}lim")(scale.low / room, scale.high * room)
    elif max(map(abs, getattr(axes, f"get_{name}lim")())) >= 1e5:
        axis.set_major_formatter(lambda value, _: number(value))
