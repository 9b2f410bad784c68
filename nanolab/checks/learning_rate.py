"""Challenge 2, learning-rate archaeology: what is claimed of a sweep, compared with the logs of its runs."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nanolab.checks.core import (
    NO_RETURN,
    Misconception,
    NotAttempted,
    Wrong,
    call,
    check,
    check_function,
    compare,
    diagnose_value,
    same,
    shown,
)
from nanolab.viz.output import number

if TYPE_CHECKING:
    from nanolab.lessons.sweeps import SweepRun

Runs = Mapping[float, "SweepRun"]

WINDOW = 5
"""losses that an entry of the table is the mean of"""
MARGIN = 0.1
"""nats above the best that still count as good"""
NEAR = 2.5
"""two rates are neighbours if the higher is at most so many times the lower"""


def mean_before(losses: Sequence[float], step: int) -> float:
    """The mean of the last five losses up to step `step`; infinity where the run did not get there."""
    some = list(losses[max(0, step - WINDOW) : step])
    if len(losses) < step or not all(map(math.isfinite, some)):
        return math.inf
    return math.fsum(some) / len(some)


# ---- 1: reading a log


@check
def loss_at(function: object) -> str:
    """Whether a step's loss is read off a log as the mean of five, and a run that ended has none."""
    rng = random.Random(21)

    def log(count: int) -> list[float]:
        return [7.6 * 0.97**i + rng.uniform(-0.4, 0.4) for i in range(count)]

    cases = [(log(60), step) for step in (10, 25, 60)] + [(log(41), 30), (log(9), 3)]
    window_late = "Off by one: `losses[0]` is the loss of step 1, so that of step n is `losses[n - 1]`."
    check_function(function, mean_before, cases, [
        Misconception(window_late, lambda losses, step: mean_before([*losses, losses[-1]][1:], step)),
        Misconception(window_late, lambda losses, step: _mean(losses[max(0, step - 4) : step + 1])),
        Misconception("Off by one: the loss of the step itself is left out.",
                      lambda losses, step: _mean(losses[max(0, step - 6) : step - 1])),
        Misconception("That is the loss of a single step. It depends on the text of that step: take the mean "
                      "of five.",
                      lambda losses, step: losses[step - 1]),
        Misconception("That is a single loss, and that of the step after: `losses[0]` is that of step 1.",
                      lambda losses, step: losses[min(step, len(losses) - 1)]),
        Misconception("The mean of all losses from the first on: how it began has no say in how it stands "
                      "now.",
                      lambda losses, step: _mean(losses[:step])),
        Misconception("The last losses of the run, whatever the step: two runs could not be compared at the "
                      "same step.",
                      lambda losses, step: _mean(losses[-WINDOW:])),
        Misconception("A run of as many losses as `step` did get there: losses[step - 1] is its last.",
                      lambda losses, step: mean_before(losses, step) if len(losses) > step else math.inf),
        Misconception("There are not five losses yet: divide by how many there are.",
                      lambda losses, step: sum(losses[max(0, step - WINDOW) : step]) / WINDOW),
        Misconception("There are not five losses yet, and a slice from `step - 5` below 0 counts from the "
                      "end.",
                      lambda losses, step: sum(losses[step - WINDOW : step]) / WINDOW),
        Misconception("The lowest loss so far is a lucky batch. Take the mean of the last five.",
                      lambda losses, step: min(losses[:step])),
    ])  # fmt: skip
    _ended(function, log)
    return "Five steps smooth out what the text of each does, and a run that ended has no loss any more."


def _ended(function: object, log: Any) -> None:
    """Runs that diverged, or were stopped, before the step that is asked for."""
    for losses, step, why in (
        ([*log(20), float("nan")], 50, "diverged in step 21"),
        ([*log(30), float("nan")], 31, "diverged in step 31"),
        (log(12), 40, "was stopped after 12 steps"),
    ):
        about = f"the loss at step {step} of a run that {why}"
        try:
            got = call(function, list(losses), step)
        except NotAttempted:
            raise Wrong(f"{about} was not returned.", expected="inf", cause=NO_RETURN) from None
        finite = [loss for loss in losses if math.isfinite(loss)]
        if isinstance(got, float) and math.isnan(got):
            raise Wrong(
                f"{about} should be math.inf.", got="nan", expected="inf",
                cause="nan is neither below nor above any number, nor equal to itself, so min(), sorted() "
                "and `in` go wrong with it. math.isfinite tells it.",
            )  # fmt: skip
        diagnose_value(got, math.inf, {
            "Its last finite losses are from before it was lost. A run that did not get there has no loss "
            "there.":
                _mean(finite[-WINDOW:]),
            "Its last finite loss is from before it was lost. It has no loss at this step.": finite[-1],
            "The mean of those that are numbers. A run that did not get there with numbers has no loss there."
            if len(losses) >= step
            else "Slices beyond the end are silently shorter: ask whether the run got there.":
                _mean(finite[max(0, step - WINDOW) : step]),
            "0 would make a lost run the best of all.": 0.0,
        }, what=about)  # fmt: skip


# ---- 2: the table


@check
def table(answer: object, runs: Runs, marks: Sequence[int]) -> str:
    """Whether the table holds what the logs say: `{rate: [loss at each of the marks]}`."""
    expected = {rate: [mean_before(run.losses, mark) for mark in marks] for rate, run in runs.items()}
    late = {r: [mean_before(run.losses[1:], mark) for mark in marks] for r, run in runs.items()}
    order = list(expected.values())
    wrong = {
        "These are the losses of single steps. Take the mean of five, with loss_at.":
            {r: [_single(run.losses, mark) for mark in marks] for r, run in runs.items()},
        "These are one step late: `losses[0]` is the loss of step 1.": late,
        "These are validation losses. The table is about the training losses.":
            {r: [run.validation.get(mark, math.inf) for mark in marks] for r, run in runs.items()},
        "The same value three times: compare the runs at three different steps.":
            {r: [values[-1]] * len(marks) for r, values in expected.items()},
        "The steps are in the wrong order.": {r: values[::-1] for r, values in expected.items()},
        "The rows are exchanged: the losses of one rate stand beside another.":
            dict(zip(expected, order[::-1], strict=True)),
        **{f"Every row is that of {r:g}. Each rate has a run of its own.": dict.fromkeys(expected, values)
           for r, values in expected.items()},
    }  # fmt: skip
    rounding = 0.003  # of two decimals, relative to losses of a few nats
    if not same(answer, expected, rounding):
        cause = next((text for text, value in wrong.items() if same(answer, value, rounding)), "")
        form = "The form is {rate: [loss, loss, loss]}, with the rates as in `runs`: numbers, no texts."
        typed = (
            "These are not in the logs of these runs. Numbers of another run, or typed in by hand, do not "
            "count: compute them with loss_at."
        )
        compare(answer, expected, "your table", rounding, "nats", cause or (
            typed if _has_rows(answer, expected) else form
        ))  # fmt: skip
    best = min(expected, key=lambda rate: expected[rate][-1])
    return f"At the last of these steps {best:g} is ahead, with {number(expected[best][-1])} nats."


def _has_rows(answer: object, expected: Mapping[float, list[float]]) -> bool:
    """Whether the table has a row of as many numbers as expected for each rate."""
    if not isinstance(answer, Mapping) or not all(rate in answer for rate in expected):
        return False
    rows = [answer[rate] for rate in expected]
    return all(hasattr(row, "__len__") and not isinstance(row, Mapping) for row in rows) and all(
        len(row) == len(right) for row, right in zip(rows, expected.values(), strict=True)
    )


@check
def notes(answer: Any, runs: Runs, marks: Sequence[int]) -> str:
    """Whether each rate is called "too low", "good" or "too high", by its loss at the last mark."""
    finals = {rate: mean_before(run.losses, marks[-1]) for rate, run in runs.items()}
    best = min(finals, key=lambda rate: finals[rate])
    if not isinstance(answer, Mapping) or set(answer) != set(finals):
        each = "A note for each rate of the sweep, {rate: note}, with the rates as numbers."
        compare(answer, dict.fromkeys(finals, ""), "`notes`", cause=each)
    for rate, loss in finals.items():
        said, gap = _note(answer[rate]), loss - finals[best]
        side = "too low" if rate < best else "too high"
        right = {"good"} if gap <= MARGIN else {side}
        if abs(gap - MARGIN) < 0.01:
            right = {"good", side}
        if said in right:
            continue
        cause = f"It ends {number(gap)} nats above the best, which is {best:g}; up to {MARGIN:g} is good. "
        if said != "good" and "good" not in right:
            cause += f"And {rate:g} is {'below' if rate < best else 'above'} the best rate."
        elif said == "good":
            cause += "A falling curve is not enough: see how far the others have come at the same step."
        else:
            cause += "What is as good as the best to within the noise is good."
        raise Wrong(f"the note on {rate:g} is not right.", got=said, expected=" or ".join(right), cause=cause)
    return "Each is judged by how far the others have come at the same step."


def _note(text: object) -> str:
    """A note in the three words that the check knows."""
    words = str(text).lower()
    kinds = {
        "too low": ("low", "slow", "small"),
        "too high": ("high", "fast", "large", "unstable", "diverge", "oscillat", "jump"),
        "good": ("good", "right", "best", "ok", "fine"),
    }
    found = [kind for kind, signs in kinds.items() if any(sign in words for sign in signs)]
    if len(found) != 1:
        raise Wrong(f"{shown(text)} is no note.", cause='Write "too low", "good" or "too high".')
    return found[0]


# ---- 3: the best rate


@check
def best_rate(function: object) -> str:
    """Whether the best rate is the one with the lowest validation loss at the step that is asked for."""
    rng = random.Random(23)
    cases = [(_made_up(rng, lost), step) for lost in (0, 1, 2) for step in (40, 80)]

    def right(runs: Runs, step: int) -> float:
        return min(runs, key=lambda rate: runs[rate].validation.get(step, math.inf))

    def by(measure: Any) -> Any:
        return lambda runs, step: min(runs, key=lambda rate: measure(runs[rate], step))

    check_function(function, right, cases, [
        Misconception("That rate has the lowest training loss. What counts is the loss on text that was "
                      "never "
                      "trained on.", by(lambda run, step: mean_before(run.losses, step))),
        Misconception("That rate has the lowest training loss, and at the end of each run.",
                      by(lambda run, step: run.losses[-1] if math.isfinite(run.losses[-1]) else math.inf)),
        Misconception("Each run is judged at its own best moment. Compare all of them at the same step.",
                      by(lambda run, step: min(run.validation.values()))),
        Misconception("Each run is judged at its own last measurement, also where it ended early, or goes on "
                      "longer. "
                      "Compare all of them at the same step.",
                      by(lambda run, step: list(run.validation.values())[-1])),
        Misconception("A run that ended before the step has no loss there. Its last finite loss is from "
                      "before it "
                      "was lost.", by(lambda run, step: _last_up_to(run.validation, step))),
        Misconception("That is the loss of the best run. The rate is asked for.",
                      lambda runs, step: runs[right(runs, step)].validation[step]),
        Misconception("That rate has the highest loss: lower is better.",
                      lambda runs, step: max(runs, key=lambda rate: runs[rate].validation.get(step, -1.0))),
        Misconception("That is the highest rate.", lambda runs, step: max(runs)),
        Misconception("That is the lowest rate. (Is it `step` in your function, and not `steps`?)",
                      lambda runs, step: min(runs)),
    ], what="`best_rate`")  # fmt: skip
    return "The same step, and text that nobody trained on: that is a fair comparison."


def _made_up(rng: random.Random, lost: int) -> dict[float, SweepRun]:
    """Logs of five runs whose training loss favours another rate than their validation; `lost` end early."""
    from nanolab.lessons.sweeps import SweepRun

    rates = sorted(rng.uniform(0.001, 0.5) for _ in range(5))
    runs = {}
    for place, rate in enumerate(rates):
        end, level = 80, rng.uniform(2.5, 4.0)
        validation = {
            step: level + rng.uniform(0.0, 1.2) + (0.5 if step == 40 else 0) for step in (20, 40, 80)
        }
        trained = [8 - place * 0.7 - 0.01 * step + rng.uniform(0, 0.1) for step in range(1, end + 1)]
        if place >= len(rates) - lost:
            # It did best of all, and then was lost.
            validation, trained = {20: 1.0 + rng.random()}, [*trained[:24], math.nan]
        elif place == 0:
            validation[120] = 0.5 + rng.random()  # trained longer than the others
            trained += [trained[-1]] * 40
        elif place == 1:
            validation[20] = 0.2 + 0.1 * rng.random()  # was better once
        runs[rate] = SweepRun("Muon", rate, trained, validation)
    return runs


# ---- 4: the edge


@check
def edge(answer: object, runs: Runs, step: int) -> str:
    """Whether (low, high) are neighbours among the runs, with low still good and high too high."""
    if not isinstance(answer, Iterable) or isinstance(answer, (str, bytes)):
        raise Wrong("the edge lies between two rates.", got=shown(answer), cause="Give (low, high).")
    pair = [float(one) for one in answer]
    if len(pair) != 2:
        raise Wrong("the edge lies between two rates.", got=shown(answer), cause="Give (low, high).")
    low, high = pair
    for rate in pair:
        if rate not in runs:
            raise Wrong(
                f"no run has the rate {rate:g}.", got=shown(tuple(pair)),
                expected=f"two of {', '.join(f'{known:g}' for known in sorted(runs))}",
                cause="A rate that was not tried is a guess. Add it to `between`, and train.",
            )  # fmt: skip
    losses = {rate: run.validation.get(step, math.inf) for rate, run in runs.items()}
    best = min(losses, key=lambda rate: losses[rate])
    gaps = {rate: losses[rate] - losses[best] for rate in pair}
    said = ", ".join(f"{rate:g}: {number(gap)} nats above the best" for rate, gap in gaps.items())
    if low > high:
        raise Wrong("the lower rate comes first.", got=shown(tuple(pair)), cause="Give (low, high).")
    if high <= best:
        raise Wrong(
            "that is the lower edge.", got=said, cause=f"Below the best rate ({best:g}) it is only slow. The "
            "edge is where the rate becomes too high.",
        )  # fmt: skip
    if gaps[low] > MARGIN:
        raise Wrong(
            f"{low:g} is {'still too low' if low < best else 'beyond the edge already'}.",
            got=said,
            cause=f"The lower of the two should be good: at most {MARGIN:g} nats above the best.",
        )
    if gaps[high] <= MARGIN:
        raise Wrong(
            f"{high:g} is still good.",
            got=said,
            cause=f"Go higher, until it costs more than {MARGIN:g} nats.",
        )
    if high > NEAR * low:
        raise Wrong(
            f"{high:g} is {high / low:.1f} times {low:g}: too far apart to call it an edge.", got=said,
            expected=f"at most {NEAR:g} times", cause="Train some rates in between.",
        )  # fmt: skip
    return f"{said}."


# ---- 5: the other optimizer


@check
def times_higher(answer: object, muon: Runs, adamw: Runs, step: int) -> str:
    """Whether `answer` is Muon's best rate divided by AdamW's."""

    def best(runs: Runs) -> float:
        return min(runs, key=lambda rate: runs[rate].validation.get(step, math.inf))

    def best_trained(runs: Runs) -> float:
        return min(runs, key=lambda rate: mean_before(runs[rate].losses, step))

    m, a = best(muon), best(adamw)
    wrong = {
        "That is Muon's best rate alone. Divide it by AdamW's.": m,
        "That is AdamW's best rate alone. Muon's is to be divided by it.": a,
        "That is AdamW's divided by Muon's: the other way round.": a / m,
        "That is their difference. Rates are compared by their ratio.": m - a,
        "That is the ratio of their losses. The rates are asked for.":
            muon[m].validation[step] / adamw[a].validation[step],
        "That is the ratio of their losses, the other way round. The rates are asked for.":
            adamw[a].validation[step] / muon[m].validation[step],
        "These are the rates with the lowest training loss. Take the validation loss.":
            best_trained(muon) / best_trained(adamw),
        "That is the ratio of the highest rates that were tried.": max(muon) / max(adamw),
        "That is the logarithm of the ratio.": math.log10(m / a),
        "Both have the same best rate only if they mean the same by it. Look at the lowest point of each "
        "line.": 1.0,
    }  # fmt: skip
    if not same(answer, m / a, 0.02):
        # Causes are told apart more finely: rates are small, and so are the gaps between them.
        cause = next((text for text, value in wrong.items() if same(answer, value, 1e-4)), "")
        compare(answer, m / a, "the ratio of the best rates", 0.02, cause=cause)
    return f"Muon does best at {m:g}, AdamW at {a:g}: the same number means another thing to each."


# ---- 6: the two shapes

EXPLANATIONS = {
    "a": "Each step overshoots: it crosses the valley and lands on the other slope.",
    "b": "Each step goes the right way, but is so short that the way takes more steps than there are.",
    "c": "The model is too small to learn this text any better.",
    "d": "The training text is learned by heart, so that it does worse on all other text.",
}
"""What may be the reason for the shape of a curve; two of them are meant."""

NOT_THAT = {
    "c": "The same model does better at another rate, so its size cannot be the reason.",
    "d": "Hardly a line of the text was read twice. And that would show in the validation loss, not in "
    "training.",
}


@check
def shapes(answer: object) -> str:
    """Whether the two failure shapes have their reasons: `{"too low": letter, "too high": letter}`."""
    if not isinstance(answer, Mapping):
        raise Wrong(
            "a dictionary is expected.", got=shown(answer), cause='Like {"too low": "c", "too high": "d"}.'
        )
    given = {key: str(value).strip().lower().rstrip(".") for key, value in answer.items()}
    if set(given) != {"too low", "too high"}:
        compare(given, {"too low": "", "too high": ""}, "your explanation")
    exchanged = given == {"too low": "a", "too high": "b"}
    for shape, right in {"too low": "b", "too high": "a"}.items():
        letter = given[shape]
        if letter == right:
            continue
        if letter not in EXPLANATIONS:
            cause = f"Choose among {', '.join(EXPLANATIONS)}."
        elif letter in NOT_THAT:
            cause = NOT_THAT[letter]
        elif exchanged:
            cause = "The two are exchanged: which of them makes long steps?"
        else:
            cause = (
                "The two curves fail in different ways: one lags from the first step, the other starts fast."
            )
        raise Wrong(f"the reason for {shape!r} is not right.", got=letter, cause=cause)
    return "Too low lags from the start. Too high is quick at first, and then cannot settle."


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _single(losses: Sequence[float], step: int) -> float:
    return losses[step - 1] if len(losses) >= step else math.inf


def _last_up_to(validation: Mapping[int, float], step: int) -> float:
    """The last value measured at or before a step."""
    known = [at for at in validation if at <= step]
    return validation[max(known)] if known else math.inf
