"""The sign test of challenge 7: how often luck alone gives a vote as clear as this one."""

from __future__ import annotations

import math

from nanolab.checks.core import Misconception, check, check_function

LEVEL = 0.05
"""a result that luck alone gives in fewer cases than this is taken to mean something"""


def _exactly(wins: int, losses: int) -> float:
    """Chance of just so many wins among as many fair tosses."""
    return math.comb(wins + losses, wins) / 2 ** (wins + losses)


def at_least(wins: int, losses: int) -> float:
    return sum(_exactly(k, wins + losses - k) for k in range(wins, wins + losses + 1))


def p_value_of(wins: int, losses: int) -> float:
    return min(1.0, 2 * at_least(max(wins, losses), min(wins, losses)))


# ---- what luck can do


@check
def sign_test(answer: object) -> str:
    """The learner's `p_value(wins, losses)`: two-sided, exact."""
    check_function(
        answer, p_value_of,
        [(9, 1), (3, 2), (2, 11), (6, 0), (7, 7), (0, 4), (15, 6), (1, 0)],
        [
            Misconception(
                "That asks for one direction only. Before the vote either model could have won: count both "
                "tails.",
                lambda wins, losses: at_least(max(wins, losses), min(wins, losses)),
            ),
            Misconception(
                "That is one tail, and always that of the wins: with more losses than wins it comes out "
                "near 1. "
                "Both models could have won: take the larger count, and count both tails.",
                at_least,
            ),
            Misconception(
                "Twice the tail of the wins goes above 1 where the losses are more: start from the larger "
                "count.",
                lambda wins, losses: 2 * at_least(wins, losses),
            ),
            Misconception(
                "Twice the tail of the wins, cut at 1, misses all cases with more losses: start from the "
                "larger count.",
                lambda wins, losses: min(1.0, 2 * at_least(wins, losses)),
            ),
            Misconception(
                "A probability is at most 1: for a draw both tails hold the middle, so `min(1.0, ...)`.",
                lambda wins, losses: 2 * at_least(max(wins, losses), min(wins, losses)),
            ),
            Misconception(
                "That is the chance of *exactly* this result. What counts is a result as clear as this or "
                "clearer.",
                _exactly,
            ),
            Misconception(
                "That is twice the chance of *exactly* this result: add up those that are clearer still.",
                lambda wins, losses: 2 * _exactly(wins, losses),
            ),
            Misconception(
                "`range(wins, n)` leaves out its end: the clean sweep is missing.",
                lambda wins, losses: min(1.0, 2 * (at_least(max(wins, losses), min(wins, losses))
                                                   - 0.5 ** (wins + losses))),
            ),
            Misconception(
                "The result itself is missing: as clear as this *or* clearer.",
                lambda wins, losses: min(1.0, 2 * (at_least(max(wins, losses), min(wins, losses))
                                                   - _exactly(wins, losses))),
            ),
            Misconception(
                "That is the share of wins, not how often luck gives it: 3 of 5 and 60 of 100 are the same "
                "share, "
                "and quite different evidence.",
                lambda wins, losses: wins / (wins + losses),
            ),
            Misconception(
                "That is the chance that it was *not* luck turned around: small means that luck hardly "
                "does it.",
                lambda wins, losses: 1 - p_value_of(wins, losses),
            ),
            Misconception("That is the normal approximation: too rough for so few votes.", _normal),
            Misconception(
                "That is in per cent: a probability goes from 0 to 1.",
                lambda wins, losses: 100 * p_value_of(wins, losses),
            ),
            *[Misconception("Rounded: keep all the digits, and round only what you print.",
                            lambda wins, losses, places=places: round(p_value_of(wins, losses), places))
              for places in (2, 3)],
        ],
        what="`p_value`",
    )  # fmt: skip
    return "3 of 5 happens to equal models every time, 9 of 10 once in fifty."


def _normal(wins: int, losses: int) -> float:
    return math.erfc(abs(wins - losses) / math.sqrt(wins + losses) / math.sqrt(2))


def needed(votes: int) -> int:
    """How many of so many votes, none of them a tie, it takes to be below `LEVEL`."""
    return next(wins for wins in range(votes, -1, -1) if p_value_of(wins - 1, votes - wins + 1) >= LEVEL)
