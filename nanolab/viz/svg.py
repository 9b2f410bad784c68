"""Line plots as SVG, written by hand: a frame takes a millisecond or two, where matplotlib takes forty."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

from nanolab.viz.output import GREY, GRID, INK, PAPER, on_scale
from nanolab.viz.ticks import Axis, make_axis

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, BOTTOM = 66, 18, 48
COLUMNS = 100
"""A long line is drawn by the lowest and the highest points of at least this many stretches."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One line of a plot and how it looks."""

    name: str
    points: Points
    colour: str
    width: float = 2.0
    faint: bool = False
    """a thin pale line, without a place in the legend"""
    dash: str = ""
    dots: bool = False
    """a dot at every point"""


def extremes(points: Points) -> Points:
    """The lowest and the highest of some points, and one that is not a number if there is any, in order."""
    finite = [point for point in points if math.isfinite(point[1])]
    broken = [point for point in points if not math.isfinite(point[1])][:1]
    if not finite:
        return broken
    return sorted(
        {min(finite, key=itemgetter(1)), max(finite, key=itemgetter(1)), *broken}, key=itemgetter(0)
    )


class Trace:
    """A line that grows, kept as no more points than a picture can show, however long it gets.

    Of each stretch only `extremes` stay. When there are too many stretches, they are joined two by two.
    """

    def __init__(self, points: Points | None = None) -> None:
        self._done: Points = []  # the extremes of finished stretches
        self._stretch: Points = []
        self._size = 1  # points in a stretch
        self._first: Points = []
        self._last: Points = []
        for point in points or []:
            self.add(point)

    def add(self, point: tuple[float, float]) -> None:
        self._first = self._first or [point]
        self._last = [point]
        self._stretch.append(point)
        if len(self._stretch) < self._size:
            return
        self._done += extremes(self._stretch)
        self._stretch = []
        if len(self._done) >= 4 * COLUMNS:
            self._size = max(4, 2 * self._size)
            groups = range(0, len(self._done), 4)
            self._done = [point for start in groups for point in extremes(self._done[start : start + 4])]

    def points(self) -> Points:
        """What to draw: the first and the last point, and the extremes of all stretches between."""
        drawn = self._done + extremes(self._stretch)
        before = self._first if drawn[:1] != self._first else []
        return before + drawn + (self._last if drawn[-1:] != self._last else [])


def pieces(points: Points, x: Axis, y: Axis) -> Iterator[Points]:
    """The stretches between points that have no place on the axes: there the line is interrupted."""
    piece: Points = []
    for point in points:
        if x.holds(point[0]) and y.holds(point[1]):
            piece.append(point)
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _text(x: float, y: float, text: str, *, size: int = 12, colour: str = INK, more: str = "") -> str:
    safe = html.escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{more}>{safe}</text>'


def _legend(lines: Sequence[Line], top: float) -> tuple[list[str], float]:
    """The legend in rows above the plot, where it hides no data, and the height it takes."""
    parts, x, y = [], float(LEFT), top + 14
    for line in lines:
        width = 34 + 6.6 * len(line.name) + 16
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, y = float(LEFT), y + 18
        dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
        parts.append(
            f'<line x1="{x:.1f}" y1="{y - 4:.1f}" x2="{x + 26:.1f}" y2="{y - 4:.1f}" '
            f'stroke="{line.colour}" stroke-width="{max(2.0, line.width)}"{dash}/>'
        )
        if line.dots:
            parts.append(f'<circle cx="{x + 13:.1f}" cy="{y - 4:.1f}" r="3.5" fill="{line.colour}"/>')
        parts.append(_text(x + 32, y, line.name))
        x += width
    return parts, (y - top + 6 if lines else 0.0)


def _curve(line: Line, x: Axis, y: Axis, box: tuple[float, float, float, float]) -> list[str]:
    across, up = x.place(box[0], box[1]), y.place(box[3], box[2])
    strokes, dots = [], []
    dot = '<circle cx="{}" cy="{}" r="3" fill="' + line.colour + '"/>'
    for piece in pieces(line.points, x, y):
        places = [(f"{across(a):.1f}", f"{up(b):.1f}") for a, b in piece]
        if len(places) > 1:
            strokes.append("M" + "L".join(f"{a} {b}" for a, b in places))
        if line.dots or len(places) == 1:
            dots += [dot.format(a, b) for a, b in places]
    look = f'stroke="{line.colour}" stroke-width="{1 if line.faint else line.width}"'
    look += ' stroke-opacity="0.45"' if line.faint else ""
    look += f' stroke-dasharray="{line.dash}"' if line.dash else ""
    path = [f'<path d="{"".join(strokes)}" {look} stroke-linejoin="round"/>'] if strokes else []
    return path + dots


def line_plot(
    lines: Sequence[Line],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    caption: str = "",
    alt: str = "",
    log: bool = False,
    xlimits: tuple[float, float] | None = None,
    ylimits: tuple[float, float] | None = None,
) -> str:
    """The lines on one pair of axes, as the text of an SVG image with a white panel behind it.

    Later lines lie on top. `log` is about the vertical axis; points that have no place are left out.
    """
    x = make_axis((a for line in lines for a, _ in line.points), limits=xlimits)
    y = make_axis((b for line in lines for _, b in line.points), log=log, limits=ylimits)
    top = 12.0
    parts = []
    if title:
        parts.append(_text(LEFT, top + 13, title, size=15, more=' font-weight="bold"'))
        top += 22
    if caption:
        parts.append(_text(LEFT, top + 11, caption, colour=GREY))
        top += 19
    legend, height = _legend([line for line in lines if not line.faint], top)
    parts += legend
    top, bottom, right = top + height + 8, HEIGHT - BOTTOM, WIDTH - RIGHT
    for place, label in zip(map(y.place(bottom, top), y.ticks), y.labels(), strict=True):
        parts.append(f'<path d="M{LEFT} {place:.1f}H{right}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 8, place + 4, label, more=' text-anchor="end"'))
    for place, label in zip(map(x.place(LEFT, right), x.ticks), x.labels(), strict=True):
        parts.append(f'<path d="M{place:.1f} {bottom}v5" stroke="{INK}"/>')
        anchor = "end" if place > right - 14 and len(label) > 4 else "middle"
        parts.append(_text(place, bottom + 19, label, more=f' text-anchor="{anchor}"'))
    parts.append(f'<path d="M{LEFT} {top:.1f}V{bottom}H{right}" stroke="{INK}"/>')
    parts.append(_text((LEFT + right) / 2, HEIGHT - 10, xlabel, size=13, more=' text-anchor="middle"'))
    middle = (top + bottom) / 2
    turned = f' text-anchor="middle" transform="rotate(-90 16 {middle:.1f})"'
    parts.append(_text(16, middle, on_scale(ylabel, log), size=13, more=turned))
    for line in lines:
        parts += _curve(line, x, y, (LEFT, right, top, bottom))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(alt)}" '
        'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" fill="none">'
        f'<title>{html.escape(alt)}</title><rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{PAPER}"/>'
        f"{''.join(parts)}</svg>"
    )
