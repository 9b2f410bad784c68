"""Training a stage under a live plot."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nanolab.viz.live import LivePlot, validation_value

if TYPE_CHECKING:
    from nanolab.stages import ReinforcementStage, SupervisedStage


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def watch(
    stage: SupervisedStage | ReinforcementStage,
    title: str = "",
    every: int | None = None,
    behind: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    validate: bool = True,
    **options: Any,
) -> Iterator[Any]:
    """Train a stage under a live plot: `for step in watch(work): ...` yields what `work.steps()` would.

    What the run's log already has is drawn first, so a stage that continues shows its whole curve, and a
    finished one shows it and yields nothing. `every`: steps between validations, by default as planned;
    they are logged too. The caption shows tokens/s and the time left. `options` go to LivePlot.
    """
    total, plan = stage.schedule.steps, stage.plan
    every = plan.eval_every if every is None else every
    if stage.name == "rl":
        defaults = {
            "ylabel": "share of answers right",
            "series": ("reward", "validation"),
            "ylim": (0.0, 1.0),
        }
    else:
        defaults = {"ylabel": "loss (nats)", "series": ("train", "validation")}
    about = f"Training curve of the {stage.name} stage"
    plot = LivePlot(
        **{"title": title or f"Stage {stage.name}", "behind": behind, "alt": about, "total": total}
        | defaults
        | options
    )
    plot.history(stage.log.rows(), stage.name)
    if stage.finished:
        plot.caption = f"finished earlier: {total:,} steps"
        with plot:
            return

    def check(step: int) -> None:
        result = stage.validation()
        stage.log.add(stage=stage.name, step=step, validation=asdict(result))
        plot.add("validation", step, validation_value(asdict(result)))

    plot.caption = f"continuing at step {stage.start:,}" if stage.start else "starting"
    steps: Any = stage.steps()
    with plot, closing(steps):
        if validate and not stage.start:
            check(0)
        first, began, speed = stage.start, time.perf_counter(), 0.0
        for record in steps:
            done = record.index + 1
            rate = record.tokens / max(record.seconds, 1e-9)
            speed = 0.9 * speed + 0.1 * rate if speed else rate
            left = (time.perf_counter() - began) / (done - first) * (total - done)
            plot.caption = f"step {done:,} of {total:,} · {speed:,.0f} tokens/s · about {duration(left)} left"
            plot.update(record)
            if validate and not stage.stopped and (done == total or (every > 0 and done % every == 0)):
                check(done)
            yield record
        passed = duration(time.perf_counter() - began)
        ending = f"stopped at step {stage.start:,} of" if stage.stopped else "finished"
        plot.caption = f"{ending} {total:,} steps after {passed} · {speed:,.0f} tokens/s"
