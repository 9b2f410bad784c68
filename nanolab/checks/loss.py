"""The checks of challenge 6, the loss detective: what a loss means, and which of five models is the best."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from nanolab.checks.core import (
    Misconception,
    Wrong,
    call,
    check,
    check_function,
    compare,
    diagnose_value,
    same,
    shown,
)
from nanolab.lessons.lineup import Suspect

SEED = 20_06

NATS = "This is in nats. One bit is ln(2) nats: divide by ln(2)."


@check
def mean_loss(answer: object) -> str:
    """`mean_loss(chances)`: the mean loss in nats, from the probability each true token was given."""
    rng = random.Random(SEED)
    cases = [([rng.uniform(0.01, 0.99) for _ in range(count)],) for count in (1, 3, 8, 20)]

    def per(chances: list[float], loss: Callable[[float], float]) -> float:
        return sum(map(loss, chances)) / len(chances)

    check_function(
        answer,
        lambda chances: per(chances, lambda p: -math.log(p)),
        [*cases, ([1.0, 0.5],)],
        [
            Misconception(
                "This is the logarithm of the mean probability. The loss is the mean of the logarithms: "
                "one bad surprise must hurt more than a mean of probabilities shows.",
                lambda chances: -math.log(per(chances, lambda p: p)),
            ),
            Misconception(
                "This is in bits. Losses are in nats: use the natural logarithm, `math.log`.",
                lambda chances: per(chances, lambda p: -math.log2(p)),
            ),
            Misconception(
                "The logarithm to the base 10 is not used here: losses are in nats, with `math.log`.",
                lambda chances: per(chances, lambda p: -math.log10(p)),
            ),
            Misconception(
                "The sign: the logarithm of a probability is negative, and surprise is minus that.",
                lambda chances: per(chances, math.log),
            ),
            Misconception(
                "Only the first token was counted: does `return` stand inside the loop?",
                lambda chances: -math.log(chances[0]) / len(chances),
            ),
            Misconception(
                "This is the sum over all tokens. Divide by how many there are.",
                lambda chances: -sum(map(math.log, chances)),
            ),
            Misconception(
                "This is how far the probabilities are from 1. Surprise is the negative logarithm.",
                lambda chances: per(chances, lambda p: 1 - p),
            ),
            Misconception(
                "This is the mean probability. Surprise is the negative logarithm of each.",
                lambda chances: per(chances, lambda p: p),
            ),
        ],
        what="`mean_loss`",
        unit="nats",
    )
    return "This is all that cross-entropy is: the mean surprise, and a coin toss costs ln(2) = 0.693 nats."


@check
def perplexity(answer: object) -> str:
    """`perplexity(loss)`: how many equally likely tokens a loss in nats amounts to."""
    rng = random.Random(SEED + 1)
    cases = [(rng.uniform(low, low + 1),) for low in (0.2, 1.4, 3.1, 5.8, 9.3)]
    check_function(
        answer,
        math.exp,
        [*cases, (0.0,)],
        [
            Misconception(
                "This is 2 to the power of the loss, as if it were in bits. It is in nats: their inverse "
                "is exp.",
                lambda loss: 2**loss,
            ),
            Misconception(
                "This is 10 to the power of the loss. Nats belong to the natural logarithm.",
                lambda loss: 10**loss,
            ),
            Misconception(
                "This is a probability, one over the number of tokens: exp(-loss). Without the minus it "
                "is the number of tokens.",
                lambda loss: math.exp(-loss),
            ),
            Misconception(
                "This is the loss in bits. How many tokens is it as if there were?",
                lambda loss: loss / math.log(2),
            ),
            Misconception(
                "This takes the logarithm once more. The loss is a logarithm already: undo it.", math.log
            ),
        ],
        what="`perplexity`",
        unit="tokens",
    )
    return "A loss of 5.9 is like 365 equally likely tokens; one of 0 is like a single one."


@check
def uniform_loss(answer: object, vocab_size: int = 65_536) -> str:
    """`uniform_loss(vocab_size)`: the loss of a model that knows nothing; or its value for one size."""
    wrong: dict[str, Callable[[int], float]] = {
        "This is in bits. Losses are in nats: `math.log`, with no 2.": math.log2,
        "The logarithm to the base 10 is not used here: `math.log` is the natural one.": math.log10,
        "This is the probability of each token. The loss is minus its logarithm.": lambda size: 1 / size,
        "This is the perplexity, the number of tokens. The loss is its logarithm.": float,
        "The sign: a loss is minus the logarithm of 1/V, and that is plus the logarithm of V.": (
            lambda size: -math.log(size)
        ),
    }
    if callable(answer):
        rng = random.Random(SEED + 2)
        cases = [(rng.randrange(low, 3 * low),) for low in (2, 40, 300, 9_000, 70_000)]
        traps = [Misconception(message, function) for message, function in wrong.items()]
        check_function(answer, math.log, cases, traps, what="`uniform_loss`", unit="nats")
    else:
        right = math.log(vocab_size)
        if same(answer, right, 1e-3) and not same(answer, right, 1e-9):
            raise Wrong(
                "that is nearly it, but rounded.", got=shown(answer), expected=f"{right:.12g}",
                cause="Was it typed in by hand? Let Python compute it.",
            )  # fmt: skip
        values = {message: function(vocab_size) for message, function in wrong.items()}
        diagnose_value(answer, right, values, 1e-9, "the loss of a model that knows nothing", "nats")
    return (
        "Every training should start there: ln(65,536) is 11.1 for nanochat, ln(2,048) is 7.6 for your model."
    )


@check
def bits(answer: object) -> str:
    """`bits(loss)`: a loss in nats, in bits."""
    rng = random.Random(SEED + 3)
    cases = [(rng.uniform(low, low + 1),) for low in (0.1, 1.2, 2.6, 5.3, 10.4)]
    check_function(
        answer,
        lambda loss: loss / math.log(2),
        cases,
        [
            Misconception(NATS, lambda loss: loss),
            Misconception(
                "This multiplies by ln(2). A bit is smaller than a nat, so there must be more of them: "
                "divide.",
                lambda loss: loss * math.log(2),
            ),
            Misconception(
                "This is the logarithm of the loss. The loss is a logarithm already; only its unit changes.",
                math.log2,
            ),
            Misconception(
                "This counts in tens: a bit is a choice of two, so divide by ln(2), not by ln(10).",
                lambda loss: loss / math.log(10),
            ),
            Misconception("This is the perplexity. The bits are its logarithm to the base 2.", math.exp),
            Misconception("A byte has 8 bits, but a nat has 1/ln(2) = 1.44.", lambda loss: 8 * loss),
        ],
        what="`bits`",
        unit="bits",
    )
    return "Bits count questions with yes or no: 3 bits are a choice of 8."


@check
def bits_per_byte(answer: object) -> str:
    """`bits_per_byte(losses, pieces)`: from each token's loss in nats, and each token's text."""
    words = ["the", " capital", " of", " café", "s", " €", " 😀", " naïve", "a", " lighthouse", ".", " über"]
    rng = random.Random(SEED + 4)
    cases = []
    for count in (4, 6, 9, 12):
        pieces = [" lighthouse", " €", *(rng.choice(words) for _ in range(count - 2))]
        cases.append(([rng.uniform(0.1, 7.0) for _ in pieces], pieces))
    cases.append(([2.5, 0.5], [" €", "a"]))

    def sizes(pieces: Sequence[str]) -> list[int]:
        return [len(piece.encode("utf-8")) for piece in pieces]

    def right(losses: list[float], pieces: list[str]) -> float:
        return sum(losses) / sum(sizes(pieces)) / math.log(2)

    def mean_of_ratios(losses: list[float], pieces: list[str]) -> float:
        ratios = [loss / size for loss, size in zip(losses, sizes(pieces), strict=True)]
        return sum(ratios) / len(ratios)

    check_function(
        answer,
        right,
        cases,
        [
            Misconception(
                "This is nats per byte. Divide by ln(2) for bits.",
                lambda losses, pieces: right(losses, pieces) * math.log(2),
            ),
            Misconception(
                "This divides token by token and takes the mean: a mean of ratios, in which a token of "
                "one byte weighs as much as one of ten. Divide all nats by all bytes: a ratio of sums.",
                lambda losses, pieces: mean_of_ratios(losses, pieces) / math.log(2),
            ),
            Misconception(
                "This is a mean of ratios, and in nats. Divide all nats by all bytes, and by ln(2).",
                mean_of_ratios,
            ),
            Misconception(
                "This counts characters. Some have more than one byte: `piece.encode()` gives the bytes.",
                lambda losses, pieces: sum(losses) / sum(map(len, pieces)) / math.log(2),
            ),
            Misconception(
                "This is bits per token. Divide by the bytes of the text, not by the number of tokens.",
                lambda losses, pieces: sum(losses) / len(losses) / math.log(2),
            ),
            Misconception(
                "Loss times bytes over tokens: upside down. It is loss times tokens over bytes.",
                lambda losses, pieces: sum(losses) / len(losses) ** 2 * sum(sizes(pieces)) / math.log(2),
            ),
            Misconception(
                "This is bytes per bit: upside down.", lambda losses, pieces: 1 / right(losses, pieces)
            ),
            Misconception(
                "This divides the mean loss by all the bytes. Add the losses up.",
                lambda losses, pieces: right(losses, pieces) / len(losses),
            ),
            Misconception(
                "This divides token by token. Divide once: all the bits by all the bytes.",
                lambda losses, pieces: mean_of_ratios(losses, pieces) * len(losses) / math.log(2),
            ),
            Misconception(
                "This counts characters, and in nats. Count the bytes, and divide by ln(2).",
                lambda losses, pieces: sum(losses) / sum(map(len, pieces)),
            ),
            Misconception(
                "This multiplies by ln(2) where it should divide.",
                lambda losses, pieces: sum(losses) / sum(sizes(pieces)) * math.log(2),
            ),
            Misconception(
                "This is bits for the whole text. Divide by its bytes.",
                lambda losses, _: sum(losses) / math.log(2),
            ),
        ],
        what="`bits_per_byte`",
        unit="bits per byte",
    )
    return (
        "Bytes are the same for every model, however its tokenizer cuts the text. 8 would be no compression."
    )


@check
def lowest_loss(answer: object) -> str:
    """`lowest_loss(chances)`: the lowest mean loss that any model can reach where these are the truth."""
    rng = random.Random(SEED + 5)
    cases: list[tuple[list[float]]] = []
    for count in (2, 3, 5, 9):
        weights = [rng.uniform(0.1, 1.0) for _ in range(count)]
        cases.append(([weight / sum(weights) for weight in weights],))
    cases.append(([1.0],))

    def entropy(chances: list[float]) -> float:
        return -sum(p * math.log(p) for p in chances)

    check_function(
        answer,
        entropy,
        cases,
        [
            Misconception(
                "0 would need a model that knows the next token for certain. Here even the truth is not "
                "certain: who knows these probabilities exactly is still surprised, and by how much, on "
                "average?",
                lambda chances: 0.0,
            ),
            Misconception(
                "This is in bits. Losses are in nats.", lambda chances: entropy(chances) / math.log(2)
            ),
            Misconception(
                "This takes all as equally likely. Some come more often than others, and that can be used.",
                lambda chances: math.log(len(chances)),
            ),
            Misconception(
                "This is the surprise when the likeliest comes. It does not always come: take the mean "
                "over all, each as often as it comes.",
                lambda chances: -math.log(max(chances)),
            ),
            Misconception(
                "This counts every outcome alike. Each surprise must count as often as it happens: weigh "
                "it with its probability.",
                lambda chances: -sum(map(math.log, chances)) / len(chances),
            ),
            Misconception("The sign: surprise is minus the logarithm.", lambda chances: -entropy(chances)),
            Misconception(
                "The weights make 1 together, so nothing is left to divide by.",
                lambda chances: entropy(chances) / len(chances),
            ),
            Misconception(
                "This adds up every surprise in full. Each must count as often as it happens: weigh it with "
                "its probability.",
                lambda chances: -sum(map(math.log, chances)),
            ),
        ],
        what="`lowest_loss`",
        unit="nats",
    )
    return (
        "It is called entropy. Loss 0 would mean to be certain and right every time: language has more "
        "than one way to go on, so a model gets there only on text that it has learnt by heart."
    )


@check
def best_first(answer: object, suspects: Sequence[Suspect]) -> str:
    """`best_first(suspects)`: their names, the best model first."""
    rng = random.Random(SEED + 6)
    wrong: dict[str, Callable[[Suspect], float]] = {
        "This goes by the loss per token alone. Who cuts the text into tiny pieces has an easy guess "
        "each time, and more guesses to make: compare what the whole text, or a byte, "
        "costs.": lambda one: one.loss,
        "This is the wrong way round: the worst comes first.": lambda one: -one.loss * one.tokens,
        "This goes by the number of tokens alone. A tokenizer is not a model.": lambda one: one.tokens,
        "Loss times bytes over tokens: upside down. It is loss times tokens over bytes.": lambda one: (
            one.loss * one.bytes / one.tokens
        ),
        "This is the highest loss first.": lambda one: -one.loss,
    }
    for line in [list(suspects), *(_strangers(rng) for _ in range(4))]:
        right = _names(line, lambda one: one.loss * one.tokens / one.bytes)
        got = call(answer, list(line))
        if isinstance(got, Iterable) and not isinstance(got, (str, Mapping)):
            got = [getattr(one, "name", one) for one in got]
        causes = (message for message, key in wrong.items() if same(got, _names(line, key)))
        compare(got, right, "the ranking", cause=next(causes, _typed_in(got, line, suspects)))
    return f"{', '.join(_names(suspects, lambda one: one.loss * one.tokens))}: as bits per byte have it."


def _names(line: Sequence[Suspect], key: Callable[[Suspect], float]) -> list[str]:
    return [one.name for one in sorted(line, key=key)]


def _typed_in(got: object, line: Sequence[Suspect], suspects: Sequence[Suspect]) -> str:
    """The cause where the right answer for the notebook's suspects is given for others as well."""
    if list(line) == list(suspects) or not isinstance(got, (list, tuple)):
        return ""
    known = _names(suspects, lambda one: one.loss * one.tokens)
    return "Was the ranking typed in by hand? These are other suspects." if list(got) == known else ""


def _strangers(rng: random.Random) -> list[Suspect]:
    """Five others, of whom the loss, the tokens, and bits per byte each tell another story."""
    while True:
        size = rng.randrange(2_000, 90_000)
        line = []
        for name in "ABCDE":
            per_token = rng.uniform(1.0, 6.0)
            cost = rng.uniform(0.4, 4.0)  # nats per byte
            line.append(Suspect(name, cost * per_token, max(1, round(size / per_token)), size))
        orders = {
            tuple(_names(line, key))
            for key in (
                lambda one: one.loss, lambda one: one.tokens, lambda one: one.loss * one.tokens,
                lambda one: one.loss * one.bytes / one.tokens,
            )
        }  # fmt: skip
        if len(orders) == 4:
            return line
