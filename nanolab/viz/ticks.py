"""Where the ticks of an axis stand, and what is written at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A scale: from `low` to `high`, with a tick at each of `ticks`."""

    low: float
    high: float
    ticks: list[float]
    log: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value has a place: it is finite, and on a log axis above zero."""
        return math.isfinite(value) and (value > 0 or not self.log)

    def place(self, start: float, end: float) -> Callable[[float], float]:
        """A function that says where between the pixels `start` and `end` a value lies."""
        if self.log:
            base, size = math.log(self.low), (end - start) / math.log(self.high / self.low)
            return lambda value: start + (math.log(value) - base) * size
        low, scale = self.low, (end - start) / (self.high - self.low)
        return lambda value: start + (value - low) * scale

    def labels(self) -> list[str]:
        """The ticks as text, all with as many decimals as the step between them needs."""
        if self.log:
            return [power_of_ten(tick) for tick in self.ticks]
        if len(self.ticks) < 2:
            return [f"{tick:g}" for tick in self.ticks]
        step = abs(self.ticks[1] - self.ticks[0])
        largest = max(abs(tick) for tick in self.ticks)
        if largest >= 1e7 or step < 1e-5:
            return [f"{tick:.6g}" for tick in self.ticks]
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return [f"{tick:,.{decimals}f}" for tick in self.ticks]


def power_of_ten(value: float) -> str:
    """A tick of a log axis: `20`, `0.001`, `1,000`; from a million on, and below 0.0001, `10⁶`, `2·10⁶`."""
    if 1e-4 * (1 - 1e-9) <= value < 1e6 * (1 - 1e-9):
        return f"{value:,.0f}" if value >= 1 and abs(value - round(value)) < 1e-9 * value else f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    times = value / 10.0**power
    raised = "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return raised if abs(times - 1) < 1e-6 else f"{times:.3g}·{raised}"


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that cuts `span` into at most `count` parts."""
    power = 10.0 ** math.floor(math.log10(span / count))
    return next(power * times for times in (1, 2, 5, 10) if span <= power * times * count * (1 + 1e-9))


def linear_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`: (2.1, 7.6) -> [2, 3, 4, 5, 6, 7, 8]."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        room = abs(low) * 0.1
        low, high = low - room, high + (room or 1.0)
    step = nice_step(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [tick * step for tick in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers around `low` to `high`, both above 0: powers of ten, or 1, 2 and 5 times them."""
    if high / low < 4:
        ticks = linear_ticks(low, high, 4)
        if ticks[0] > 0:
            return ticks
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    if last - first > 3:
        stride = math.ceil((last - first) / 7)
        return [10.0**power for power in range(first, last + stride, stride)]
    ticks = [10.0**power * times for power in range(first, last + 1) for times in (1, 2, 5)]
    start = max(index for index, tick in enumerate(ticks) if index == 0 or tick <= low * (1 + 1e-9))
    end = next((index for index, tick in enumerate(ticks) if tick >= high * (1 - 1e-9)), len(ticks) - 1)
    return ticks[start : max(end, start + 1) + 1]


def make_axis(
    values: Iterable[float], *, log: bool = False, limits: tuple[float, float] | None = None
) -> Axis:
    """An axis whose ticks enclose the values; values that have no place on it do not count.

    With `limits` it reaches exactly from one to the other, or further where a value does.
    """
    fitting = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if limits is not None:
        fitting += [limit for limit in limits if limit > 0 or not log]
    if not fitting:
        return Axis(0.1, 1.0, [0.1, 1.0], log=True) if log else Axis(0.0, 1.0, linear_ticks(0, 1))
    low, high = min(fitting), max(fitting)
    ticks = log_ticks(low, high) if log else linear_ticks(low, high)
    if limits is not None and high > low:
        inside = [tick for tick in ticks if low <= tick <= high * (1 + 1e-9)]
        return Axis(low, high, inside, log)
    return Axis(ticks[0], ticks[-1], ticks, log)
