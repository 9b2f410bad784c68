"""The checks of challenge 2: right answers pass, and each wrong one hears of its own misconception."""

from __future__ import annotations

import math

import pytest
import torch
from checking import refused

from nanolab.checks import NotAttempted, learning_rate
from nanolab.lessons.sweeps import SweepRun, marks_of

MARKS = marks_of(50)
ENDS = {0.001: 3.4, 0.01: 3.05, 0.02: 3.0, 0.1: 3.5, 0.5: 3.9}


def made(optimizer: str, ends: dict[float, float], shift: float = 0.0) -> dict[float, SweepRun]:
    """Runs of 50 steps that end at these losses; validation is a little higher."""
    runs = {}
    for number, (rate, end) in enumerate(ends.items()):
        noise = [0.2 * math.sin(7 * step + number) for step in range(1, 51)]
        losses = [end + 4 * math.exp(-step / 8) + noise[step - 1] for step in range(1, 51)]
        losses[45:] = [end + 0.05 * number * (k - 2) for k in range(5)]
        validation = {mark: end + shift + (50 - mark) / 30 for mark in MARKS}
        runs[rate] = SweepRun(optimizer, rate, losses, validation)
    return runs


@pytest.fixture
def runs():
    return made("Muon", ENDS, shift=0.07)


@pytest.fixture
def adamw():
    return made("AdamW", {0.0002: 3.4, 0.001: 3.2, 0.004: 3.1, 0.02: 4.7}, shift=0.05)


def loss_at(losses, step):
    some = losses[max(0, step - 5) : step]
    if len(losses) < step or not all(map(math.isfinite, some)):
        return math.inf
    return sum(some) / len(some)


def best_rate(runs, step):
    return min(runs, key=lambda rate: runs[rate].validation.get(step, math.inf))


# ---- reading a log


def test_the_mean_of_five_losses_is_accepted_as_a_number_or_a_tensor():
    learning_rate.loss_at(loss_at)
    learning_rate.loss_at(lambda losses, step: torch.tensor(loss_at(losses, step)))


def mean(values):
    return sum(values) / len(values)


def finite_only(losses, step):
    return mean([loss for loss in losses[:step] if math.isfinite(loss)][-5:])


def nan_for_lost(losses, step):
    found = loss_at(losses, step)
    return math.nan if math.isinf(found) else found


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda losses, step: mean(losses[max(0, step - 4) : step + 1]), "Off by one"),
        (lambda losses, step: mean(losses[max(0, step - 6) : step - 1]), "the step itself is left out"),
        (lambda losses, step: losses[step - 1], "the loss of a single step"),
        (
            lambda losses, step: losses[min(step, len(losses) - 1)],
            "a single loss, and that of the step after",
        ),
        (lambda losses, step: mean(losses[:step]), "how it began has no say"),
        (lambda losses, step: mean(losses[-5:]), "could not be compared at the same step"),
        (lambda losses, step: min(losses[:step]), "lucky batch"),
        (finite_only, "last finite losses are from before"),
        (lambda losses, step: 0.0 if len(losses) < step else loss_at(losses, step), "best of all"),
        (nan_for_lost, "nan is neither below nor above"),
        (lambda losses, step: 3.5, "typed in by hand"),
        (lambda losses, step: "low", "should be a number"),
        (lambda losses, step: math.inf if len(losses) <= step else loss_at(losses, step), "did get there"),
        (lambda losses, step: sum(losses[max(0, step - 5) : step]) / 5, "divide by how many there are"),
        (lambda losses, step: sum(losses[step - 5 : step]) / 5, "counts from the end"),
        (
            lambda losses, step: None if len(losses) < step else loss_at(losses, step),
            "every way through it must end",
        ),
        (
            lambda losses, step: (
                mean([x for x in losses[max(0, step - 5) : step] if x == x] or [math.inf])
                if len(losses) >= step
                else math.inf
            ),
            "The mean of those that are numbers",
        ),
    ],
)
def test_a_wrong_way_to_read_a_log_is_named(wrong, says):
    assert says in refused(learning_rate.loss_at, wrong)


def test_a_nan_of_a_training_is_not_math_nan_itself():
    def finds_only_math_nan(losses, step):
        some = losses[max(0, step - 5) : step]
        return math.inf if len(losses) < step or math.nan in some else mean(some)

    assert "nor equal to itself" in refused(learning_rate.loss_at, finds_only_math_nan)


def test_the_last_finite_loss_of_a_lost_run_is_not_taken():
    def last_finite(losses, step):
        return (
            loss_at(losses, step) if loss_at(losses, step) < math.inf else [x for x in losses if x == x][-1]
        )

    assert "before it was lost" in refused(learning_rate.loss_at, last_finite)


# ---- the table and its notes


def right_table(runs):
    return {rate: [loss_at(run.losses, mark) for mark in MARKS] for rate, run in runs.items()}


def test_a_table_from_the_logs_is_accepted_also_when_rounded(runs):
    learning_rate.table(right_table(runs), runs, MARKS)
    learning_rate.table(
        {rate: tuple(round(loss, 2) for loss in row) for rate, row in right_table(runs).items()}, runs, MARKS
    )


def test_a_lost_run_is_infinite_in_the_table(runs):
    runs[0.5].losses[30:] = [math.nan]
    learning_rate.table(right_table(runs), runs, MARKS)
    assert right_table(runs)[0.5][1:] == [loss_at(runs[0.5].losses, 30), math.inf]
    last_finite = {**right_table(runs), 0.5: [*right_table(runs)[0.5][:2], runs[0.5].losses[29]]}
    assert "at 0.5" in refused(learning_rate.table, last_finite, runs, MARKS)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda runs: {r: [run.losses[m - 1] for m in MARKS] for r, run in runs.items()}, "single steps"),
        (
            lambda runs: {r: [loss_at(run.losses[1:], m) for m in MARKS] for r, run in runs.items()},
            "one step late",
        ),
        (
            lambda runs: {r: [run.validation[m] for m in MARKS] for r, run in runs.items()},
            "validation losses",
        ),
        (lambda runs: {r: [row[-1]] * 3 for r, row in right_table(runs).items()}, "three different steps"),
        (lambda runs: {r: row[::-1] for r, row in right_table(runs).items()}, "wrong order"),
        (
            lambda runs: dict(zip(runs, [*right_table(runs).values()][::-1], strict=True)),
            "rows are exchanged",
        ),
        (lambda runs: {rate: [9.1, 8.8, 8.6] for rate in runs}, "typed in by hand"),
        (lambda runs: {0.02: [4.0, 3.5, 3.0]}, "has no entry 0.001"),
        (lambda runs: {r: row[:2] for r, row in right_table(runs).items()}, "wrong shape"),
        (lambda runs: "3.0", "should be a dictionary"),
        (lambda runs: [*right_table(runs).values()], "The form is"),
        (lambda runs: {str(rate): row for rate, row in right_table(runs).items()}, "numbers, no texts"),
        (lambda runs: {rate: row[-1] for rate, row in right_table(runs).items()}, "The form is"),
        (lambda runs: dict.fromkeys(runs, right_table(runs)[0.02]), "Every row is that of 0.02"),
    ],
)
def test_a_wrong_table_is_explained(runs, wrong, says):
    assert says in refused(learning_rate.table, wrong(runs), runs, MARKS)


def test_a_table_with_a_blank_was_not_attempted(runs):
    for blank in (..., {**right_table(runs), 0.5: ...}, None):
        with pytest.raises(NotAttempted):
            learning_rate.table(blank, runs, MARKS)


NOTES = {0.001: "too low", 0.01: "good", 0.02: "good", 0.1: "too high", 0.5: "too high"}


def test_notes_that_fit_the_runs_are_accepted_in_several_wordings(runs):
    learning_rate.notes(NOTES, runs, MARKS)
    learning_rate.notes(
        {0.001: "Too slow", 0.01: "just right", 0.02: "best", 0.1: "oscillates", 0.5: "diverges"}, runs, MARKS
    )


@pytest.mark.parametrize(
    ("rate", "note", "says"),
    [
        (0.1, "good", "A falling curve is not enough"),
        (0.001, "good", "A falling curve is not enough"),
        (0.01, "too low", "to within the noise is good"),
        (0.001, "too high", "0.001 is below the best rate"),
        (0.5, "too low", "0.5 is above the best rate"),
        (0.5, "hm", "is no note"),
    ],
)
def test_a_note_that_does_not_fit_its_run_is_explained(runs, rate, note, says):
    assert says in refused(learning_rate.notes, {**NOTES, rate: note}, runs, MARKS)


def test_notes_need_all_rates(runs):
    assert "no entry" in refused(learning_rate.notes, {0.02: "good"}, runs, MARKS)
    with pytest.raises(NotAttempted):
        learning_rate.notes({**NOTES, 0.1: ...}, runs, MARKS)


# ---- the best rate


def test_the_lowest_validation_loss_at_the_step_is_best():
    learning_rate.best_rate(best_rate)


def by(measure):
    return lambda runs, step: min(runs, key=lambda rate: measure(runs[rate], step))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (by(lambda run, step: loss_at(run.losses, step)), "lowest training loss"),
        (by(lambda run, step: min(run.validation.values())), "its own best moment"),
        (by(lambda run, step: list(run.validation.values())[-1]), "its own last measurement"),
        (
            by(lambda run, step: run.validation[max(k for k in run.validation if k <= step)]),
            "ended before the step",
        ),
        (lambda runs, step: runs[best_rate(runs, step)].validation[step], "The rate is asked for"),
        (lambda runs, step: max(runs, key=lambda r: runs[r].validation.get(step, -1)), "lower is better"),
        (lambda runs, step: max(runs), "the highest rate"),
        (lambda runs, step: min(runs), "the lowest rate"),
        (lambda runs, step: 0.02, "typed in by hand"),
        (lambda runs, step: [best_rate(runs, step)], "wrong shape"),
        (lambda runs, step: runs[best_rate(runs, step)], "should be a number"),
        (lambda runs, step: next(iter(runs)), "not `steps`"),
        (
            lambda runs, step: best_rate(runs, step) if step in runs[max(runs)].validation else None,
            "returned nothing",
        ),
        (lambda runs, step: runs[0.02].validation[step], "raised KeyError"),
    ],
)
def test_a_wrong_choice_is_explained(wrong, says):
    assert says in refused(learning_rate.best_rate, wrong)


# ---- the edge


@pytest.fixture
def closer(runs):
    return {**runs, **made("Muon", {0.045: 3.03, 0.3: 3.7}, shift=0.07)}


def test_neighbours_on_either_side_of_the_margin_are_the_edge(closer):
    learning_rate.edge((0.045, 0.1), closer, 50)
    learning_rate.edge([0.045, 0.1], closer, 50)


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ((0.02, 0.1), "too far apart"),
        ((0.1, 0.3), "beyond the edge already"),
        ((0.02, 0.045), "0.045 is still good"),
        ((0.1, 0.045), "lower rate comes first"),
        ((0.001, 0.01), "the lower edge"),
        ((0.001, 0.1), "0.001 is still too low"),
        ((0.05, 0.1), "A rate that was not tried is a guess"),
        (0.05, "between two rates"),
        ("0.02, 0.1", "between two rates"),
    ],
)
def test_what_is_no_edge_is_explained(closer, pair, says):
    assert says in refused(learning_rate.edge, pair, closer, 50)


# ---- two optimizers, two shapes


def test_the_ratio_of_the_best_rates_is_accepted(runs, adamw):
    learning_rate.times_higher(0.02 / 0.004, runs, adamw, 50)
    learning_rate.times_higher(torch.tensor(5.0), runs, adamw, 50)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (0.004 / 0.02, "the other way round"),
        (0.02 - 0.004, "their difference"),
        (0.02, "Muon's best rate alone"),
        (0.004, "AdamW's best rate alone"),
        (3.07 / 3.15, "ratio of their losses"),
        (0.5 / 0.02, "highest rates that were tried"),
        (math.log10(5), "logarithm"),
        (1.0, "the same best rate"),
    ],
)
def test_a_wrong_ratio_is_explained(runs, adamw, wrong, says):
    assert says in refused(learning_rate.times_higher, wrong, runs, adamw, 50)


def test_the_rates_with_the_lowest_training_loss_are_not_the_best(runs, adamw):
    runs[0.1].losses[45:] = [2.0] * 5
    assert "lowest training loss" in refused(learning_rate.times_higher, 0.1 / 0.004, runs, adamw, 50)


def test_the_two_shapes_have_their_reasons():
    learning_rate.shapes({"too low": "b", "too high": "A."})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"too low": "a", "too high": "b"}, "exchanged"),
        ({"too low": "c", "too high": "a"}, "its size cannot be the reason"),
        ({"too low": "b", "too high": "d"}, "read twice"),
        ({"too low": "a", "too high": "a"}, "fail in different ways"),
        ({"too low": "b", "too high": "x"}, "Choose among"),
        ({"too low": "b"}, "no entry"),
        ({"too low": "x", "too high": "c"}, "Choose among"),
        ({"low": "c", "high": "a"}, "no entry"),
        ("ba", "A dictionary is expected"),
    ],
)
def test_another_explanation_is_answered(answer, says):
    assert says in refused(learning_rate.shapes, answer)


def test_blanks_were_not_attempted(runs, adamw):
    for check, answers in (
        (learning_rate.loss_at, (lambda losses, step: ...,)),
        (learning_rate.best_rate, (lambda runs, step: ...,)),
        (learning_rate.edge, (..., runs, 50)),
        (learning_rate.times_higher, (..., runs, adamw, 50)),
        (learning_rate.shapes, ({"too low": ..., "too high": ...},)),
    ):
        with pytest.raises(NotAttempted):
            check(*answers)
