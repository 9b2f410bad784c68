"""The checks of challenge 3, the token autopsy: from logits to surprise, and whether sureness is earned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nanolab.checks.calibration import calibration
from nanolab.checks.core import (
    Misconception,
    Wrong,
    call,
    call_printed,
    check,
    check_function,
    compare,
    same,
    shown,
)
from nanolab.checks.predictions import COUNT, SAME_FOR_ALL, diagnose, fits, logits_after, read_guesses
from nanolab.checks.surprise import LN2, bits, chances_of, entropy, rank, surprises

if TYPE_CHECKING:
    from nanolab.tokenizer import Tokenizer

__all__ = [
    "bits", "calibration", "entropy", "first_id", "predict_next", "rank", "surprises", "uncertainty",
]  # fmt: skip

PROMPTS = (
    "The capital of Kenya is", "One morning the old", "3 + 4 =", "My favourite colour is", "Once upon a time",
)  # fmt: skip
"""None of them stands in the notebook."""

WORDS = ("France", "water", "elephant", "yesterday", "hello", "seventeen", "river", "Kenya")


@check
def predict_next(answer: object, model: Any, tokenizer: Tokenizer) -> str:
    """`predict_next(text)`: the five likeliest next tokens with their probabilities, returned or printed."""
    answers, logits = [], []
    failed = None
    for text in PROMPTS:
        answers.append(read_guesses(call_printed(answer, text)))
        # Whether the text begins with <|bos|> is the learner's choice.
        logits.append([logits_after(model, tokenizer, text, bos) for bos in (True, False)])
        if failed is None and not any(fits(answers[-1], one, tokenizer) for one in logits[-1]):
            failed = len(answers) - 1
    if failed is not None:
        chances = logits[failed][0][0, -1].softmax(-1).topk(COUNT)
        right = [
            (tokenizer.token_text(id) if id < tokenizer.get_vocab_size() else id, float(f"{chance:.4g}"))
            for id, chance in zip(chances.indices.tolist(), chances.values.tolist(), strict=True)
        ]
        got = [(_label(guess.label), guess.value) for guess in answers[failed]]
        gaps = [abs(one - two) for (_, one), (_, two) in zip(got, right, strict=True)]
        raise Wrong(
            f"what comes after {PROMPTS[failed]!r} is not right.", got=shown(got), expected=shown(right),
            difference=f"{max(gaps):.3g}", cause=diagnose(answers, logits, tokenizer),
        )  # fmt: skip
    return "That is the whole of it: a language model gives every token a probability, and nothing else."


def _label(label: Any) -> Any:
    return " ".join(label.split())[-40:] if isinstance(label, str) and len(label) > 40 else label


@check
def first_id(answer: object, tokenizer: Tokenizer) -> str:
    """`first_id(word)`: the id of a word's first token, where the word stands inside a sentence."""

    def inside(word: str) -> int:
        return tokenizer.encode(f" {word}")[0]

    check_function(
        answer,
        inside,
        [(word,) for word in WORDS],
        [
            Misconception(
                "This is the token without its leading space. Inside a sentence a word begins with its "
                "space: ' Paris' and 'Paris' are different tokens, and the model expects the first.",
                lambda word: tokenizer.encode(word)[0],
            ),
            Misconception(
                "This is the word's last token. What comes next is its first.",
                lambda word: tokenizer.encode(f" {word}")[-1],
            ),
            Misconception(
                "This is the last token of the word without its leading space. Encode the space too, and "
                "take the first token.",
                lambda word: tokenizer.encode(word)[-1],
            ),
            Misconception(
                "This is a lone space. One space, right before the word, is part of the word's first token.",
                lambda word: tokenizer.encode(f"{word} ")[-1],
            ),
            Misconception("This is <|bos|>, which begins a text.", lambda word: tokenizer.get_bos_token_id()),
            Misconception(
                "This is a list with the id in it. Take the id itself, with `[0]`.",
                lambda word: [inside(word)],
            ),
            Misconception(
                "These are all tokens of the word. Take the first.", lambda word: tokenizer.encode(f" {word}")
            ),
            Misconception(
                "These are all tokens of the word without its leading space. Encode the space too, and "
                "take the first token.",
                lambda word: tokenizer.encode(word),
            ),
        ],
        what="`first_id`",
    )
    return "A space is part of the token that follows it."


@check
def uncertainty(answer: object, model: Any, tokenizer: Tokenizer) -> str:
    """`uncertainty(text)`: the entropy in bits of what comes after a text, `<|bos|>` before it or not."""
    ways = {
        "This is in nats. Divide by ln(2), or use log2.": lambda logits: _bits_of(logits[0, -1]) * LN2,
        "This is the probability of the likeliest token. Give the entropy of all.": lambda logits: chances_of(
            logits[0, -1]
        ).max(),
        "This is the surprise at the likeliest token. Give the entropy of all.": lambda logits: (
            -chances_of(logits[0, -1]).max().log2()
        ),
        "The softmax was taken twice: give `entropy` the logits, not probabilities.": lambda logits: _bits_of(
            chances_of(logits[0, -1])
        ),
        "One place too early: the row for what comes next is the last one, `logits[0, -1]`.": lambda logits: (
            _bits_of(logits[0, -2])
        ),
        "This is the prediction after the first token. What comes after the whole text is in the last row.": (
            lambda logits: _bits_of(logits[0, 0])
        ),
        "This is the mean over all places of the text. Only the last row is about what comes next.": (
            lambda logits: torch.stack([_bits_of(row) for row in logits[0]]).mean()
        ),
        "This adds up all places of the text. Only the last row is about what comes next.": (
            lambda logits: torch.stack([_bits_of(row) for row in logits[0]]).sum()
        ),
    }
    texts = (*PROMPTS, "The", "The capital of France is")
    logits = [[logits_after(model, tokenizer, text, bos) for bos in (True, False)] for text in texts]
    got = [call(answer, text) for text in texts]
    wrong = [
        place
        for place, both in enumerate(logits)
        if not any(same(got[place], _bits_of(one[0, -1]), 5e-3) for one in both)
    ]
    if wrong:
        place = wrong[0]
        cause = next((text for text, way in ways.items() if _all_fit(way, got, logits)), "")
        if not cause and all(same(one, got[0], 1e-9) for one in got):
            cause = SAME_FOR_ALL
        what = f"`uncertainty` of {texts[place]!r}"
        compare(got[place], _bits_of(logits[place][0][0, -1]), what, 5e-3, "bits", cause)
    short, long = (float(one) for one in got[-2:])
    return (
        f"After 'The' the model expects {short:.1f} bits, like {2**short:.0f} equally likely tokens, "
        f"after 'The capital of France is' {long:.1f} bits, like {2**long:.1f}."
    )


def _bits_of(row: Tensor) -> Tensor:
    chances = chances_of(row)
    return -torch.special.xlogy(chances, chances).sum() / LN2


def _all_fit(way: Any, got: Sequence[object], logits: Sequence[Sequence[Tensor]]) -> bool:
    def fit(value: object, one: Tensor) -> bool:
        return one.shape[1] > 1 and same(value, way(one), 5e-3)

    return all(any(fit(value, one) for one in both) for value, both in zip(got, logits, strict=True))
