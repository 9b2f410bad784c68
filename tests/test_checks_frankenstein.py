"""The checks of challenge 4: right answers pass, and each wrong one hears of its own misconception."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import checking
import pytest
from checking import waits

from nanolab.checks import frankenstein as checks
from nanolab.checks.own_runs import findings
from nanolab.course import Course
from nanolab.errors import CheckpointError, ConfigError
from nanolab.lessons import frankenstein as lesson
from nanolab.paths import run_dir
from nanolab.profiles import get_profile, override
from nanolab.reference import folder
from nanolab.tokenizer import Tokenizer

WORLD = override(get_profile("smoke"), data="tinyworld")


def refused(check, *answers) -> str:
    """What a check says to a wrong answer, in small letters."""
    return checking.refused(check, *answers).lower()


# ---- a fair comparison


def test_a_plan_that_differs_in_its_text_only_is_fair():
    checks.fair(WORLD, override(WORLD, data="python"))
    checks.fair(WORLD, replace(WORLD, data="python"))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (WORLD, "the two profiles are the same"),
        (override(WORLD, source="python"), "`source` is where a profile takes its text from when"),
        (override(WORLD, data="docstrings"), "Docstrings are English sentences about code"),
        (override(WORLD, data="Python"), "in small letters"),
        (override(WORLD, data="python", depth=4), "two things changed at once: data, and depth"),
        (override(WORLD, "base", data="python", num_iterations=9), "base.num_iterations"),
        (override(WORLD, data="python", vocab_size=4096), "two different vocabularies cannot be compared"),
        (override(WORLD, seed=7), "changed is seed"),
        ("python", "a profile is needed here"),
    ],
)  # fmt: skip
def test_an_unfair_plan_hears_what_else_differs(code, says):
    assert says.lower() in refused(checks.fair, WORLD, code)


def test_a_plan_that_is_still_blank_waits():
    waits(checks.fair, WORLD, ...)


# ---- tokens per byte


def count(texts, tokenizer):
    return sum(len(tokenizer.encode(text)) for text in texts)


def size(texts):
    return sum(len(text.encode("utf-8")) for text in texts)


def test_tokens_of_all_over_bytes_of_all_is_right():
    checks.tokens_per_byte(lambda texts, tokenizer: count(texts, tokenizer) / size(texts))
    checks.tokens_per_byte(
        lambda texts, tokenizer: sum(map(len, tokenizer.encode(texts))) / len("".join(texts).encode())
    )


NOTEBOOKS = Tokenizer.load(folder() / "tokenizer.json")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda texts, t: sum(count([x], t) / size([x]) for x in texts) / len(texts), "a mean of ratios"),
        (lambda texts, t: count(texts, t) / sum(map(len, texts)), "Characters are not bytes"),
        (lambda texts, t: size(texts) / count(texts, t), "Upside down: that is bytes per token"),
        (lambda texts, t: count(["".join(texts)], t) / size(texts), "joined before they were cut"),
        (lambda texts, t: count(texts[:1], t) / size(texts[:1]), "Only the first text"),
        (lambda texts, t: count(texts[-1:], t) / size(texts[-1:]), "Only the last text"),
        (
            lambda texts, t: count(texts, t) / sum(size([texts.pop()]) for _ in range(len(texts))),
            "changed what",
        ),
        (lambda texts, t: count(texts, t), "still to be divided"),
        (lambda texts, t: count(texts, t) / len(texts), "tokens per text"),
        (lambda texts, t: sum(count([x], t) / size([x]) for x in texts), "a sum of ratios"),
        (lambda texts, t: 100 * count(texts, t) / size(texts), "per cent"),
        (
            lambda texts, t: sum(len(set(t.encode(x))) for x in texts) / size(texts),
            "Each token of a text was",
        ),
        (
            lambda texts, t: count([x.strip() for x in texts], t) / size([x.strip() for x in texts]),
            "stripped",
        ),
        (lambda texts, t: sum(sum(t.encode(x)) for x in texts) / size(texts), "`len` says how many"),
        (lambda texts, t: count(texts, t) // size(texts), "`//` leaves out"),
        (lambda texts, t: sum(len(x.split()) for x in texts) / size(texts), "Words were counted"),
        (lambda texts, t: len(t.encode(texts)) / len(texts), "the number of texts by itself"),
        (lambda texts, t: len(t.encode(texts)) / size(texts), "texts per byte"),
        (lambda texts, t: count(texts, NOTEBOOKS) / size(texts), "does not use the tokenizer it is given"),
        (lambda texts, t: 0.3741, "Was it typed in by hand?"),
        (0.3741, "this check needs a function"),
    ],
)
def test_other_ratios_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.tokens_per_byte, wrong)


@pytest.mark.parametrize(
    ("letter", "says"),
    [("A", "quick to compute"), ("c", "pulls the mean of ratios"), (" D ", "every text its bytes"),
     ("E", "none of the statements"), ("AB", "choose one"), (3, "no choice")],
)  # fmt: skip
def test_only_the_reason_for_sums_passes(letter, says):
    checks.why_sums("B")
    checks.why_sums(["b"])
    assert says.lower() in refused(checks.why_sums, letter)


# ---- spikes


def of(rows, stage, kind):
    found = [row[kind] for row in rows if row["stage"] == stage and kind in row]
    return found if kind == "loss" else [value["nats"] for value in found]


def test_the_first_loss_of_mid_over_the_last_validation_of_base_is_the_spike():
    checks.spike_height(lambda rows: of(rows, "mid", "loss")[0] - of(rows, "base", "validation")[-1])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda r: of(r, "mid", "loss")[0] - of(r, "base", "loss")[-1], "last *training* loss of base"),
        (lambda r: of(r, "mid", "loss")[0] - [x["validation"]["bits_per_byte"] for x in r
                                              if x["stage"] == "base" and "validation" in x][-1],
         "bits per byte from nats per token"),
        (lambda r: of(r, "mid", "loss")[0] - of(r, "base", "validation")[0], "before it was trained"),
        (lambda r: of(r, "mid", "loss")[0] - [x["validation"]["nats"] for x in r if "validation" in x][-1],
         "belongs to a later stage"),
        (lambda r: max(of(r, "mid", "loss")) - of(r, "base", "validation")[-1], "the highest loss of mid"),
        (lambda r: of(r, "base", "validation")[-1] - of(r, "mid", "loss")[0], "sign is turned round"),
        (lambda r: of(r, "mid", "loss")[0], "not the rise"),
        (lambda r: of(r, "mid", "loss")[0] - min(of(r, "base", "validation")), "the lowest validation"),
        (lambda r: abs(of(r, "mid", "loss")[0] - of(r, "base", "validation")[-1]), "The sign is left out"),
        (lambda r: of(r, "mid", "loss")[0] / of(r, "base", "validation")[-1], "That is a ratio"),
        (lambda r: max(0, of(r, "mid", "loss")[0] - of(r, "base", "validation")[-1]), "cut nothing off"),
        (lambda r: (of(r, "mid", "loss")[0] - of(r, "base", "validation")[-1]) / math.log(2), "in bits"),
        (lambda r: of(r, "mid", "loss")[1] - of(r, "base", "validation")[-1], "the second loss of mid"),
        (lambda r: sum(of(r, "mid", "loss")[:10]) / len(of(r, "mid", "loss")[:10])
         - of(r, "base", "validation")[-1], "a mean of mid"),
        (lambda r: 5.1, "typed in by hand"),
        (lambda r: r[0]["loss"], "KeyError"),
    ],
)  # fmt: skip
def test_other_differences_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.spike_height, wrong)


# ---- recoveries


def recovery(losses, level):
    return next((step for step, loss in enumerate(losses) if loss < level), math.inf)


def loss_there(losses, level):
    return next((loss for loss in losses if loss < level), math.inf)


def last_below(losses, level):
    return max((step for step, loss in enumerate(losses) if loss < level), default=math.inf)


def crossing(losses, level):
    for step in range(1, len(losses)):
        if losses[step - 1] >= level > losses[step]:
            return step
    return math.inf


def popping(losses, level):
    steps = 0
    while losses:
        if losses.pop(0) < level:
            return steps
        steps += 1
    return math.inf


def finite(way):
    """`recovery`, with another answer where the loss never gets there."""

    def steps(losses, level):
        found = recovery(losses, level)
        return found if math.isfinite(found) else way(losses)

    return steps


def test_the_first_step_below_the_level_is_the_recovery():
    checks.recovery(recovery)
    checks.recovery(lambda losses, level: float(recovery(losses, level)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda losses, level: recovery(losses, level) + 1, "One too many"),
        (lambda losses, level: next((i for i, x in enumerate(losses) if x <= level), math.inf), "means below"),
        (lambda losses, level: next((i for i, x in enumerate(losses) if x > level), math.inf), "above* the level"),
        (lambda losses, level: sum(x >= level for x in losses), "counts all steps above"),
        (finite(len), "the number of its steps is not when it did"),
        (finite(lambda losses: -1), "look like the fastest of all"),
        (loss_there, "That is the loss at this step"),
        (lambda losses, level: losses.index(min(losses)), "the step of the lowest loss"),
        (lambda losses, level: 0 if losses[0] < level else math.inf, "looks at the first loss only"),
        (last_below, "the last step below the level"),
        (finite(lambda losses: math.nan), "the answer is math.inf"),
        (finite(lambda losses: 10**9), "the answer is math.inf"),
        (lambda losses, level: math.inf if losses[-1] >= level else recovery(losses, level), "the last loss"),
        (lambda losses, level: 1 + recovery(losses[1:], level), "losses[0] counts as well"),
        (crossing, "above the level with one below it next"),
        (lambda losses, level: next((v for i, v in enumerate(losses) if i < level), math.inf), "`enumerate` gives"),
        (lambda losses, level: 0, "`enumerate` gives"),
        (lambda losses, level: sum(x < level for x in losses), "counts the losses below"),
        (popping, "changed what it was given"),
        (lambda losses, level: 7, "typed in by hand"),
    ],
)  # fmt: skip
def test_other_counts_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.recovery, wrong)


def test_a_loop_that_never_ends_does_not_hang_the_check(monkeypatch):
    def forever(losses, level):
        while True:
            pass

    original = checks.check_function
    monkeypatch.setattr(checks, "check_function", lambda *a, **k: original(*a, **{**k, "seconds": 0.3}))
    assert "a loop that never ends" in refused(checks.recovery, forever)


def end(losses):
    return sum(losses[-10:]) / 10


def saved(level):
    return lambda a, b: recovery(b, level(a, b)) - recovery(a, level(a, b))


def test_one_level_for_both_is_right():
    checks.saved_steps(saved(lambda a, b: end(b)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda a, b: recovery(b, end(b)) - recovery(a, end(a)), "two finishing lines"),
        (lambda a, b: recovery(b, b[-1]) - recovery(a, a[-1]), "two finishing lines"),
        (saved(lambda a, b: end(a)), "The level is that of the start with a body"),
        (saved(lambda a, b: b[-1]), "a single loss"),
        (saved(lambda a, b: sum(b) / len(b)), "mean of the whole curve"),
        (lambda a, b: recovery(a, end(b)) - recovery(b, end(b)), "sign is turned round"),
        (lambda a, b: abs(saved(lambda a, b: end(b))(a, b)), "The sign is left out"),
        (lambda a, b: max(0, saved(lambda a, b: end(b))(a, b)), "the number is negative then, not 0"),
        (lambda a, b: saved(lambda a, b: end(b))(b, a), "The two curves are exchanged"),
        (lambda a, b: recovery(b, end(b)) / recovery(a, end(b)), "That is a ratio"),
        (saved(lambda a, b: sum(b[10:]) / len(b[10:])), "leaves out the first ten"),
        (saved(lambda a, b: sum(b[-10:-1]) / 9), "leaves out the last loss"),
        (saved(lambda a, b: (end(a) + end(b)) / 2), "the mean of both ends"),
        (saved(lambda a, b: b[-10]), "`[-10]` is one"),
        (saved(lambda a, b: sum(b[:10]) / 10), "where from scratch begins"),
        (saved(lambda a, b: sum(b[:-10]) / len(b[:-10])), "all but the last ten"),
        (saved(lambda a, b: sum(b[-10:])), "Divide by 10"),
        (lambda a, b: end(b) - end(a), "a difference of losses"),
        (lambda a, b: recovery(a, end(b)), "How many fewer than from scratch"),
        (lambda a, b: 12, "typed in by hand"),
    ],
)
def test_other_comparisons_hear_what_they_are(wrong, says):
    assert says.lower() in refused(checks.saved_steps, wrong)


@pytest.mark.parametrize(
    "check", [checks.tokens_per_byte, checks.spike_height, checks.recovery, checks.saved_steps]
)
def test_a_blank_function_waits(check):
    waits(check, lambda *case: None)
    waits(check, lambda *case: ...)
    waits(check, ...)


# ---- the conclusion


def write_runs(firsts, ends, bits, nats=(3.0, 2.5, 7.6), steps=14, **changes):
    """Three finished runs on disk, with these first and last losses of mid; in the order of STARTS."""
    profile = override(WORLD, "mid", num_iterations=steps)
    for i, start in enumerate(lesson.STARTS):
        run = run_dir(lesson.tag(start))
        run.mkdir(parents=True, exist_ok=True)
        own = override(profile, data="python" if start == "code" else None, **changes.get(start, {}))
        (run / "profile.json").write_text(own.to_json())
        found = {"nats": nats[i], "bits_per_byte": bits[i], "tokens": 4096}
        rows = [{"stage": "base", "step": 16, "validation": found}]
        # Falls fast at first, to where it ends, and stays there for ten steps.
        slope = [ends[i] + 0.05 + (firsts[i] - ends[i] - 0.05) * 0.6**step for step in range(steps - 10)]
        rest = [ends[i] + (0.01 if step % 2 else -0.01) for step in range(10)]
        rows += [{"stage": "mid", "step": k, "loss": loss} for k, loss in enumerate([*slope, *rest])]
        (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_statements_that_hold_in_the_runs_are_right_however_they_are_written():
    # Code begins above scratch, ends between the two, and is worse per byte; the lowest spike is scratch's.
    write_runs(firsts=(5.0, 9.0, 7.6), ends=(2.0, 2.4, 3.0), bits=(1.0, 2.0, 4.0), steps=30)
    for answer in ({"A", "C"}, ["C", "A"], "A, C", "ac", "A and C", ("a", "c")):
        checks.conclusion(answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"A", "B", "C"}, "statement B does not hold in your runs"),
        ({"A"}, "statement C holds in your runs, and you left it out"),
        ({"A", "C", "D"}, "2.40 nats after code and 2.00 after TinyWorld"),
        ({"A", "C", "E"}, "2.00 bits per byte on code"),
        ({"A", "C", "F"}, "from the lowest spike to the highest it is scratch, world, code"),
        (set(), "2 of the 6 are misjudged"),
        ({"A", "G"}, "none of the statements"),
        (42, "no choice of statements"),
    ],
)  # fmt: skip
def test_a_misjudged_statement_hears_the_numbers(answer, says):
    write_runs(firsts=(5.0, 9.0, 7.6), ends=(2.0, 2.4, 3.0), bits=(1.0, 2.0, 4.0), steps=30)
    assert says.lower() in refused(checks.conclusion, answer)


def test_other_runs_make_other_statements_true():
    write_runs(firsts=(5.0, 4.0, 7.6), ends=(2.0, 2.0, 3.0), bits=(2.0, 1.0, 4.0), nats=(3.0, 2.5, 9.0))
    assert "statement a does not hold" in refused(checks.conclusion, {"A", "C"})


def test_what_is_too_close_to_call_may_be_judged_either_way():
    write_runs(firsts=(5.0, 5.01, 7.6), ends=(2.0, 2.4, 3.0), bits=(1.0, 2.0, 4.0), steps=30)
    checks.conclusion({"A", "B", "C"})
    checks.conclusion({"B", "C"})


def test_without_runs_the_conclusion_waits():
    waits(checks.conclusion, {"A"})
    write_runs(firsts=(5.0, 9.0, 7.6), ends=(2.0, 2.4, 3.0), bits=(1.0, 2.0, 4.0))
    (run_dir(lesson.tag("code")) / "log.jsonl").write_text("")
    waits(checks.conclusion, {"A"})


def test_runs_of_different_tries_are_not_compared():
    write_runs(firsts=(5, 9, 7.6), ends=(2, 2.4, 3), bits=(1, 2, 4), code={"depth": 4})
    assert "come from different tries" in refused(checks.conclusion, {"A", "C"})


def test_every_statement_of_the_notebook_is_looked_up():
    rng = random.Random(1)
    rows = checks.made_up_log(rng)
    assert findings(dict.fromkeys(lesson.STARTS, rows)).keys() == lesson.STATEMENTS.keys()


# ---- the runs


def tiny(tmp_path):
    """A course at smoke size whose text is a file of a few lines, with a plan of very few steps."""
    (tmp_path / "texts").mkdir()
    for number in range(40):
        (tmp_path / "texts" / f"{number}.txt").write_text(
            f"Number {number} is followed by {number + 1}.\n" * 9
        )
    course = Course("smoke")
    profile = override(lesson.plan(course, NOTEBOOKS), depth=1, data=str(tmp_path / "texts"))
    for stage in ("base", "mid"):
        small = {"num_iterations": 2, "total_batch_size": 128, "device_batch_size": 2, "max_seq_len": 64}
        profile = override(profile, stage, eval_tokens=128, **small)
    return course, profile


def test_a_finished_start_is_kept_and_the_log_has_what_the_check_reads(tmp_path):
    course, profile = tiny(tmp_path)
    for _ in range(2):  # the notebook, run twice
        lesson.open_scratch(course, profile, NOTEBOOKS)
        mid = lesson.open_mid("scratch")
        steps = [record.index for _, record in lesson.watch_mids({"scratch": mid})]
        rows = mid.log.rows()
        assert checks.spike_of(rows) == pytest.approx(lesson.losses(rows, "mid")[0] - math.log(2048), abs=0.3)
    assert steps == []
    assert len(lesson.losses(rows, "mid")) == 2


def test_another_plan_begins_anew(tmp_path):
    course, profile = tiny(tmp_path)
    lesson.open_scratch(course, profile, NOTEBOOKS)
    for _ in lesson.open_mid("scratch").steps():
        pass
    lesson.open_scratch(course, override(profile, seed=7), NOTEBOOKS)
    assert lesson.open_mid("scratch").start == 0


def test_mid_does_not_start_from_half_a_base(tmp_path):
    course, profile = tiny(tmp_path)
    with pytest.raises(ConfigError, match="The check of task 1"):
        lesson.open_base(course, "python", NOTEBOOKS, "code")
    with pytest.raises(CheckpointError, match="there is no body yet"):
        lesson.open_mid("world")
    steps = lesson.open_base(course, profile, NOTEBOOKS, "world").steps()
    next(steps)
    steps.close()
    with pytest.raises(CheckpointError, match="has taken 1 of 2 steps"):
        lesson.open_mid("world")
