"""Reading a learner's five likeliest next tokens, returned or printed, and finding out why they differ."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nanolab.checks.core import NotAttempted, Printed, Wrong, shown

if TYPE_CHECKING:
    from nanolab.tokenizer import Tokenizer

COUNT = 5

SAME_FOR_ALL = (
    "It is the same answer for every text. Was it typed in by hand, or does it use `logits` or `ids` of a "
    "cell above, which are those of one text? Inside the function, get the logits from the model anew."
)

PER_CENT = re.compile(r"(\d+(?:\.(\d+))?)\s*%")
SHARE = re.compile(r"(?<![\d.])([01]?\.(\d+)(?:e-?\d+)?|\d(?:\.(\d+))?e-\d+)")


@dataclass(frozen=True)
class Guess:
    """One line of a learner's list: what names the token, the number beside it, how exact that can be."""

    label: Any
    """a text or an id"""
    value: float
    slack: float = 2e-4


def read_guesses(result: Printed) -> list[Guess]:
    """The first five guesses of a function that returns or prints them.

    Returned: pairs, a dictionary, or what `torch.topk` gives. Printed: a line for each, with the probability
    as a number or in per cent.

    Raises NotAttempted where there is nothing at all, and `Wrong` where it can't be read.
    """
    value = result.value
    if value is None or value is ...:
        if not result.text.strip():
            raise NotAttempted("`predict_next` neither returned nor printed anything. Fill in its TODO.")
        guesses = _printed(result.text)
    elif isinstance(value, Mapping):
        guesses = _pairs(list(value.items()))
    elif isinstance(value, tuple) and hasattr(value, "indices") and hasattr(value, "values"):
        guesses = _pairs(
            list(zip(value.indices.flatten().tolist(), value.values.flatten().tolist(), strict=True))
        )
    else:
        guesses = _pairs(value)
    if len(guesses) < COUNT:
        raise Wrong(
            f"`predict_next` gives {len(guesses)} tokens with a probability, where {COUNT} are expected.",
            got=shown(value if value is not None else result.text),
            cause="Return a list of five pairs, (text of the token, probability), the likeliest first.",
        )
    return guesses[:COUNT]


def _pairs(value: Any) -> list[Guess]:
    form = "Return a list of five pairs, (text of the token, probability), the likeliest first."
    if not isinstance(value, (list, tuple)):
        raise Wrong("`predict_next` should return a list of pairs.", got=shown(value), cause=form)
    guesses = []
    for one in value:
        if not isinstance(one, (list, tuple)) or len(one) != 2:
            raise Wrong("`predict_next` should return a list of pairs.", got=shown(one), cause=form)
        label, chance = (_plain(part) for part in one)
        if isinstance(chance, str) and isinstance(label, float):
            label, chance = chance, label
        if isinstance(chance, (str, bool)) or not isinstance(chance, (int, float)):
            raise Wrong("the second part of a pair should be a number.", got=shown(one), cause=form)
        rounded = next((digits for digits in (2, 3) if chance == round(chance, digits)), None)
        slack = Guess.slack if rounded is None else 0.6 * 10**-rounded
        guesses.append(Guess(label, float(chance), slack))
    return guesses


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _printed(text: str) -> list[Guess]:
    """A number in per cent, or one between 0 and 1 with a decimal point, ends each guess."""
    pattern, scale = (PER_CENT, 0.01) if PER_CENT.search(text) else (SHARE, 1.0)
    guesses, end = [], 0
    for match in pattern.finditer(text):
        digits = next((group for group in match.groups()[1:] if group), "")
        guesses.append(
            Guess(text[end : match.start()], float(match[1]) * scale, 0.6 * scale * 10 ** -len(digits))
        )
        end = match.end()
    return guesses


# ---- what a model predicts


def logits_after(model: Any, tokenizer: Tokenizer, text: str, bos: bool) -> Tensor:
    """`(1, T, V)` in double precision, on the CPU; with `<|bos|>` before the text or without."""
    ids = [tokenizer.get_bos_token_id()] * bos + tokenizer.encode(text)
    with torch.inference_mode():
        return model(torch.tensor([ids], device=model.device)).cpu().double()


def names_of(tokenizer: Tokenizer, id: int) -> set[str]:
    """All ways to write a token, without the blanks around it."""
    if id >= tokenizer.get_vocab_size():
        return {str(id)}
    ways = {tokenizer.decode([id]), tokenizer.token_text(id), repr(tokenizer.decode([id]))[1:-1], str(id)}
    return {_bare(way) for way in ways}


def _bare(text: str) -> str:
    return text.replace("·", " ").replace("␣", " ").replace("▁", " ").strip()


def fits(guesses: Sequence[Guess], logits: Tensor, tokenizer: Tokenizer, named: bool = True) -> bool:
    """Whether the guesses are the five likeliest tokens, in order. Without `named` only the numbers count."""
    chances = logits[0, -1].softmax(-1)
    likeliest = chances.sort(descending=True)
    if not numbers_fit(guesses, likeliest.values[:COUNT]):
        return False
    places = range(min(2 * COUNT, len(chances)))
    for guess in guesses if named else ():
        # Of two that are equally likely, either may come first.
        near = [
            int(likeliest.indices[place])
            for place in places
            if math.isclose(likeliest.values[place], guess.value, rel_tol=1e-5, abs_tol=guess.slack + 1e-6)
        ]
        if not any(_is_name(guess.label, name) for id in near for name in names_of(tokenizer, id)):
            return False
    return True


def _is_name(label: Any, name: str) -> bool:
    if isinstance(label, str):
        # A printed line has more around the name: quotes, a number, a bracket.
        return name in label if name else True
    return str(label) == name


def numbers_fit(guesses: Sequence[Guess], values: Tensor) -> bool:
    """Whether the numbers beside the guesses are these."""
    return all(
        math.isclose(guess.value, value, rel_tol=1e-3, abs_tol=guess.slack)
        for guess, value in zip(guesses, values.flatten().tolist(), strict=False)
    )


def _top(values: Tensor) -> Tensor:
    return values.sort(descending=True).values[:COUNT]


WRONG_WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "These are logits, and not probabilities: they do not add up to 1. Send them through a softmax first.": (
        lambda logits: _top(logits[0, -1])
    ),
    "These are logarithms of probabilities: `log_softmax` instead of `softmax`.": (
        lambda logits: _top(logits[0, -1].log_softmax(-1))
    ),
    "The softmax goes over the wrong axis: over the places in the text. It must go over the vocabulary, "
    "which is the last axis (`dim=-1`).": lambda logits: _top(logits.softmax(1)[0, -1]),
    "The softmax goes over the wrong axis: over the batch of one, which makes everything 1. It must go "
    "over the vocabulary, which is the last axis (`dim=-1`).": lambda logits: _top(logits.softmax(0)[0, -1]),
    "One place too early: this is what the model expected where the last token of the text stands. The row "
    "for what comes next is the last one, `logits[0, -1]`.": lambda logits: _top(logits[0, -2].softmax(-1)),
    "This is the prediction after the first token. What comes after the whole text is in the last row, "
    "`logits[0, -1]`.": lambda logits: _top(logits[0, 0].softmax(-1)),
    "The softmax was taken twice: probabilities went through it once more, and came out nearly equal.": (
        lambda logits: _top(logits[0, -1].softmax(-1).softmax(-1))
    ),
    "A sigmoid looks at each token alone. These must add up to 1 over all tokens: softmax.": (
        lambda logits: _top(logits[0, -1].sigmoid())
    ),
    "The likeliest comes first.": lambda logits: _top(logits[0, -1].softmax(-1)).flip(0),
    "These are the five unlikeliest. Take the largest.": (
        lambda logits: logits[0, -1].softmax(-1).sort().values[:COUNT]
    ),
    "These are per cent. A probability lies between 0 and 1.": lambda logits: (
        100 * _top(logits[0, -1].softmax(-1))
    ),
}
"""What to say, and the five numbers that a learner gets that way from logits `(1, T, V)`."""


def diagnose(
    answers: Sequence[Sequence[Guess]], logits: Sequence[Sequence[Tensor]], tokenizer: Tokenizer
) -> str:
    """The likely cause of the answers to some prompts; `logits` has two for each, with bos and without."""
    together = list(zip(answers, logits, strict=False))
    if all(any(fits(guesses, one, tokenizer, named=False) for one in both) for guesses, both in together):
        return (
            "The probabilities are right, but they stand beside other tokens. The id of a token is its "
            "place in the vocabulary, and `topk` gives it as `indices`: decode these, one by one."
        )
    for message, way in WRONG_WAYS.items():
        if all(_explains(way, guesses, both) for guesses, both in together):
            return message
    first = [(guess.label, guess.value) for guess in answers[0]]
    if len(answers) > 1 and all([(g.label, g.value) for g in one] == first for one in answers):
        return SAME_FOR_ALL
    return ""


def _explains(way: Callable[[Tensor], Tensor], guesses: Sequence[Guess], both: Sequence[Tensor]) -> bool:
    try:
        return any(numbers_fit(guesses, way(one)) for one in both)
    except IndexError:
        return False
