"""A plot that grows while a model trains, and stays as a picture when the training ends, however it ends."""

from __future__ import annotations

import base64
import html
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nanolab.viz import output
from nanolab.viz.output import COLOURS, number, on_scale
from nanolab.viz.svg import Line, Points, Trace, line_plot

SHORTEST_WAIT = 0.25
"""seconds between two frames, at least"""
LARGEST_SHARE = 0.01
"""of the time may go into drawing: a slow frame is followed by a longer wait"""
SMOOTH_FROM = 20
"""points: of fewer a running mean would say little"""
DOTS_UP_TO = 40
"""points: a line that is not smoothed has a dot at each, while there are no more than this many"""


class LivePlot:
    """A line plot that is redrawn in place. Use it as `with LivePlot(...) as plot:` around the training.

    On leaving the block, also by Stop or an exception, the picture becomes a static one.

    `series`: names of the lines, in the order of their colours; others may be added later.
    `smooth` draws a running mean over a faint line of the measured values. From 1 on it is about how many
    points the mean looks back on, below 1 the weight of the past (0.9: about 10 points); 0 for none. It
    applies to the first series; give `{"train": 0.9, ...}` for others.
    `behind`: earlier runs, `{"name": [(x, y), ...]}`, in grey. `total`: where the horizontal axis ends.
    `ylim`: the vertical axis shows at least this range. `alt`: what the picture is about, in words; the
    numbers are added by the plot. `log` is about the vertical axis.
    """

    def __init__(
        self,
        ylabel: str = "loss (nats)",
        xlabel: str = "step",
        title: str = "",
        log: bool = False,
        series: Sequence[str] = ("train",),
        smooth: float | Mapping[str, float] = 0.9,
        behind: Mapping[str, Sequence[tuple[float, float]]] | None = None,
        alt: str = "",
        total: float | None = None,
        *,
        ylim: tuple[float, float] | None = None,
        caption: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.ylabel, self.xlabel, self.title, self.caption = ylabel, xlabel, title, caption
        self.log, self.total, self.ylim, self.about = log, total, ylim, alt
        self.points: dict[str, Points] = {name: [] for name in series}
        self.smoothed: dict[str, Points] = {name: [] for name in series}
        weights = smooth if isinstance(smooth, Mapping) else {name: smooth for name in tuple(series)[:1]}
        self._weights = {name: _weight(value) for name, value in weights.items()}
        self._means: dict[str, tuple[float, float, float]] = {}  # weighted sums of x and y, and the weight
        self.behind = {
            name: Trace([(float(x), float(y)) for x, y in points]).points()
            for name, points in (behind or {}).items()
        }
        self._traces = {(name, part): Trace() for name in series for part in ("measured", "smooth")}
        self._dropped = 0
        self.frames = 0
        self.drawing = 0.0
        """seconds spent on live frames"""
        self.final_seconds = 0.0
        """seconds spent on the static picture"""
        self._clock = clock
        self._began: float | None = None
        self._ended: float | None = None
        self._next_frame = 0.0
        self._id = uuid.uuid4().hex

    # ---- data

    def add(self, name: str, x: float, y: float) -> None:
        """One more point of a line; drawn when the next frame is due."""
        x, y = float(x), float(y)
        self.points.setdefault(name, []).append((x, y))
        self._traces.setdefault((name, "measured"), Trace()).add((x, y))
        self._dropped += self.log and y <= 0
        if self._weights.get(name):
            mean = self._smooth(name, x, y)
            self.smoothed.setdefault(name, []).append(mean)
            self._traces.setdefault((name, "smooth"), Trace()).add(mean)
        if self._began is not None and self._ended is None and self._clock() >= self._next_frame:
            self.draw()

    def _smooth(self, name: str, x: float, y: float) -> tuple[float, float]:
        """The next point of a running mean: geometric on a log axis, and placed at the mean of its steps.

        A mean drawn at the step where it was taken would lag behind the values it is the mean of.
        """
        if not math.isfinite(y) or (self.log and y <= 0):
            return x, math.nan
        past = self._weights[name]
        sum_x, sum_y, share = (past * value for value in self._means.get(name, (0.0, 0.0, 0.0)))
        sum_x, sum_y = sum_x + (1 - past) * x, sum_y + (1 - past) * (math.log(y) if self.log else y)
        share += 1 - past
        self._means[name] = sum_x, sum_y, share
        return sum_x / share, math.exp(sum_y / share) if self.log else sum_y / share

    def update(self, record: Any) -> None:
        """Add a step's record: its loss (or reward, in reinforcement learning) to the first line."""
        name = next(iter(self.points), "train")
        value = record.loss if hasattr(record, "loss") else record.reward
        self.add(name, record.index, value)

    def history(self, rows: Sequence[Mapping[str, Any]], stage: str) -> None:
        """Fill in what a run's log (`stage.log.rows()`) has of a stage: its steps and its validations."""
        name = next(iter(self.points), "train")
        for row in rows:
            if row.get("stage") != stage:
                continue
            if "loss" in row or "reward" in row:
                self.add(name, row["step"], row["loss"] if "loss" in row else row["reward"])
            elif "validation" in row:
                self.add("validation", row["step"], validation_value(row["validation"]))

    # ---- drawing

    @property
    def share(self) -> float:
        """Share of the time since the plot appeared that went into drawing its live frames, 0 to 1."""
        if self._began is None:
            return 0.0
        passed = (self._clock() if self._ended is None else self._ended) - self._began
        return self.drawing / passed if passed > 0 else 0.0

    @property
    def ms_per_frame(self) -> float:
        """Mean milliseconds that a live frame took."""
        return 1000 * self.drawing / max(1, self.frames)

    @property
    def alt(self) -> str:
        """The picture in words, with the first, lowest and last value of each line."""
        what = self.about or self.title or "Line plot"
        parts = [f"{what.rstrip('.')}. {on_scale(self.ylabel, self.log)} against {self.xlabel}."]
        parts += [_in_words(name, points) for name, points in self.points.items() if points]
        if self.behind:
            parts.append(f"In grey behind: {', '.join(self.behind)}.")
        return " ".join(parts)

    def lines(self) -> list[Line]:
        """What is drawn, the grey lines of earlier runs first."""
        dashes = ("", "6 3", "2 3")
        found = [
            Line(name, points, "#9A9A9A", 1.8, dash=dashes[index % len(dashes)])
            for index, (name, points) in enumerate(self.behind.items())
        ]
        for index, (name, points) in enumerate(self.points.items()):
            colour, measured = COLOURS[index % len(COLOURS)], self._traces[name, "measured"].points()
            if self._weights.get(name) and len(points) >= SMOOTH_FROM:
                found.append(Line(name, measured, colour, faint=True))
                found.append(Line(name, self._traces[name, "smooth"].points(), colour, 2.2))
            else:
                found.append(Line(name, measured, colour, dots=len(points) <= DOTS_UP_TO))
        return found

    def svg(self, alt: str | None = None) -> str:
        """The plot as it stands, as the text of an SVG image."""
        caption = self.caption
        if self._dropped:
            caption += f"{' · ' if caption else ''}{self._dropped} values of 0 or less "
            caption += "have no place on a log scale"
        return line_plot(
            self.lines(), xlabel=self.xlabel, ylabel=self.ylabel, title=self.title, caption=caption,
            alt=self.alt if alt is None else alt, log=self.log, ylimits=self.ylim,
            xlimits=None if self.total is None else (0.0, float(self.total)),
        )  # fmt: skip

    def draw(self) -> None:
        """Draw a frame now. The next one waits 0.25 s, or a hundred times as long as this one took."""
        began = self._clock()
        # Without the numbers in words, which would have to be looked for among all points in each frame.
        alt = f"{self.about or self.title or 'Line plot'}, while it grows"
        bundle = {"image/svg+xml": self.svg(alt), "text/plain": alt}
        output.publish(bundle, display_id=self._id, update=self.frames > 0)
        self.frames += 1
        now = self._clock()
        self.drawing += now - began
        self._next_frame = now + max(SHORTEST_WAIT, (now - began) / LARGEST_SHARE)

    def __enter__(self) -> LivePlot:
        self._began = self._clock()
        self.draw()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._ended = self._clock()
        if kind is not None:
            why = "stopped" if kind in (KeyboardInterrupt, GeneratorExit) else f"ended by {kind.__name__}"
            self.caption = f"{self.caption} · {why}" if self.caption else why
        svg = self.svg()
        picture = base64.b64encode(output.png(self.figure())).decode()
        source = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
        bundle = {
            # First choice of a notebook: only here can an image carry its text.
            "text/html": f'<img alt="{html.escape(self.alt)}" src="{source}">',
            "image/svg+xml": svg,
            "image/png": picture,
            "text/plain": self.alt,
        }
        metadata = {"image/svg+xml": {"alt": self.alt}, "image/png": {"alt": self.alt}}
        output.publish(bundle, metadata, display_id=self._id, update=True)
        self.final_seconds = self._clock() - self._ended

    def figure(self) -> Any:
        """The same plot as a matplotlib figure."""
        figure = output.new_figure()
        axes = figure.add_subplot()
        for line in self.lines():
            if line.faint and not line.points:
                continue
            points = line.points
            xs, ys = [x for x, _ in points], [y if y > 0 or not self.log else math.nan for _, y in points]
            axes.plot(
                xs, ys, color=line.colour, linewidth=0.8 if line.faint else line.width * 0.8,
                alpha=0.45 if line.faint else 1.0, linestyle="--" if line.dash else "-",
                marker="o" if line.dots or len(points) == 1 else None, markersize=4,
                label=None if line.faint else line.name,
            )  # fmt: skip
        output.dress(axes, self.xlabel, self.ylabel, self.title, logy=self.log, caption=self.caption)
        if self.total:
            axes.set_xlim(0, self.total)
        if self.ylim and not self.log:
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, self.ylim[0]), max(high, self.ylim[1]))
        return figure


def _weight(smooth: float) -> float:
    """The weight of the past in a running mean: `smooth` itself below 1, else for that many points."""
    return max(0.0, smooth if smooth < 1 else 1 - 1 / smooth)


def _in_words(name: str, points: Points) -> str:
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return f"{name}: no finite value."
    (first, start), (last, end) = finite[0], finite[-1]
    if len(finite) == 1:
        return f"{name}: {number(start)} at {number(first)}."
    lowest, highest = min(y for _, y in finite), max(y for _, y in finite)
    return (
        f"{name}: from {number(start)} at {number(first)} to {number(end)} at {number(last)}, "
        f"between {number(lowest)} and {number(highest)}."
    )


def validation_value(result: Mapping[str, Any]) -> float:
    """The height of a validation in the plot: nats of a TextLoss, the accuracy of a Score (0 to 1)."""
    if "nats" in result:
        return float(result["nats"])
    return result["right"] / max(1, result["total"])
