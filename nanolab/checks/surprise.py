"""Checks of surprise, rank and entropy: at one place of a text, and along a text."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nanolab.checks.core import Misconception, check, check_function

SEED = 2003
LN2 = math.log(2)


def _rows(count: int, offset: int) -> list[tuple[Tensor, int]]:
    """Logits of `(V,)` and an id, for several sizes of vocabulary."""
    generator = torch.Generator().manual_seed(SEED + offset)
    cases = []
    for size in (7, 12, 30, 64, 101)[:count]:
        logits = 2.5 * torch.randn(size, generator=generator)
        order = logits.argsort(descending=True)
        # A token that is neither the likeliest nor, by chance, at the place that its id names.
        places = [place for place in range(2, size) if int(order[place]) != place]
        place = places[int(torch.randint(len(places), (1,), generator=generator))]
        cases.append((logits, int(order[place])))
    return cases


def chances_of(logits: Tensor, dim: int = -1) -> Tensor:
    return logits.double().softmax(dim)


@check
def bits(answer: object) -> str:
    """`bits(logits, id)`: the surprise in bits at token `id`, from logits of `(V,)`."""
    check_function(
        answer,
        lambda logits, id: -chances_of(logits)[id].log2(),
        _rows(5, 1),
        [
            Misconception(
                "This is in nats. One bit is ln(2) nats: divide by ln(2), or use log2.",
                lambda logits, id: -chances_of(logits)[id].log(),
            ),
            Misconception(
                "This is the probability. Surprise is minus its log2.",
                lambda logits, id: chances_of(logits)[id],
            ),
            Misconception(
                "This is the logit, as if it were a probability's logarithm. Logits become probabilities "
                "through a softmax.",
                lambda logits, id: logits[id],
            ),
            *[
                Misconception(
                    "This is the logarithm of the logit itself. A logit is no probability, and may be "
                    "negative: send the logits through a softmax first.",
                    lambda logits, id, log=log: -log(logits[id]),
                )
                for log in (torch.log2, torch.log)
            ],
            Misconception(
                "This is minus the logit. It lacks the softmax: what a logit means depends on all others.",
                lambda logits, id: -logits[id],
            ),
            Misconception(
                "The logit is divided by ln(2), without a softmax: logits are not yet logarithms of "
                "probabilities.",
                lambda logits, id: -logits[id] / LN2,
            ),
            Misconception(
                "The sign: the logarithm of a probability is negative, and surprise is minus that.",
                lambda logits, id: chances_of(logits)[id].log2(),
            ),
            Misconception(
                "This is the surprise at the likeliest token. Look up token `id`.",
                lambda logits, id: -chances_of(logits).max().log2(),
            ),
            Misconception(
                "A sigmoid looks at each token alone. Take the softmax over all of them.",
                lambda logits, id: -logits.double()[id].sigmoid().log2(),
            ),
            Misconception(
                "These are the surprises at all tokens. Pick that of token `id`.",
                lambda logits, id: -chances_of(logits).log2(),
            ),
            Misconception(
                "The softmax was taken twice: probabilities went through it once more.",
                lambda logits, id: -chances_of(chances_of(logits))[id].log2(),
            ),
        ],
        tolerance=1e-3,
        what="`bits`",
        unit="bits",
    )
    return "1 bit is a coin toss; 11 bits is one in 2,048."


@check
def rank(answer: object) -> str:
    """`rank(logits, id)`: 1 if `id` is the likeliest token, 2 if it is the next, and so on."""

    def order(logits: Tensor) -> Tensor:
        return logits.argsort(descending=True)

    def right(logits: Tensor, id: int) -> int:
        return int((logits > logits[id]).sum()) + 1

    check_function(
        answer,
        right,
        _rows(5, 2),
        [
            Misconception(
                "This counts from 0. The likeliest token has rank 1.",
                lambda logits, id: right(logits, id) - 1,
            ),
            Misconception(
                "This counts from the unlikeliest. Sort with `descending=True`, or count those that are "
                "larger.",
                lambda logits, id: int((logits < logits[id]).sum()) + 1,
            ),
            Misconception(
                "This counts from the unlikeliest, and from 0.",
                lambda logits, id: int((logits < logits[id]).sum()),
            ),
            Misconception(
                "`order[id]` is the token that stands at place `id` in the order. You want the place "
                "where token `id` stands: the other way round.",
                lambda logits, id: int(order(logits)[id]),
            ),
            Misconception(
                "`order[id]` is the token that stands at place `id` in the order. You want the place "
                "where token `id` stands, from 1.",
                lambda logits, id: int(order(logits)[id]) + 1,
            ),
            Misconception("This is the id itself.", lambda logits, id: id),
            *[
                Misconception(
                    "This says for each token whether it is ahead. Count them with `.sum()`, then add 1.",
                    lambda logits, id, add=add: (logits > logits[id]).int() + add,
                )
                for add in (0, 1)
            ],
            Misconception(
                "This compares the logits with the number `id`. Compare with the logit of it, `logits[id]`.",
                lambda logits, id: int((logits > id).sum()) + 1,
            ),
        ],
        what="`rank`",
    )
    return "Rank needs no softmax: it keeps the order."


@check
def entropy(answer: object) -> str:
    """`entropy(logits)`: the surprise in bits that the model itself expects, from logits of `(V,)`."""

    def right(logits: Tensor) -> Tensor:
        chances = chances_of(logits)
        return -(chances * chances.log2()).sum()

    check_function(
        answer,
        right,
        [(logits,) for logits, _ in _rows(5, 3)],
        [
            Misconception(
                "This is in nats. Divide by ln(2), or use log2.", lambda logits: right(logits) * LN2
            ),
            Misconception("The sign: surprise is minus the logarithm.", lambda logits: -right(logits)),
            Misconception(
                "This is a mean over the vocabulary. The probabilities are the weights already: sum.",
                lambda logits: right(logits) / len(logits),
            ),
            Misconception(
                "Each surprise must count as often as the model expects it: weigh it with its probability.",
                lambda logits: -chances_of(logits).log2().mean(),
            ),
            Misconception(
                "This adds up all surprises. Weigh each with its probability first.",
                lambda logits: -chances_of(logits).log2().sum(),
            ),
            Misconception(
                "This would be it if all tokens were equally likely.", lambda logits: math.log2(len(logits))
            ),
            Misconception(
                "This is the surprise at the likeliest token. It does not always come: take the mean "
                "over all.",
                lambda logits: -chances_of(logits).max().log2(),
            ),
            Misconception(
                "This is 2 to the power of the entropy: a number of tokens, and not yet bits.",
                lambda logits: 2 ** right(logits),
            ),
            Misconception(
                "These are the terms, one for each token. Add them up.",
                lambda logits: -chances_of(logits) * chances_of(logits).log2(),
            ),
            Misconception(
                "Logits may be negative, and then have no logarithm. Send them through a softmax first.",
                lambda logits: -(logits * logits.log2()).sum(),
            ),
            Misconception(
                "The weights are logits here. Weigh each surprise with its probability.",
                lambda logits: -(logits * chances_of(logits).log2()).sum(),
            ),
            *[
                Misconception(
                    "The softmax was taken twice: probabilities went through it once more.",
                    lambda logits, weights=weights: (
                        -(weights(logits) * chances_of(chances_of(logits)).log2()).sum()
                    ),
                )
                for weights in (chances_of, lambda logits: chances_of(chances_of(logits)))
            ],
        ],
        tolerance=1e-3,
        what="`entropy`",
        unit="bits",
    )
    return "Surprise is known once the token has come; entropy is known before."


@check
def surprises(answer: object) -> str:
    """`surprises(logits, ids)`: the bits of every token but the first; logits `(T, V)`, ids `(T,)`."""
    generator = torch.Generator().manual_seed(SEED + 4)
    cases = []
    for length, size in ((2, 9), (5, 20), (9, 33), (14, 12)):
        logits = 2.0 * torch.randn(length, size, generator=generator)
        cases.append((logits, torch.randint(size, (length,), generator=generator)))

    def taken(rows: Tensor, ids: Tensor) -> Tensor:
        return rows.gather(-1, ids[:, None])[:, 0]

    def logs(logits: Tensor, dim: int = -1) -> Tensor:
        return -chances_of(logits, dim).log2()

    def right(logits: Tensor, ids: Tensor) -> Tensor:
        return taken(logs(logits)[:-1], ids[1:])

    one_less = "One number too many. Nobody made a guess about the first token: one less than tokens."
    unshifted = (
        "Off by one: this asks row t for token t, which the model has just read. Row t is its prediction for "
        "token t + 1: leave out the last row, and the first token."
    )
    check_function(
        answer,
        right,
        cases,
        [
            Misconception(unshifted, lambda logits, ids: taken(logs(logits)[1:], ids[1:])),
            Misconception(unshifted, lambda logits, ids: taken(logs(logits)[:-1], ids[:-1])),
            Misconception(
                f"{unshifted} The first token has nothing before it: one number less than tokens.",
                lambda logits, ids: taken(logs(logits), ids),
            ),
            Misconception(
                "Shifted the wrong way: this asks for the token before. Row t is the prediction for "
                "token t + 1.",
                lambda logits, ids: taken(logs(logits)[1:], ids[:-1]),
            ),
            Misconception(
                "The softmax goes over the wrong axis: over the places. It must go over the vocabulary, "
                "the last axis.",
                lambda logits, ids: taken(logs(logits, 0)[:-1], ids[1:]),
            ),
            Misconception(
                "This is in nats. Divide by ln(2), or use log2.",
                lambda logits, ids: right(logits, ids) * LN2,
            ),
            Misconception(
                "These are logits, without a softmax.",
                lambda logits, ids: taken(logits[:-1].double(), ids[1:]),
            ),
            Misconception(
                "This is the mean. Give a number for each token.",
                lambda logits, ids: right(logits, ids).mean(),
            ),
            Misconception(
                "This is the sum. Give a number for each token.",
                lambda logits, ids: right(logits, ids).sum(),
            ),
            Misconception(
                "This is the first surprise only. Does `return` stand inside the loop?",
                lambda logits, ids: right(logits, ids)[0],
            ),
            Misconception(
                "This is the first surprise only. Does `return` stand inside the loop?",
                lambda logits, ids: right(logits, ids)[:1],
            ),
            Misconception(one_less, lambda logits, ids: taken(logs(logits).roll(1, 0), ids)),
            Misconception(one_less, lambda logits, ids: [0.0, *right(logits, ids)]),
            Misconception(one_less, lambda logits, ids: [*right(logits, ids), 0.0]),
        ],
        tolerance=1e-3,
        what="`surprises`",
        unit="bits",
    )
    return "The mean of these, times ln(2), is the loss that training brings down."
