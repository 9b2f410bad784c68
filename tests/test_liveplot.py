"""The live plot: cheap while training, complete afterwards however training ends, and honest on its axes."""

from __future__ import annotations

import base64
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from nanolab.evals import Score, TextLoss
from nanolab.runlog import Log
from nanolab.train import StepRecord
from nanolab.viz import LivePlot, output, watch
from nanolab.viz.svg import COLUMNS, Line, Trace, line_plot
from nanolab.viz.ticks import linear_ticks, log_ticks, make_axis, power_of_ten


@dataclass
class Clock:
    """Time that passes when told to; each frame takes `frame` seconds."""

    now: float = 0.0
    frame: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Shown:
    bundles: list[tuple[dict[str, str], str | None, bool]] = field(default_factory=list)
    clock: Clock | None = None

    def __call__(self, data, metadata=None, *, display_id=None, update=False):
        self.bundles.append((data, display_id, update))
        if self.clock:
            self.clock.now += self.clock.frame

    @property
    def last(self) -> dict[str, str]:
        return self.bundles[-1][0]


@pytest.fixture
def shown(monkeypatch) -> Shown:
    shown = Shown()
    monkeypatch.setattr(output, "publish", shown)
    return shown


def svg_of(plot: LivePlot) -> ET.Element:
    """Parsing is a check of its own: text that was not escaped is no XML."""
    return ET.fromstring(plot.svg())


def texts(root: ET.Element) -> list[str]:
    return [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]


def is_static(bundle: dict[str, str]) -> bool:
    return {"text/html", "image/svg+xml", "image/png", "text/plain"} == set(bundle)


# ---- frames


def test_frames_are_a_quarter_second_apart(shown):
    clock = Clock()
    with LivePlot(clock=clock) as plot:
        for step in range(1000):
            clock.now += 1 / 64
            plot.add("train", step, 1.0)
        assert plot.frames == 1 + (1000 / 64) // 0.25


def test_slow_frames_take_at_most_a_hundredth_of_the_time(shown):
    shown.clock = clock = Clock(frame=0.05)
    with LivePlot(clock=clock) as plot:
        for step in range(10_000):
            clock.now += 0.01
            plot.add("train", step, 1.0)
        assert plot.frames > 10
    assert 0.005 < plot.share <= 0.01 + 0.001
    assert plot.ms_per_frame == pytest.approx(50)


def test_every_frame_goes_to_the_same_output(shown):
    clock = Clock()
    with LivePlot(clock=clock) as plot:
        for step in range(5):
            clock.now += 1
            plot.add("train", step, 1.0)
    handles = {handle for _, handle, _ in shown.bundles}
    assert len(handles) == 1 and None not in handles
    assert [update for *_, update in shown.bundles] == [False] + [True] * (len(shown.bundles) - 1)


def test_points_added_before_the_block_are_in_the_first_frame(shown):
    plot = LivePlot()
    plot.add("train", 0, 3.0)
    assert not shown.bundles
    with plot:
        assert "<circle" in shown.bundles[0][0]["image/svg+xml"]


# ---- the end


def test_ends_as_svg_and_png_with_the_same_words(shown):
    with LivePlot(title="Base", alt="Loss of the base stage") as plot:
        plot.add("train", 0, 7.6)
        plot.add("train", 9, 2.1)
    final = shown.last
    assert is_static(final)
    assert base64.b64decode(final["image/png"]).startswith(b"\x89PNG")
    assert final["text/plain"].startswith("Loss of the base stage.")
    assert "from 7.6 at 0 to 2.1 at 9" in final["text/plain"]
    assert f'alt="{final["text/plain"]}"' in final["text/html"]
    assert f'aria-label="{final["text/plain"]}"' in final["image/svg+xml"]


@pytest.mark.parametrize(
    ("error", "words"), [(KeyboardInterrupt, "stopped"), (ZeroDivisionError, "ended by ZeroDivisionError")]
)
def test_an_exception_leaves_the_static_figure_and_goes_on(shown, error, words):
    with pytest.raises(error), LivePlot() as plot:
        plot.add("train", 0, 3.0)
        raise error
    assert is_static(shown.last)
    assert words in shown.last["image/svg+xml"]


def test_the_final_figure_has_points_no_frame_showed(shown):
    with LivePlot(clock=Clock()) as plot:
        plot.add("train", 0, 3.0)
        plot.add("train", 77, 1.25)
    assert len(shown.bundles) == 2
    assert "1.25 at 77" in shown.last["text/plain"]


def test_final_figure_is_small(shown):
    with LivePlot(series=("train", "validation"), total=20_000, clock=Clock()) as plot:
        for step in range(20_000):
            plot.add("train", step, math.sin(step))
    assert sum(len(data) for data in shown.last.values()) < 120_000


# ---- corner cases


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        [],
        [2.0],
        [0.0],
        [math.nan],
        [math.nan, 1.0, math.inf],
        [1.0] * 3,
        [0.0, -1.0, 2.0],
        [-3.0, -2.0],
        [1e-30, 1e30],
    ],
    ids=str,
)
def test_any_values_make_a_picture(shown, log, values):
    with LivePlot(log=log, series=("train", "other")) as plot:
        for step, value in enumerate(values * 12):
            plot.add("train", step, value)
            plot.add("other", step, value)
    assert is_static(shown.last)
    assert "nan" not in re.sub(r"<t.*?</t\w+>|aria-label=\"[^\"]*\"", "", plot.svg())
    svg_of(plot)


def test_a_log_axis_says_how_many_values_it_leaves_out(shown):
    plot = LivePlot(log=True)
    for step, value in enumerate([1.0, 0.0, -1.0, 2.0]):
        plot.add("train", step, value)
    written = texts(svg_of(plot))
    assert any(text.startswith("2 values of 0 or less") for text in written)
    assert any("log scale" in text for text in written)


def test_labels_and_units_are_written_and_inert(shown):
    plot = LivePlot(ylabel="loss (nats)", xlabel="step", title="<script>alert(1)</script>", series=("a&b",))
    plot.add("a&b", 0, 1.0)
    written = texts(svg_of(plot))
    assert {"loss (nats)", "step", "a&b", "<script>alert(1)</script>"} <= set(written)
    assert "<script>" not in plot.svg()


def test_a_gap_is_not_bridged():
    points = [(0.0, 1.0), (1.0, 1.0), (2.0, math.nan), (3.0, 1.0), (4.0, 1.0)]
    picture = line_plot([Line("a", points, "#000001")], xlabel="x", ylabel="y")
    path = re.search(r'<path d="([^"]*)" stroke="#000001"', picture)
    assert path and path[1].count("M") == 2


def test_earlier_runs_are_grey_and_below(shown):
    plot = LivePlot(behind={"yesterday": [(0, 3.0), (5, 2.0)]})
    plot.add("train", 0, 3.0)
    lines = plot.lines()
    assert lines[0].name == "yesterday" and lines[0].colour == "#9A9A9A"
    assert "yesterday" in texts(svg_of(plot)) and "yesterday" in plot.alt


def test_a_steep_line_is_smoothed_without_lag():
    plot = LivePlot(smooth=0.9)
    for step in range(100):
        plot.add("train", step, 100.0 - step)
    assert all(x + y == pytest.approx(100) for x, y in plot.smoothed["train"])


def test_smoothing_calms_noise():
    plot = LivePlot(smooth=10)
    for step in range(200):
        plot.add("train", step, step % 2)
    late = [y for _, y in plot.smoothed["train"][50:]]
    assert max(late) - min(late) < 0.2


def test_a_long_line_keeps_its_peaks_gaps_and_ends():
    points = [(float(x), math.cos(x / 500)) for x in range(10_000)]
    points[4321], points[7000] = (4321.0, 9.0), (7000.0, math.nan)
    kept = Trace(points).points()
    assert len(kept) <= 4 * COLUMNS + 6
    assert points[4321] in kept and kept[0] == points[0] and kept[-1] == points[-1]
    assert [x for x, y in kept if math.isnan(y)] == [7000.0]
    assert kept == sorted(kept, key=lambda point: point[0])


def test_a_short_line_is_kept_whole():
    points = [(float(x), float(x % 7)) for x in range(4 * COLUMNS - 1)]
    assert Trace(points).points() == points
    assert Trace().points() == []


# ---- ticks


@pytest.mark.parametrize(
    ("low", "high"), [(2.1, 7.6), (0, 1), (-3, 4), (1e-7, 2e-7), (5, 5), (0, 0), (999, 123_456)]
)
def test_ticks_cover_the_data(low, high):
    ticks = linear_ticks(low, high)
    assert ticks[0] <= low and high <= ticks[-1]
    assert 2 <= len(ticks) <= 9
    labels = make_axis([low, high]).labels()
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("low", "high"), [(1e-5, 10), (2.1, 2.3), (2, 7.6), (0.5, 900), (1, 1), (1e-30, 1e30)]
)
def test_log_ticks_cover_the_data(low, high):
    ticks = log_ticks(low, high)
    assert ticks[0] <= low * 1.000001 and high <= ticks[-1] * 1.000001
    assert 2 <= len(ticks) <= 12 and ticks == sorted(set(ticks))


def test_log_ticks_are_readable():
    assert [power_of_ten(x) for x in (0.001, 1, 20, 1000, 2e6, 1e12, 1e-7)] == [
        "0.001", "1", "20", "1,000", "2·10⁶", "10¹²", "10⁻⁷",
    ]  # fmt: skip


def test_a_known_total_keeps_the_axis_still():
    def axis_end(count: int) -> list[str]:
        plot = LivePlot(total=140)
        for step in range(count):
            plot.add("train", step, 5.0)
        return [text for text in texts(svg_of(plot)) if text.replace(",", "").isdigit()]

    assert axis_end(3) == axis_end(130)


# ---- watching a stage


class ShortStage:
    """What `watch` needs of a stage, without a model. It behaves as stages.Stage does."""

    def __init__(self, run, steps=10, *, stage="base", start=0, eval_every=4):
        self.name, self.start, self.stopped = stage, start, False
        self.schedule = SimpleNamespace(steps=steps)
        self.plan = SimpleNamespace(eval_every=eval_every)
        self.log = Log(run)
        self.closed = False
        self.press_stop_in = -1

    @property
    def finished(self) -> bool:
        return self.start >= self.schedule.steps

    def validation(self) -> Any:
        return Score(3, 4) if self.name == "rl" else TextLoss(2.5, 1.1, 100)

    def steps(self):
        try:
            while not self.stopped and not self.finished:
                record = StepRecord(self.start, 5.0 - 0.1 * self.start, 1.0, 2048, 2048, 1.0, 0.5)
                if self.name == "rl":
                    record = SimpleNamespace(index=self.start, reward=0.25, tokens=900, seconds=0.5)
                self.stopped = self.start == self.press_stop_in
                self.start += 1
                self.log.add(stage=self.name, step=record.index, loss=5.0 - 0.1 * record.index, seconds=0.5)
                yield record
        finally:
            self.closed = True


def test_watch_yields_every_step_and_validates_as_planned(shown, tmp_path):
    stage = ShortStage(tmp_path)
    assert [record.index for record in watch(stage)] == list(range(10))
    validated = [row["step"] for row in stage.log.rows() if "validation" in row]
    assert validated == [0, 4, 8, 10]
    assert is_static(shown.last)
    assert "finished 10 steps" in shown.last["image/svg+xml"]
    assert "tokens/s" in shown.last["image/svg+xml"]


def test_watching_a_finished_stage_shows_its_earlier_curve(shown, tmp_path):
    list(watch(ShortStage(tmp_path)))
    before = shown.last["text/plain"]
    stage = ShortStage(tmp_path, start=10)
    assert list(watch(stage)) == []
    assert shown.last["text/plain"] == before
    assert is_static(shown.last) and "finished earlier" in shown.last["image/svg+xml"]


def test_a_continued_stage_shows_the_whole_curve(shown, tmp_path):
    for record in watch(ShortStage(tmp_path)):
        if record.index == 4:
            break
    stage = ShortStage(tmp_path, start=5)
    assert [record.index for record in watch(stage)] == [5, 6, 7, 8, 9]
    assert "train: from 5 at 0 to 4.1 at 9" in shown.last["text/plain"]


def test_leaving_the_loop_closes_the_stage_and_the_plot(shown, tmp_path):
    stage = ShortStage(tmp_path)
    for _ in watch(stage):
        break
    assert stage.closed and is_static(shown.last)
    assert "stopped" in shown.last["image/svg+xml"]


def test_the_stop_button_ends_without_another_validation(shown, tmp_path):
    stage = ShortStage(tmp_path)
    stage.press_stop_in = 7  # whose end is a planned validation
    assert [record.index for record in watch(stage)][-1] == 7
    assert [row["step"] for row in stage.log.rows() if "validation" in row] == [0, 4]
    assert "stopped at step 8 of 10" in shown.last["image/svg+xml"]


def test_an_error_in_the_learners_loop_leaves_the_picture(shown, tmp_path):
    stage = ShortStage(tmp_path)
    loop = watch(stage)
    with pytest.raises(ZeroDivisionError):
        for _ in loop:
            _ = 1 / 0
    loop.close()
    assert stage.closed and is_static(shown.last)


def test_watch_without_validation_makes_none(shown, tmp_path):
    stage = ShortStage(tmp_path)
    list(watch(stage, validate=False))
    assert not [row for row in stage.log.rows() if "validation" in row]


def test_watching_rl_draws_reward_and_accuracy(shown, tmp_path):
    list(watch(ShortStage(tmp_path, stage="rl", eval_every=-1)))
    words = shown.last["text/plain"]
    assert "reward: from 0.25" in words
    assert "validation: from 0.75 at 0 to 0.75 at 10" in words
    assert "share of answers right" in words
