"""Challenge 8, the broken runs: was the fault named, and does the mended function do what it should?"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nanolab.checks.comparing import kind_of
from nanolab.checks.core import Misconception, Wrong, call, check, check_function, shown
from nanolab.checks.suspects import CLEARED, EVIDENCE, FAULTS, WORDS, suspects_in

if TYPE_CHECKING:
    from torch import Tensor

    from nanolab.lessons.ward import Patient

# ---- naming the fault


@check
def diagnosis(patient: Patient, diagnosis: object) -> str:
    """Whether `diagnosis` names the fault of this patient's case, by its short name or in other words."""
    case = patient.case
    named = suspects_in(diagnosis)
    if not named:
        raise Wrong(
            f"{shown(diagnosis)} is none of the suspects.", cause=f"Use a short name: {', '.join(WORDS)}."
        )
    if len(named) > 1:
        raise Wrong(f"that names {' and '.join(named)}.", cause="Make up your mind: one fault a case.")
    if named[0] != FAULTS[case]:
        raise Wrong(
            f"case {case} has another fault than {named[0]!r}.",
            cause=CLEARED[case].get(named[0], "Nothing that was measured speaks for it. Question it once "
            "more."),
        )  # fmt: skip
    return f"The evidence: {EVIDENCE[case]}."


def _needs_tensor(value: object, like: Tensor, name: str) -> None:
    """The training goes on with what a mended function returns: lists and fractions would stop it there."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise Wrong(f"`{name}` should return tensors, and one is {kind_of(value)}.", got=shown(value),
                    cause="The numbers are right. `torch.tensor(...)` makes a tensor of a list.")  # fmt: skip
    if value.is_floating_point() and not like.is_floating_point():
        raise Wrong(f"`{name}` should return whole numbers, and they are {value.dtype}.", got=shown(value),
                    cause="Tokens are whole numbers: they pick a row of a table.")  # fmt: skip


# ---- case A


@check
def cut_rows(function: object) -> str:
    """Whether inputs and targets are one token apart."""
    import torch

    rng = random.Random(81)
    cases = [
        (torch.tensor([rng.randrange(1000) for _ in range(rows * context + 1)]), rows, context)
        for rows, context in ((2, 5), (3, 4), (1, 7), (4, 2))
    ]

    def cut(shift: int, start: int = 0) -> Any:
        """Inputs from place `start` on, and as targets what stands `shift` further, round and round."""

        def rows_of(stream: Tensor, rows: int, context: int) -> list[list[list[int]]]:
            ids, n = stream.tolist(), rows * context + 1
            return [
                [[ids[(start + s + row * context + i) % n] for i in range(context)] for row in range(rows)]
                for s in (0, shift)
            ]

        return rows_of

    def rolled(stream: Tensor, rows: int, context: int) -> list[Tensor]:
        inputs = stream[:-1].view(rows, context)
        return [inputs, torch.roll(inputs, -1, dims=1)]

    def rolled_flat(stream: Tensor, rows: int, context: int) -> list[Tensor]:
        return [stream[:-1].view(rows, context), torch.roll(stream[:-1], -1).view(rows, context)]

    before = (
        "The targets are the tokens *before* the inputs: shifted the wrong way. It would learn to look back."
    )
    wraps = (
        "The last target of a row is the first token of {}: torch.roll goes round in a circle. The stream "
        "has one "
        "token more for this."
    )
    check_function(function, cut(1), cases, [
        Misconception("The targets are the inputs themselves: not shifted. It need only copy.", cut(0)),
        Misconception("The targets are two tokens ahead: shifted twice. One token is skipped.", cut(2)),
        Misconception(before, cut(-1)),
        Misconception(before, cut(-1, start=1)),
        Misconception(wraps.format("the same row"), rolled),
        Misconception(wraps.format("the whole batch"), rolled_flat),
        Misconception("Inputs and targets are exchanged: return the inputs first.",
                      lambda *case: cut(1)(*case)[::-1]),
    ])  # fmt: skip
    for part in call(function, *cases[0]):
        _needs_tensor(part, cases[0][0], "cut_rows")
    return "Each target is the token after its input, across the ends of rows as well."


# ---- case B


@check
def rate_at(function: object) -> str:
    """Whether the rate climbs to its peak, in shares and not in per cent."""
    rng = random.Random(82)
    cases = [
        (step, rng.uniform(0.5, 3.0), warmup)
        for warmup in (4, 10, 25)
        for step in (0, 1, warmup // 2, warmup - 1, warmup, 60)
    ]

    def right(step: int, peak: float, warmup: int) -> float:
        return peak if step + 1 >= warmup else peak * (step + 1) / warmup

    check_function(function, right, cases, [
        Misconception("Still a hundred times too high: per cent are taken for shares.",
                      lambda step, peak, warmup: 100 * right(step, peak, warmup)),
        Misconception("It is at its peak at once, so that there is no warm-up left. 100 * (step + 1) / "
                      "warmup is "
                      "above 1 from the first steps on.",
                      lambda step, peak, warmup: peak if step else peak * min(1.0, 100 / warmup)),
        Misconception("The first step has a rate of 0 and teaches nothing: stairs count from step + 1.",
                      lambda step, peak, warmup: peak * min(1.0, step / warmup)),
        Misconception("It climbs on beyond the peak: after the warm-up the rate stays.",
                      lambda step, peak, warmup: peak * (step + 1) / warmup),
        Misconception("One stair too many: at step `warmup` the rate is at its peak already.",
                      lambda step, peak, warmup: peak * (step + 1) / warmup if step <= warmup else peak),
        Misconception("That is the share of the peak: multiply by `peak`.",
                      lambda step, peak, warmup: right(step, 1.0, warmup)),
        Misconception("Now it is a hundred times too low: divide by 100 once.",
                      lambda step, peak, warmup: right(step, peak, warmup) / 100),
    ])  # fmt: skip
    return "From peak / warmup up to the peak, and never above it."


# ---- case C


@check
def split_documents(function: object) -> str:
    """Whether nothing that validates is trained on, and nothing else is lost."""
    rng = random.Random(83)
    for size, count, doubles in ((9, 3, 0), (14, 4, 0), (12, 4, 3), (20, 6, 5)):
        texts = [f"document {rng.randrange(10**9)}" for _ in range(size)]
        texts += texts[:doubles]
        given = list(texts)
        result = call(function, texts, count)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Wrong("two lists are expected: (training, validation).", got=shown(result))
        if texts != given:
            raise Wrong(
                "your function changed the list that it was given.",
                cause="`remove` and `pop` change it for everybody. Make a new list.",
            )
        _split(_texts(result[0]), _texts(result[1]), given, count)
    return "What validates is never trained on, even where a text is there twice, and nothing else is lost."


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise Wrong("each of the two should be a list of texts.", got=shown(value))
    return list(value)


def _split(training: list[str], validation: list[str], texts: list[str], count: int) -> None:
    about = f"of {len(texts)} texts, {count} to validate with,"
    lost = [text for text in texts if text not in {*training, *validation}]
    both = [text for text in validation if text in set(training)]
    sizes = f"{len(training)} to train on, {len(validation)} to validate with"
    if len(training) == count and len(validation) == len(texts) - count and not both:
        raise Wrong(f"{about} the two are exchanged.", got=sizes, cause="Return the training texts first.")
    if len(validation) != count:
        raise Wrong(
            f"{about} {len(validation)} validate.", got=sizes, expected=f"{count} to validate with",
            cause="An empty validation leaks nothing, and measures nothing." if not validation
            else "The copies should leave the training, not the validation." if len(validation) < count
            else "",
        )  # fmt: skip
    if invented := [text for text in [*training, *validation] if text not in set(texts)]:
        raise Wrong(f"{about} one was not among them.", got=shown(invented[0]))
    if both:
        twice = all(texts.count(text) > 1 for text in both)
        raise Wrong(
            f"{about} {len(both)} of these stand among the training texts as well.",
            got=f"{len(both)} in both", expected="0 in both",
            cause="A text may be there twice: cutting the list in two puts one copy on either side. Compare "
            "the "
            "texts, not their places." if twice
            else "Validation rows in training: the validation loss then tells how well they are known by "
            "heart.",
        )  # fmt: skip
    if lost:
        raise Wrong(
            f"{about} {len(lost)} in neither list.", got=sizes,
            cause="Only what validates has to leave the training.",
        )  # fmt: skip


# ---- case D


@check
def chat_targets(function: object) -> str:
    """Whether exactly what the assistant writes is learned."""
    import torch

    rng = random.Random(84)
    cases = []
    for turns in (1, 2, 3):
        ids, mask = [0], [0]
        for _ in range(turns):
            asked, answered = rng.randint(2, 5), rng.randint(2, 5)
            ids += [rng.randrange(1, 900) for _ in range(asked + answered)]
            mask += [0] * asked + [1] * answered
        cases.append((torch.tensor(ids), torch.tensor(mask)))

    def where(learned: Any, ignored: int = -1) -> Any:
        """The next token where `learned(mask, place of the target)` says so."""

        def targets(ids: Tensor, mask: Tensor) -> list[int]:
            bits = [*mask.tolist(), 0]
            return [int(ids[i]) if learned(bits, i) else ignored for i in range(1, len(ids))]

        return targets

    check_function(function, where(lambda bits, i: bits[i] > 0), cases, [
        Misconception("Nothing is ignored: the prompt still counts in the loss.",
                      where(lambda bits, i: True)),
        Misconception("The mask is inverted: it learns to ask, and never to answer.",
                      where(lambda bits, i: bits[i] == 0)),
        Misconception("The mask was not shifted with the targets: the first token of each answer is lost, "
                      "and the "
                      "token after its end is learned.", where(lambda bits, i: bits[i - 1] > 0)),
        Misconception("The first token of each answer is lost: it is predicted from the last token of the "
                      "prompt, "
                      "but it is the answer's.", where(lambda bits, i: bits[i] > 0 and bits[i - 1] > 0)),
        Misconception("The last token of each answer is lost: it would never learn to stop.",
                      where(lambda bits, i: bits[i] > 0 and bits[i + 1] > 0)),
        Misconception("The mask was shifted twice: it is one place ahead of the targets.",
                      where(lambda bits, i: bits[i + 1] > 0)),
        Misconception("0 is a token like any other: what is to be ignored must be -1.",
                      where(lambda bits, i: bits[i] > 0, ignored=0)),
        Misconception("The targets are not shifted: T tokens have T - 1 targets, the first of them ids[1].",
                      lambda ids, mask: ids.masked_fill(mask == 0, -1)),
        Misconception("The inputs are given as targets: not shifted.",
                      lambda ids, mask: ids[:-1].masked_fill(mask[:-1] == 0, -1)),
    ])  # fmt: skip
    one_case = [value.clone() for value in cases[0]]
    _needs_tensor(call(function, *one_case), cases[0][0], "chat_targets")
    return "It learns its own words, from the first to the one that ends the turn, and nobody else's."


# ---- case E


@check
def scaled_advantages(function: object) -> str:
    """Whether equal rewards teach nothing, and all others what they should."""
    import torch

    rng = random.Random(85)
    drawn = [[float(rng.random() < 0.4) for _ in range(6)] for _ in range(3)]
    cases = [
        (torch.tensor([*drawn, [1.0] * 6, [0.0] * 6]),),
        (torch.tensor([[rng.random() for _ in range(4)] for _ in range(3)] + [[2.0] * 4]),),
        # Spreads that are small, but not 0, and can be written exactly.
        (torch.tensor([[0.5, 0.5 + 2.0**-17], [0.25, 0.75], [3.0, 3.0]]),),
        # Equal rewards whose computed mean is, in fp32, a hair beside them.
        (torch.tensor([[0.1 * k] * 7 for k in range(1, 10)] + [[0.0, 1.0, 1.0, 0.5, 0.5, 0.0, 1.0]]),),
    ]
    for (rewards,) in cases:
        _not_a_number(call(function, rewards.clone()), rewards)

    def right(rewards: Tensor, ddof: int = 0, epsilon: float = 0.0, equal: float = 0.0) -> list[list[float]]:
        rows = []
        for row in rewards.tolist():
            mean = math.fsum(row) / len(row)
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in row) / (len(row) - ddof))
            same = max(row) == min(row)
            rows.append([equal if same else (value - mean) / (spread + epsilon) for value in row])
        return rows

    def plainly(rewards: Tensor, epsilon: float) -> Tensor:
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True).sqrt() + epsilon)

    def clamped(rewards: Tensor, least: float) -> Tensor:
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        return centred / centred.square().mean(dim=1, keepdim=True).sqrt().clamp_min(least)

    def where_spread(rewards: Tensor) -> Tensor:
        return torch.nan_to_num(plainly(rewards, 0.0), 0.0, 0.0, 0.0)

    def whole_batch(rewards: Tensor) -> Tensor:
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        return centred / centred.square().mean().sqrt()

    epsilons = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3)
    hides = (
        "An epsilon of about {:g} hides the division instead of asking the question. It makes every other "
        "group "
        "smaller, most where the spread is small. Ask whether the rewards are equal."
    )
    rounding = (
        "Seven times 0.1 have a mean that is not exactly 0.1 to a computer, so this spread is not 0 but a "
        "rounding "
        "error, and it is divided by. Compare the rewards with each other, not the spread with 0."
    )
    check_function(function, right, cases, [
        *[Misconception(hides.format(e), lambda r, e=e: plainly(r, e)) for e in epsilons],
        *[Misconception(hides.format(e), lambda r, e=e: right(r, epsilon=e)) for e in epsilons],
        Misconception(rounding, where_spread),
        *[Misconception(rounding, lambda r, e=e: clamped(r, e)) for e in epsilons],
        Misconception("Ask of a whole row whether all are equal: `.all(dim=1, keepdim=True)`.",
                      lambda r: torch.where(r == r[:, :1], 0.0, plainly(r, 0.0))),
        Misconception("That divides by n - 1, as torch's `std` does. The mean squared distance divides by n.",
                      lambda r: right(r, ddof=1)),
        Misconception("One standard deviation for the whole batch: each group has its own.", whole_batch),
        Misconception("Not divided at all. It would train, but the answers are not in standard deviations "
                      "now.",
                      lambda r: r - r.mean(dim=1, keepdim=True)),
        Misconception("A group that is all right gets 1: then what it always does is pushed for ever. It has "
                      "nothing to teach, and its row is 0.", lambda r: right(r, equal=1.0)),
        Misconception("The groups without a spread were dropped: each group keeps its row, with zeros.",
                      lambda r: [row for row in right(r) if any(row)]),
    ])  # fmt: skip
    _needs_tensor(call(function, cases[0][0].clone()), cases[0][0], "scaled_advantages")
    return "Equal rewards teach nothing, whatever their value, and the other groups are what they were."


def _not_a_number(answer: Any, rewards: Tensor) -> None:
    """Say plainly which group gives nan, or infinity."""
    import torch

    values = torch.as_tensor(answer, dtype=torch.float32)
    if values.shape != rewards.shape or bool(values.isfinite().all()):
        return
    row = int((~values.isfinite()).any(dim=1).nonzero()[0, 0])
    group = ", ".join(f"{value:g}" for value in rewards[row].tolist())
    raise Wrong(
        f"the group [{group}] gets an advantage that is not a number.",
        got=f"{values[row, ~values[row].isfinite()][0].item()}", expected="0 for each of its answers",
        cause="All its rewards are equal, so its spread is 0, and 0 / 0 is nan. One nan in the gradient is "
        "enough "
        "to lose every weight.",
    )  # fmt: skip


# ---- case F


@check
def points(function: object) -> str:
    """Whether the right number after `####` is paid, and nothing else."""
    rng = random.Random(86)
    cases: list[tuple[str, str]] = []
    for _ in range(2):
        a, b = rng.randint(21, 60), rng.randint(3, 19)
        r = a + b
        work = f"{a} + {b} = <<{a}+{b}={r}>>{r}"
        cases += [
            (f"{work} apples.\n#### {r}", str(r)),
            (f"I know it.\n#### {r}", str(r)),
            (f"{a} - {b} = <<{a}-{b}={a - b}>>{a - b}\n#### {a - b}", str(r)),
            (f"{work}{work}{work}", str(r)),
            (f"{work} apples.\n#### {r}{b}", str(r)),
            (f"It is {r}, or is it?\n#### {a}", str(r)),
            (f"#### {a}\n#### {r}", str(r)),
            (f"{work}\n#### 1,{100 + r}", str(1100 + r)),
            ("", str(r)),
        ]

    def given(reply: str, which: int = 0, plain: bool = False) -> str:
        found = re.findall(r"####[ \t]*\$?([-\d,.]*\d)", reply)
        return "" if not found else found[which] if plain else found[which].replace(",", "")

    def right(reply: str, answer: str) -> float:
        return 1.0 if given(reply) == answer else 0.0

    def paid_for(message: str, pays: Callable[[str, str], float]) -> Misconception:
        return Misconception(message, lambda reply, answer: float(pays(reply, answer)))

    if isinstance(call(function, *cases[0]), bool):
        paid, function = function, lambda reply, answer: float(paid(reply, answer))  # type: ignore[operator]
    check_function(function, right, cases, [
        paid_for("It still pays for calls of the calculator, right or wrong.",
                      lambda reply, answer: min(4, reply.count("<<"))),
        paid_for("It pays for calls on top of the right answer: the needless call stays worth making.",
                      lambda reply, answer: right(reply, answer) + min(4, reply.count("<<"))),
        paid_for("It pays for calls where the answer is right. A needless call more still pays.",
                      lambda reply, answer: right(reply, answer) * min(4, reply.count("<<"))),
        paid_for("It pays wherever the digits of the answer stand, as in 712 for 12 or in the working. "
                      "A model "
                      "that lists all numbers would be paid each time.",
                      lambda reply, answer: answer in reply),
        paid_for("It pays wherever the reply ends with the digits of the answer.",
                      lambda reply, answer: reply.strip().endswith(answer)),
        paid_for("It pays for the form: any number after #### will do.",
                      lambda reply, answer: bool(given(reply))),
        paid_for("A reply with several #### is paid for its last one: a model would learn to try "
                      "numbers until "
                      "one fits. The first counts.",
                      lambda reply, answer: bool(given(reply)) and given(reply, -1) == answer),
        paid_for("1,150 and 1150 are the same number. `extract_answer` knows; a comparison of texts "
                      "does not.",
                      lambda reply, answer: given(reply, plain=True) == answer),
        paid_for("It pays where `#### 35` only begins a longer number, such as `#### 3513`.",
                      lambda reply, answer: f"#### {answer}" in reply),
        paid_for("A wrong reply is paid 0, not less.",
                      lambda reply, answer: 1.0 if right(reply, answer) else -1.0),
        paid_for("It never pays. `answer` is a text: is it compared with a number, or by `is`?",
                      lambda reply, answer: 0.0),
        paid_for("Right and wrong are exchanged: wrong answers are paid.",
                      lambda reply, answer: 1.0 - right(reply, answer)),
    ])  # fmt: skip
    return "It pays for what you want, and for nothing that usually goes with it."
