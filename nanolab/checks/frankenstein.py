"""Challenge 4, the Frankenstein model: tokens per byte, spikes, recoveries, and a conclusion.

The functions are tried on made-up logs and texts. What is said of the learner's own runs is held against
their logs on disk, see `own_runs.py`.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

from nanolab.checks.choosing import choose_one
from nanolab.checks.core import Misconception, check, check_function, check_unchanged
from nanolab.checks.own_runs import (
    Rows,
    conclusion,
    end_level,
    fair,
    recovery_of,
    saved_of,
    spike_of,
    train_losses,
    validations,
)

__all__ = [
    "conclusion", "fair", "recovery", "saved_steps", "spike_height", "tokens_per_byte", "why_sums",
]  # fmt: skip

# ---- tokens per byte


@check
def tokens_per_byte(function: object) -> str:
    """Whether the tokens of all texts are divided by the bytes of all texts."""
    from nanolab.reference import folder
    from nanolab.tokenizer import Tokenizer, split_pattern

    rng = random.Random(41)
    ours = Tokenizer.load(folder() / "tokenizer.json")
    plain = Tokenizer({bytes([byte]): byte for byte in range(256)}, split_pattern())
    words = [
        "the cat",
        "def f(x):\n    return x**2",
        "Ünïcödé – naïve",
        "{'a': [1, 2]}",
        "One morning",
        "日本語",
    ]
    cases: list[tuple[Any, ...]] = []
    for count in (3, 5, 4, 6):
        texts = [" ".join(rng.choices(words, k=rng.randint(1, 14))) + "\n\n" for _ in range(count)]
        cases.append((texts, plain if count == 5 else ours))
    cases.append((["The capit", "al of Fran", "ce is Par", "is."], ours))

    def count_bytes(text: str) -> int:
        return len(text.encode("utf-8"))

    def right(texts: list[str], tokenizer: Tokenizer) -> float:
        return sum(len(tokenizer.encode(text)) for text in texts) / sum(map(count_bytes, texts))

    def mean_of_ratios(texts: list[str], tokenizer: Tokenizer) -> float:
        return sum(len(tokenizer.encode(text)) / count_bytes(text) for text in texts) / len(texts)

    def per_character(texts: list[str], tokenizer: Tokenizer) -> float:
        return sum(len(tokenizer.encode(text)) for text in texts) / sum(map(len, texts))

    def joined(between: str) -> Any:
        return lambda texts, tokenizer: right([between.join(texts)], tokenizer)

    glued = (
        "The texts were joined before they were cut into tokens: at the seams other tokens come out. Encode "
        "each by itself."
    )
    check_function(function, right, cases, [
        Misconception("That is a mean of ratios: a short text counts as much as a long one. Add up all "
                      "tokens and all bytes first, then divide once.", mean_of_ratios),
        Misconception("Characters are not bytes: `é` has two, `日` has three. Count text.encode(\"utf-8\").",
                      per_character),
        Misconception("Upside down: that is bytes per token.", lambda *case: 1 / right(*case)),
        Misconception("Upside down, and characters instead of "
                      "bytes.", lambda *case: 1 / per_character(*case)),
        Misconception("A mean of ratios, and upside down.",
                      lambda texts, t: sum(1 / right([text], t) for text in texts) / len(texts)),
        Misconception("Only the first text was counted. Does `return` stand inside the loop?",
                      lambda texts, t: right(texts[:1], t)),
        Misconception("Only the last text was counted. Add up with `+=`.",
                      lambda texts, t: right(texts[-1:], t)),
        Misconception("That is the number of tokens: it is still to be divided by the bytes.",
                      lambda texts, t: sum(len(t.encode(text)) for text in texts)),
        Misconception("That is the number of texts by itself: `encode` of a list gives a list for each text, "
                      "and `len` counts those. Add up the lengths of the single texts.",
                      lambda texts, t: len(t.encode(texts)) / len(texts)),
        Misconception("That is texts per byte: `encode` of a list gives a list for each text, and `len` "
                      "counts those. Add up the lengths of the single texts.",
                      lambda texts, t: len(texts) / sum(map(count_bytes, texts))),
        Misconception("That is tokens per text: divide by the bytes of the texts, not by their number.",
                      lambda texts, t: sum(len(t.encode(text)) for text in texts) / len(texts)),
        Misconception("That is a sum of ratios. Add up all tokens and all bytes first, then divide once.",
                      lambda texts, t: mean_of_ratios(texts, t) * len(texts)),
        Misconception("That is per cent. Asked is how many tokens there are for a byte.",
                      lambda texts, t: 100 * right(texts, t)),
        Misconception("Each token was counted once, however often it comes.",
                      lambda texts, t: right(texts, t) * len({i for x in texts for i in t.encode(x)})
                      / sum(len(t.encode(x)) for x in texts)),
        Misconception("Each token of a text was counted once, however often it comes in it.",
                      lambda texts, t: sum(len(set(t.encode(x))) for x in texts)
                      / sum(map(count_bytes, texts))),
        Misconception("The blanks at the ends of the texts count as well: nothing is stripped.",
                      lambda texts, t: right([text.strip() for text in texts], t)),
        Misconception("The numbers of the tokens are added up. `len` says how many there are.",
                      lambda texts, t: sum(sum(t.encode(x)) for x in texts) / sum(map(count_bytes, texts))),
        Misconception("`//` leaves out what comes after the point: divide with `/`.",
                      lambda texts, t: right(texts, t) // 1),
        Misconception("Words were counted. The tokenizer says what is a token.",
                      lambda texts, t: sum(len(x.split()) for x in texts) / sum(map(count_bytes, texts))),
        Misconception("That does not use the tokenizer it is given, but the one of the notebook.",
                      lambda texts, t: right(texts, ours)),
        *[Misconception(glued, joined(between)) for between in ("", "\n", "\n\n", " ")],
    ], tolerance=1e-6)  # fmt: skip
    check_unchanged(function, *cases[0], cause="`pop` and the like work in place: go through it with `for`.")
    return "All tokens over all bytes, and one division at the end."


@check
def why_sums(answer: object) -> str:
    """Whether the reason for a ratio of sums is known."""
    choose_one(answer, "B", {
        "A": "Both are quick to compute. They answer different questions.",
        "C": "They do not agree: a file of one short, odd line pulls the mean of ratios as hard as a file of "
        "a thousand lines.",
        "D": "UTF-8 gives every text its bytes, and each ratio can be computed. It is their mean that "
             "misleads.",
    })  # fmt: skip
    return "Each byte counts once, as in bits per byte, whichever file it stands in."


# ---- spikes


def made_up_log(rng: random.Random) -> list[dict[str, Any]]:
    """The log of a run with base, mid and sft, in the form of the real ones, with losses drawn at random."""
    rows: list[dict[str, Any]] = []

    def measure(stage: str, step: int, nats: float) -> None:
        found = {"nats": nats, "bits_per_byte": nats * rng.uniform(0.3, 0.9), "tokens": 4096}
        rows.append({"stage": stage, "step": step, "validation": found})

    def train(stage: str, count: int, start: float, end: float) -> None:
        for step in range(count):
            loss = end + (start - end) * math.exp(-6 * step / count) + rng.uniform(-0.2, 0.2)
            rows.append({"stage": stage, "step": step, "loss": loss, "seconds": rng.random(), "lr": 1.0})
            if step == count // 2:
                measure(stage, step + 1, loss + rng.uniform(0.1, 0.3))
                rows.append({"stage": stage, "step": step + 1, "samples": ["One morning"]})

    measure("base", 0, rng.uniform(7.2, 7.8))
    train("base", rng.randint(9, 14), 7.5, rng.uniform(2, 4))
    measure("base", rows[-1]["step"] + 1, rng.uniform(2, 4))
    measure("mid", 0, rng.uniform(5, 9))
    train("mid", rng.randint(9, 14), rng.uniform(5, 9), rng.uniform(1, 3))
    # A peak after the first step, as a rate too high makes it: the spike is what the change of text does.
    peak = next(row for row in rows if row["stage"] == "mid" and row["step"] == 2 and "loss" in row)
    peak["loss"] = 9.5 + rng.random()
    measure("mid", rows[-1]["step"] + 1, rng.uniform(1, 3))
    train("sft", 5, rng.uniform(2, 3), 1.0)
    measure("sft", 5, rng.uniform(1, 2))
    return rows


@check
def spike_height(function: object) -> str:
    """Whether the spike is the first loss of mid minus the last validation loss of base."""
    rng = random.Random(42)
    cases = [(made_up_log(rng),) for _ in range(4)]
    # A base that forgot all at its end: its last validation is not its lowest, and mid begins below it.
    last = [row for row in cases[-1][0] if row["stage"] == "base" and "validation" in row][-1]
    last["validation"]["nats"] = 9.8

    def first(rows: Rows) -> float:
        return train_losses(rows, "mid")[0]

    def before(rows: Rows) -> float:
        return validations(rows, "base")[-1]

    check_function(function, spike_of, cases, [
        Misconception("You subtract the last *training* loss of base. It is of one batch, and so noisy; "
                      "take the last validation loss.",
                      lambda rows: first(rows) - train_losses(rows, "base")[-1]),
        Misconception("You subtract bits per byte from nats per token, apples from pears. Take \"nats\".",
                      lambda rows: first(rows) - validations(rows, "base", "bits_per_byte")[-1]),
        Misconception("That is the base before it was trained: take its last validation, not its first.",
                      lambda rows: first(rows) - validations(rows, "base")[0]),
        Misconception("That subtracts the lowest validation of base. Take its last.",
                      lambda rows: first(rows) - min(validations(rows, "base"))),
        Misconception("The spike may be negative, where the new text is the easier one: cut nothing off.",
                      lambda rows: max(0.0, first(rows) - before(rows))),
        Misconception("That is in bits. Asked are nats, as the log has them.",
                      lambda rows: (first(rows) - before(rows)) / math.log(2)),
        Misconception("You take the second loss of mid: there a step was taken already.",
                      lambda rows: train_losses(rows, "mid")[1] - before(rows)),
        Misconception("You take a mean of mid's losses. The model learns from step to step: take the first.",
                      lambda rows: sum(train_losses(rows, "mid")[:10])
                      / len(train_losses(rows, "mid")[:10]) - before(rows)),
        Misconception("The sign is left out: a loss that falls is a negative spike.",
                      lambda rows: abs(first(rows) - before(rows))),
        Misconception("That subtracts the last validation of the whole log, which belongs to a later "
                      "stage. Look at row[\"stage\"].",
                      lambda rows: first(rows) - validations(rows, "sft")[-1]),
        Misconception("That is the validation of mid, taken when mid is over.",
                      lambda rows: first(rows) - validations(rows, "mid")[-1]),
        Misconception("You take the highest loss of mid. What the change of text does shows in the first "
                      "one, before any step was taken; later peaks are the training's own.",
                      lambda rows: max(train_losses(rows, "mid")) - before(rows)),
        Misconception("You take the last loss of mid: the spike is at its beginning.",
                      lambda rows: train_losses(rows, "mid")[-1] - before(rows)),
        Misconception("You take the first loss of the log, which is base's.",
                      lambda rows: train_losses(rows, "base")[0] - before(rows)),
        Misconception("The sign is turned round: a rise is "
                      "positive.", lambda rows: before(rows) - first(rows)),
        Misconception("That takes the validation of mid before its first step: a fair measure too. But the "
                      "runs here do not validate mid, so take the loss of its first step.",
                      lambda rows: validations(rows, "mid")[0] - before(rows)),
        Misconception("That is the loss after the spike, not the rise: subtract where base stood.", first),
        Misconception("That is a ratio. Losses are logarithms: their difference is what means something.",
                      lambda rows: first(rows) / before(rows)),
    ])  # fmt: skip
    return "No weight has changed between the two numbers, only the text."


# ---- recoveries


def falling(rng: random.Random, steps: int, start: float, end: float, noise: float = 0.2) -> list[float]:
    """A noisy training curve."""
    return [end + (start - end) * math.exp(-5 * i / steps) + rng.uniform(-noise, noise) for i in range(steps)]


@check
def recovery(function: object) -> str:
    """Whether the steps until the loss is below a level are counted."""
    rng = random.Random(43)
    cases: list[tuple[list[float], float]] = []
    for level in (6.5, 4.0, 3.0):
        losses = falling(rng, rng.randint(25, 40), rng.uniform(7, 8), 1.5, noise=0.6)
        first = int(recovery_of(losses, level))
        losses[first + 2] = level + 0.4  # goes above it once more
        cases.append((losses, level))
    cases.append(([3.0, 2.5, 2.0, 2.0, 1.5], 2.0))
    cases.append(([1.0, 0.9, 1.2], 1.5))
    cases.append(([4.0, 2.8, 1.7, 2.6, 2.2], 2.0))  # only once below, and not at the end
    cases.append((falling(rng, 20, 8.0, 4.0), 1.0))

    def never(value: Any) -> Any:
        def steps(losses: list[float], level: float) -> float:
            found = recovery_of(losses, level)
            return found if math.isfinite(found) else float(value(losses))

        return steps

    def last_time(losses: list[float], level: float) -> float:
        above = [step for step, loss in enumerate(losses) if loss >= level]
        return math.inf if above and above[-1] == len(losses) - 1 else (above[-1] + 1 if above else 0)

    def plus_one(losses: list[float], level: float) -> float:
        return recovery_of(losses, level) + 1

    check_function(function, recovery_of, cases, [
        Misconception("One too many: losses[i] was measured after i steps, since each loss is measured "
                      "before its own step. Count from 0.", plus_one),
        Misconception("One too many, and where the loss never gets there, the answer is math.inf.",
                      lambda losses, level: never(len)(losses, level) + 1),
        Misconception("\"Below\" means below: a loss that equals the level is not there yet.",
                      lambda losses, level: recovery_of(losses, math.nextafter(level, math.inf))),
        Misconception("That waits until the loss stays below the level. Asked is the first time.", last_time),
        Misconception("It never gets there in this training, and the number of its steps is not when it did. "
                      "Answer math.inf.", never(len)),
        Misconception("It never gets there in this training, and the last step is not when it did. "
                      "Answer math.inf.", never(lambda losses: len(losses) - 1)),
        Misconception("-1 for \"never\" would look like the fastest of all. Answer math.inf.",
                      never(lambda losses: -1)),
        Misconception("0 for \"never\" would look like the fastest of all. Answer math.inf.",
                      never(lambda losses: 0)),
        *[Misconception("Where the loss never gets there, the answer is math.inf.",
                        never(lambda losses, value=value: value))
          for value in (math.nan, -math.inf, 1e6, 1e9)],
        Misconception("You look at the last loss. It is enough that the loss was below the level once.",
                      lambda losses, level: math.inf if losses[-1] >= level
                      else recovery_of(losses, level)),
        Misconception("losses[0] counts as well: where it is below the level, the answer is 0.",
                      lambda losses, level: 1 + recovery_of(losses[1:], level)),
        Misconception("You look for a loss above the level with one below it next. Where losses[0] is below, "
                      "the answer is 0.",
                      lambda losses, level: next((float(i + 1) for i, (a, b) in
                                                  enumerate(itertools.pairwise(losses))
                                                  if a >= level > b), math.inf)),
        *[Misconception("`enumerate` gives the number first, then the value: `for step, loss in "
                        "enumerate(losses)`.", lambda losses, level, value=value: value(losses))
          for value in (lambda losses: losses[0], lambda losses: 0.0)],
        Misconception("That counts the losses below the level. Asked is how many steps lead there.",
                      lambda losses, level: sum(loss < level for loss in losses)),
        Misconception("That looks at the first loss only: does a `return` in the loop end it at once? The "
                      "one for \"never\" stands behind the loop.",
                      lambda losses, level: 0 if losses[0] < level else math.inf),
        Misconception("That is the last step below the level. Asked is the first: `return` it at once.",
                      lambda losses, level: max((i for i, x in enumerate(losses) if x < level),
                                                default=math.inf)),
        Misconception("That counts all steps above the level, also those after the loss had been below it.",
                      lambda losses, level: sum(loss >= level for loss in losses)),
        Misconception("That is the loss at this step. Asked is the number of the step.",
                      lambda losses, level: next((x for x in losses if x < level), math.inf)),
        Misconception("That is the first step *above* the level. Turn the comparison round.",
                      lambda losses, level: next((i for i, x in enumerate(losses) if x > level), math.inf)),
        Misconception("That is the step of the lowest loss, whatever the level.",
                      lambda losses, level: losses.index(min(losses))),
    ])  # fmt: skip
    check_unchanged(function, *cases[0], cause="`pop` and the like work in place: go through it with `for`.")
    return "Losses can be compared by height. With this they can be compared by time, too."


@check
def saved_steps(function: object) -> str:
    """Whether both recoveries go to one level, that of the from-scratch start."""
    rng = random.Random(44)
    cases = []
    # The fifth costs steps, the sixth never gets there.
    for start, end in ((5.0, 1.4), (8.5, 1.8), (9.5, 2.0), (4.0, 1.0), (30.0, 2.2), (7.0, 3.0)):
        scratch = falling(rng, 50, 7.6, 2.4, noise=0.15)
        # A bad last step: whoever takes it alone for the level finds another one.
        scratch[-1] += rng.choice((-0.3, 0.3))
        cases.append((falling(rng, 50, start, end, noise=0.15), scratch))

    def to(level: Any) -> Any:
        """Both recoveries, to a level found otherwise."""
        return lambda a, b: recovery_of(b, level(a, b)) - recovery_of(a, level(a, b))

    def each_to_its_own(level: Any) -> Any:
        return lambda a, b: recovery_of(b, level(b)) - recovery_of(a, level(a))

    own = (
        "Each curve is measured to its own last level: two runners with two finishing lines. Both have to "
        "reach the level of the from-scratch start."
    )
    check_function(function, saved_of, cases, [
        Misconception(own, each_to_its_own(end_level)),
        Misconception(own, each_to_its_own(lambda losses: losses[-1])),
        Misconception("The level is that of the start with a body. Take where the from-scratch start ends: "
                      "that is what is to be reached sooner.", to(lambda a, b: end_level(a))),
        Misconception("The level is a single loss, the last one, and that is noisy. Take the mean of the "
                      "last ten.",
                      to(lambda a, b: b[-1])),
        Misconception("The level is the mean of the whole curve. Take the last ten losses only.",
                      to(lambda a, b: sum(b) / len(b))),
        Misconception("The level is the lowest loss: the luckiest batch of all. Take the mean of the last "
                      "ten.",
                      to(lambda a, b: min(b))),
        Misconception("The sign is turned round: what needs fewer steps has saved some, a positive number.",
                      lambda a, b: -saved_of(a, b)),
        Misconception("The two curves are exchanged: first comes the start with a body. And both go to the "
                      "level of the second.", lambda a, b: saved_of(b, a)),
        Misconception("That is a ratio. Asked is a number of steps: subtract.",
                      lambda a, b: recovery_of(b, end_level(b)) / recovery_of(a, end_level(b))),
        Misconception("`[10:]` leaves out the first ten. `[-10:]` are the last ten.",
                      to(lambda a, b: sum(b[10:]) / len(b[10:]))),
        Misconception("`[-10:-1]` leaves out the last loss. `[-10:]` are the last ten.",
                      to(lambda a, b: sum(b[-10:-1]) / 9)),
        Misconception("The level is the mean of both ends. Take where from scratch ends: that is to be "
                      "reached sooner.", to(lambda a, b: (end_level(a) + end_level(b)) / 2)),
        Misconception("The sign is left out: a body that costs steps has saved a negative number.",
                      lambda a, b: abs(saved_of(a, b))),
        Misconception("A body may also cost steps: the number is negative then, not 0.",
                      lambda a, b: max(0.0, saved_of(a, b))),
        Misconception("For a body that never gets there the answer is minus infinity.",
                      lambda a, b: saved_of(a, b) if math.isfinite(saved_of(a, b)) else 0.0),
        Misconception("The level is a single loss, and that is noisy: `[-10]` is one, `[-10:]` are ten.",
                      to(lambda a, b: b[-10])),
        Misconception("The level is where from scratch begins. `[-10:]` are the last ten losses.",
                      to(lambda a, b: sum(b[:10]) / 10)),
        Misconception("`[:-10]` is all but the last ten. `[-10:]` are the last ten.",
                      to(lambda a, b: sum(b[:-10]) / len(b[:-10]))),
        Misconception("The last ten losses are added up. Divide by 10 for their mean.",
                      to(lambda a, b: sum(b[-10:]))),
        Misconception("That is the recovery of the start with a body. How many fewer than from scratch is "
                      "that?",
                      lambda a, b: recovery_of(a, end_level(b))),
        Misconception("That is a difference of losses, in nats. Asked is how many steps.",
                      lambda a, b: end_level(b) - end_level(a)),
        Misconception("You subtract from the number of all steps. Subtract from the steps that the "
                      "from-scratch start takes to the same level.",
                      lambda a, b: len(b) - recovery_of(a, end_level(b))),
    ])  # fmt: skip
    return "One finishing line for both, and a clock: that is what a body is worth."
