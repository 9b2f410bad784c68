"""Challenge 6: right answers pass in any form, and each misconception is told by its name."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import torch

from nanolab.checks import NotAttempted, Wrong, loss
from nanolab.course import Course
from nanolab.lessons.lineup import Suspect, counted_loss
from nanolab.lessons.lineup import line_up as line_up_of

LN2 = math.log(2)

SUSPECTS = [
    Suspect("A", 1.2, 1000, 1000), Suspect("B", 1.9, 300, 1000), Suspect("C", 7.6, 300, 1000),
    Suspect("D", 2.4, 1000, 1000), Suspect("E", 5.5, 310, 1000),
]  # fmt: skip


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def mean_of_logs(chances):
    return mean(-math.log(p) for p in chances)


def size(pieces):
    return sum(len(piece.encode()) for piece in pieces)


def by(key):
    return lambda suspects: [one.name for one in sorted(suspects, key=key)]


def line_up(answer):
    loss.best_first(answer, SUSPECTS)


RIGHT = [
    (loss.mean_loss, lambda chances: mean(-math.log(p) for p in chances)),
    (loss.mean_loss, lambda chances: -torch.tensor(chances).log().mean()),
    (loss.perplexity, math.exp),
    (loss.perplexity, lambda loss: torch.tensor(loss).exp()),
    (loss.perplexity, lambda loss: 2 ** (loss / LN2)),
    (loss.uniform_loss, math.log),
    (loss.uniform_loss, lambda size: -math.log(1 / size)),
    (loss.bits, lambda loss: loss / LN2),
    (loss.bits, lambda loss: loss * math.log2(math.e)),
    (loss.bits_per_byte, lambda losses, pieces: sum(losses) / LN2 / size(pieces)),
    (loss.bits_per_byte, lambda losses, pieces: mean(losses) * len(pieces) / size(pieces) / LN2),
    (loss.lowest_loss, lambda chances: sum(-p * math.log(p) for p in chances)),
    (line_up, by(lambda one: one.loss * one.tokens / one.bytes)),
    (line_up, by(lambda one: one.loss * one.tokens)),
    (line_up, lambda suspects: tuple(sorted(suspects, key=lambda one: one.loss * one.tokens))),
    (line_up, lambda suspects: (one.name for one in sorted(suspects, key=lambda one: one.loss * one.tokens))),
]  # fmt: skip

WRONG = [
    (loss.mean_loss, lambda chances: -math.log(mean(chances)), "logarithm of the mean"),
    (loss.mean_loss, lambda chances: mean(-math.log2(p) for p in chances), "in bits"),
    (loss.mean_loss, lambda chances: mean(math.log(p) for p in chances), "sign"),
    (loss.mean_loss, lambda chances: sum(-math.log(p) for p in chances), "sum over all tokens"),
    (loss.mean_loss, lambda chances: mean(1 - p for p in chances), "how far the probabilities"),
    (loss.mean_loss, lambda chances: 0.693, "typed in by hand"),
    (loss.mean_loss, lambda chances: -math.log(chances[0]) / len(chances), "inside the loop"),
    (loss.mean_loss, lambda chances: None if len(chances) > 3 else mean_of_logs(chances), "returned nothing"),
    (loss.perplexity, lambda loss: math.exp, "should be a number"),
    (loss.perplexity, lambda loss: 2**loss, "as if it were in bits"),
    (loss.perplexity, lambda loss: 10**loss, "10 to the power"),
    (loss.perplexity, lambda loss: math.exp(-loss), "probability"),
    (loss.perplexity, lambda loss: loss / LN2, "loss in bits"),
    (loss.perplexity, lambda loss: 365.0, "typed in by hand"),
    (loss.uniform_loss, math.log2, "in bits"),
    (loss.uniform_loss, lambda size: 1 / size, "probability"),
    (loss.uniform_loss, lambda size: size, "perplexity"),
    (loss.uniform_loss, lambda size: math.log(1 / size), "sign"),
    (loss.uniform_loss, lambda size: 11.09, "typed in by hand"),
    (loss.uniform_loss, 11.09, "typed in by hand"),
    (loss.uniform_loss, 16.0, "in bits"),
    (loss.bits, lambda loss: loss, "in nats"),
    (loss.bits, lambda loss: loss * LN2, "multiplies"),
    (loss.bits, math.log2, "logarithm already"),
    (loss.bits, lambda loss: loss / math.log(10), "counts in tens"),
    (loss.bits_per_byte, lambda losses, pieces: sum(losses) / size(pieces), "nats per byte"),
    (
        loss.bits_per_byte,
        lambda losses, pieces: mean(a / len(b.encode()) for a, b in zip(losses, pieces, strict=True)) / LN2,
        "mean of ratios",
    ),
    (
        loss.bits_per_byte,
        lambda losses, pieces: mean(a / len(b.encode()) for a, b in zip(losses, pieces, strict=True)),
        "mean of ratios, and in nats",
    ),
    (loss.bits_per_byte, lambda losses, pieces: sum(losses) / LN2 / len("".join(pieces)), "counts characters"),
    (loss.bits_per_byte, lambda losses, pieces: mean(losses) / LN2, "bits per token"),
    (loss.bits_per_byte, lambda losses, pieces: mean(losses) * size(pieces) / len(pieces) / LN2, "upside down"),
    (loss.bits_per_byte, lambda losses, pieces: size(pieces) / sum(losses) * LN2, "bytes per bit"),
    (loss.bits_per_byte, lambda losses, pieces: mean(losses) / LN2 / size(pieces), "the mean loss by all"),
    (
        loss.bits_per_byte,
        lambda losses, pieces: sum(a / len(b.encode()) for a, b in zip(losses, pieces, strict=True)) / LN2,
        "token by token",
    ),
    (loss.bits_per_byte, lambda losses, pieces: sum(losses) / len("".join(pieces)), "characters, and in nats"),
    (loss.lowest_loss, lambda chances: mean(-p * math.log(p) for p in chances), "nothing is left to divide"),
    (loss.lowest_loss, lambda chances: sum(-math.log(p) for p in chances), "in full"),
    (loss.lowest_loss, lambda chances: 0.0, "0 would need"),
    (loss.lowest_loss, lambda chances: sum(-p * math.log2(p) for p in chances), "in bits"),
    (loss.lowest_loss, lambda chances: math.log(len(chances)), "equally likely"),
    (loss.lowest_loss, lambda chances: -math.log(max(chances)), "likeliest"),
    (loss.lowest_loss, lambda chances: mean(-math.log(p) for p in chances), "weigh it"),
    (line_up, by(lambda one: one.loss), "loss per token alone"),
    (line_up, by(lambda one: -one.loss * one.tokens), "wrong way round"),
    (line_up, by(lambda one: one.tokens), "number of tokens alone"),
    (line_up, by(lambda one: one.loss * one.bytes / one.tokens), "upside down"),
    (line_up, lambda suspects: ["B", "A", "E", "C", "D"], "typed in by hand"),
    (line_up, lambda suspects: "B", "should be a list"),
    (line_up, lambda suspects: {one.name: one.loss for one in suspects}, "should be a list"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_are_accepted_in_any_form(check, answer):
    check(answer)


@pytest.mark.parametrize(("check", "answer", "message"), WRONG)
def test_a_misconception_is_told(check, answer, message):
    with pytest.raises(Wrong, match=f"(?i){message}"):
        check(answer)


def test_each_check_has_at_least_three_wrong_answers():
    for check in {check for check, _ in RIGHT}:
        assert sum(other is check for other, _, _ in WRONG) >= 3, check.__name__


@pytest.mark.parametrize("check", list(dict.fromkeys(check for check, _ in RIGHT)))
def test_a_blank_is_not_attempted(check):
    def blank(*args):
        """To be written."""
        ...

    for answer in (..., blank):
        with pytest.raises(NotAttempted):
            check(answer)


def test_code_as_in_a_notebook_without_functions_is_accepted():
    # A plain script computes the baseline as a value, and the rest in a loop.
    vocab_size = 65536
    random_loss = math.log(vocab_size)
    loss.uniform_loss(random_loss, vocab_size)

    def effective_tokens(value):
        narrowed = math.exp(value)
        print(f"loss {value:.1f}: about {narrowed:.0f} tokens, {100 * narrowed / vocab_size:.2f}% of all")
        return narrowed

    loss.perplexity(effective_tokens)


def test_counting_learns_what_is_there_to_learn():
    rng = random.Random(1)
    noise = [[rng.randrange(4) for _ in range(400)] for _ in range(4)]
    assert counted_loss(noise, noise, 0, 4) == pytest.approx(math.log(4), abs=0.02)
    cycle = [[0, 1, 2, 3] * 100]
    assert counted_loss(cycle, cycle, 1, 4) < 0.05
    # What was never seen is improbable, and not impossible.
    assert counted_loss(cycle, [[9, 9]], 1, 256) > math.log(256)


def test_the_line_up_misleads_whoever_goes_by_the_loss_alone():
    line = line_up_of(Course())
    by_loss = sorted(line, key=lambda one: one.suspect.loss)
    by_bytes = sorted(line, key=lambda one: one.suspect.loss * one.suspect.tokens / one.suspect.bytes)
    assert by_bytes[0].identity.startswith("your base model") and by_loss[0] is not by_bytes[0]
    assert not by_bytes[-1].identity.startswith("all tokens equally likely")
    # No two are so close that chance decides.
    costs = [one.suspect.loss * one.suspect.tokens / one.suspect.bytes / LN2 for one in by_bytes]
    assert min(b - a for a, b in pairwise(costs)) > 0.1
