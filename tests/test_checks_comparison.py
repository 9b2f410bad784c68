"""The checks of challenge 7: right answers pass, and each wrong one hears of its own misconception."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
from checking import refused

from nanolab.checks import NotAttempted, comparison
from nanolab.lessons import comparing
from nanolab.lessons.comparing import PROMPTS, Ballot, quick_judge

# ---- task 1


def tail(wins, losses):
    n = wins + losses
    return sum(math.comb(n, k) for k in range(wins, n + 1)) / 2**n


def p_value(wins, losses):
    return min(1.0, 2 * tail(max(wins, losses), min(wins, losses)))


def p_by_both_ends(wins, losses):
    n, off = wins + losses, abs(wins - losses)
    return sum(math.comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= off) / 2**n


def exactly(wins, losses):
    return math.comb(wins + losses, wins) / 2 ** (wins + losses)


def without_end(wins, losses):
    return min(1.0, p_value(wins, losses) - 2 / 2 ** (wins + losses))


WRONG_TESTS = {
    "one-sided": (lambda w, b: tail(max(w, b), min(w, b)), "one direction only"),
    "wins only": (tail, "always that of the wins"),
    "above 1": (lambda w, b: 2 * tail(w, b), "goes above 1"),
    "cut": (lambda w, b: min(1.0, 2 * tail(w, b)), "start from the larger count"),
    "draw": (lambda w, b: 2 * tail(max(w, b), min(w, b)), "at most 1"),
    "exactly": (exactly, "*exactly* this result"),
    "twice exactly": (lambda w, b: 2 * exactly(w, b), "clearer still"),
    "no sweep": (lambda w, b: min(1.0, 2 * (tail(max(w, b), min(w, b)) - 0.5 ** (w + b))), "leaves out its end"),
    "share": (lambda w, b: w / (w + b), "3 of 5 and 60 of 100"),
    "normal": (lambda w, b: math.erfc(abs(w - b) / math.sqrt(2 * (w + b))), "normal approximation"),
    "confidence": (lambda w, b: 1 - p_value(w, b), "turned around"),
    "per cent": (lambda w, b: 100 * p_value(w, b), "in per cent"),
    "rounded": (lambda w, b: round(p_value(w, b), 3), "keep all the digits"),
    "comma": (lambda w, b: (p_value(w, b),), "makes a tuple"),
    "by hand": (lambda w, b: 0.021484375, "typed in by hand"),
    "raises": (lambda w, b: w / 0, "raised ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_TESTS)
def test_a_wrong_sign_test_hears_of_its_misconception(name):
    wrong, says = WRONG_TESTS[name]
    assert says in refused(comparison.sign_test, wrong)


def test_right_sign_tests_pass():
    comparison.sign_test(p_value)
    comparison.sign_test(p_by_both_ends)
    with pytest.raises(NotAttempted):
        comparison.sign_test(lambda wins, losses: ...)


# ---- task 2

OWN = ["What do cats say?", "Sing a song.", "How many legs has a spider?", "What is a moon?"]


def test_enough_different_prompts_pass():
    comparison.prompts([*PROMPTS, *OWN])
    comparison.prompts(tuple(f"Question {i}?" for i in range(14)))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (list(PROMPTS), "8 prompts are too few"),
        (PROMPTS[:5], "even 5 of 5 has p = 0.062"),
        ([*PROMPTS, *OWN[:2], OWN[0].upper(), OWN[1]], "no new evidence"),
        (PROMPTS[:6] * 2, "only 6 different ones"),
        ([*PROMPTS, OWN], "Join lists with +"),
        ([*PROMPTS, *OWN[:3], " "], "prompt 12 is empty"),
        (" ".join(OWN), "one text; a list"),
        (12, "should be a list"),
    ],
)
def test_prompts_that_show_nothing_are_refused(wrong, says):
    assert says.lower() in refused(comparison.prompts, wrong).lower()


def test_some_prompts_must_be_ones_own(monkeypatch):
    monkeypatch.setattr(comparison, "PROMPTS", tuple(f"Question {i}?" for i in range(14)))
    assert "your own" in refused(comparison.prompts, [f"question {i}" for i in range(14)])
    with pytest.raises(NotAttempted):
        comparison.prompts(...)


# ---- task 3


def hide(mine, theirs, rng):
    coins = [rng.random() < 0.5 for _ in mine]
    return [(a, b, True) if coin else (b, a, False) for a, b, coin in zip(mine, theirs, coins, strict=True)]


def hide_by_shuffling(mine, theirs, rng):
    pairs = []
    for a, b in zip(mine, theirs, strict=True):
        both = [(a, 1), (b, 0)]
        rng.shuffle(both)
        pairs.append([both[0][0], both[1][0], both[0][1]])
    return pairs


def by(side):
    """A way to hide in which `side(index, mine, theirs, rng)` says whether mine goes left."""

    def hiding(mine, theirs, rng):
        sides = [bool(side(i, a, b, rng)) for i, (a, b) in enumerate(zip(mine, theirs, strict=True))]
        return [(a, b, s) if s else (b, a, s) for a, b, s in zip(mine, theirs, sides, strict=True)]

    return hiding


def one_coin(mine, theirs, rng):
    coin = rng.random() < 0.5
    return [(a, b, coin) if coin else (b, a, coin) for a, b in zip(mine, theirs, strict=True)]


def own_seed(mine, theirs, rng):
    return hide(mine, theirs, random.Random(0))


def mixed_up(mine, theirs, rng):
    return hide(mine, theirs[1:] + theirs[:1], rng)


def in_place(mine, theirs, rng):
    rng.shuffle(mine)
    return hide(mine, theirs, rng)


WRONG_CURTAINS = {
    "always left": (by(lambda i, a, b, r: True), "That is not blind"),
    "always right": (by(lambda i, a, b, r: False), "That is not blind"),
    "one coin": (one_coin, "One coin for all prompts"),
    "own seed": (own_seed, "A seed fixed in the function"),
    "other coins": (by(lambda i, a, b, r: random.random() < 0.5), "nobody could check the ballot"),
    "alternating": (by(lambda i, a, b, r: i % 2), "left, right, left, right"),
    "by length": (by(lambda i, a, b, r: len(a) < len(b)), "about half of them"),
    "loaded": (by(lambda i, a, b, r: r.random() < 0.9), "is a fair coin"),
    "flag exchanged": (
        lambda m, t, r: [(a, b, not c) for a, b, c in hide(m, t, r)],
        "whether *mine* is left",
    ),
    "flag true": (lambda m, t, r: [(a, b, True) for a, b, c in hide(m, t, r)], "the coin of this very pair"),
    "no flag": (lambda m, t, r: [(a, b) for a, b, c in hide(m, t, r)], "(left, right, mine_is_left)"),
    "words": (lambda m, t, r: [(a, b, "mine") for a, b, c in hide(m, t, r)], "True or False"),
    "mixed up": (mixed_up, "must answer the same prompt"),
    "in place": (in_place, "work in place"),
    "one pair": (lambda m, t, r: hide(m, t, r)[:1], "an entry for each prompt"),
    "raises": (lambda m, t, r: r.coin(), "raised AttributeError"),
}


@pytest.mark.parametrize("name", WRONG_CURTAINS)
def test_a_curtain_with_a_hole_is_found(name):
    wrong, says = WRONG_CURTAINS[name]
    assert says.lower() in refused(comparison.hide, wrong).lower()


def test_right_ways_to_hide_pass():
    comparison.hide(hide)
    comparison.hide(hide_by_shuffling)
    comparison.hide(by(lambda i, a, b, r: r.randrange(2)))
    with pytest.raises(NotAttempted):
        comparison.hide(lambda mine, theirs, rng: ...)


# ---- task 4

SIDES = [True, False, True, True, False, False, True, False, True, True, False, True]


def ballot(sides=SIDES):
    pairs = [(f"{i} a", f"{i} b", side) for i, side in enumerate(sides)]
    return Ballot([f"Prompt {i}?" for i in range(len(sides))], pairs)


def cast(votes, sides=SIDES):
    made = ballot(sides)
    made.cast(votes)
    return made


def for_mine(wins, losses=0):
    """Votes that prefer mine so often, then theirs so often, then neither."""
    better = ["mine"] * wins + ["theirs"] * losses + [""] * (len(SIDES) - wins - losses)
    return "".join(
        "=" if not who else "LR"[(who == "mine") != left] for who, left in zip(better, SIDES, strict=True)
    )


VOTES = for_mine(7, 4)


def test_votes_before_the_reveal_count_in_any_spelling():
    for votes in (VOTES, VOTES.lower(), " ".join(VOTES), list(VOTES)):
        comparison.votes(cast(VOTES), votes)
        comparison.votes(cast(votes), votes)
    revealed = cast(VOTES)
    revealed.reveal()
    comparison.votes(revealed, VOTES)


def test_votes_after_the_reveal_are_refused():
    late = ballot()
    late.reveal()
    late.cast(VOTES)
    assert "after the reveal" in refused(comparison.votes, late, VOTES)
    changed = cast(VOTES)
    changed.reveal()
    changed.cast(for_mine(12))
    assert "changed after the reveal" in refused(comparison.votes, changed, for_mine(12))
    assert "before the reveal" in refused(comparison.verdict, late, 0.5, "mine")


@pytest.mark.parametrize(
    ("made", "votes", "says"),
    [
        (ballot(), VOTES, "were not cast"),
        (cast(VOTES), VOTES[:5], "one vote for each prompt"),
        (cast(VOTES), VOTES[::-1], "other votes than those"),
        (cast("=" * 12), "=" * 12, "no vote prefers anything"),
        (cast("L" * 12), "L" * 12, "typed in without reading"),
        (cast("R" * 11 + "="), "R" * 11 + "=", "every vote is for the right"),
        (cast(VOTES), "MMTMMTMTMMMM", "the names are not known yet"),
        (cast(VOTES), 12, "should be a text"),
    ],
)
def test_votes_that_tell_nothing_are_refused(made, votes, says):
    assert says in refused(comparison.votes, made, votes).replace("Every", "every").replace(
        "No vote", "no vote"
    )


def test_votes_that_are_blank_were_not_attempted():
    with pytest.raises(NotAttempted):
        comparison.votes(ballot(), ...)
    with pytest.raises(NotAttempted):
        comparison.votes(..., VOTES)


# ---- task 5


def revealed(wins, losses):
    made = cast(for_mine(wins, losses))
    made.reveal()
    return made


def test_the_reveal_tells_who_was_preferred():
    rows = revealed(7, 4).reveal()
    assert [row["preferred"] for row in rows] == ["mine"] * 7 + ["theirs"] * 4 + ["neither"]
    assert [row["mine was"] for row in rows] == ["left" if side else "right" for side in SIDES]


def test_right_verdicts_pass():
    comparison.verdict(revealed(7, 4), p_value(7, 4), "not shown")
    comparison.verdict(revealed(11, 1), p_value(11, 1), "mine")
    comparison.verdict(revealed(1, 10), p_value(1, 10), " Theirs ")


@pytest.mark.parametrize(
    ("counts", "p", "conclusion", "says"),
    [
        ((3, 2), p_value(3, 2), "mine", "A lead is no proof"),
        ((3, 2), p_value(3, 2), "equal", "can't be shown by so few votes"),
        ((2, 3), p_value(2, 3), "theirs", "3 of 5 for theirs"),
        ((11, 1), p_value(11, 1), "not shown", "this vote shows a difference"),
        ((11, 1), p_value(11, 1), "theirs", "the counts say in whose favour"),
        ((9, 1), p_value(9, 3), "mine", "Ties counted as losses"),
        ((7, 1), p_value(11, 1), "mine", "Ties counted as wins"),
        ((9, 1), tail(9, 1), "mine", "One direction only"),
        ((9, 1), 0.9, "mine", "the share of wins"),
        ((11, 1), p_value(6, 6), "not shown", "counts votes for left and right"),
        ((11, 1), 0.01, "mine", "the p-value of 11 wins and 1 losses is not right"),
        ((11, 1), 100 * p_value(11, 1), "mine", "in per cent"),
        ((11, 1), p_value(11, 1), True, "should be one of"),
    ],
)
def test_a_wrong_verdict_hears_of_its_misconception(counts, p, conclusion, says):
    assert says.lower() in refused(comparison.verdict, revealed(*counts), p, conclusion).lower()


# ---- tasks 6 and 7


def rubric(marked):
    return 2 if marked.form and marked.content else 1 if marked.form else 0


WRONG_RUBRICS = {
    "content": (lambda m: 2 if m.content else int(m.form), "right words alone are not enough"),
    "form": (lambda m: 2 if m.form else 0, "a fluent wrong answer"),
    "exchanged": (lambda m: {2: 1, 1: 2, 0: 0}[rubric(m)], "2 and 1 are exchanged"),
    "ended": (lambda m: 2 if m.form and m.content else int(m.ended), "To end properly"),
    "either": (lambda m: 2 if m.form and m.content else int(m.form or m.content), "A right word in a reply"),
    "no form": (lambda m: 2 if m.content else 1, "ask for `form` first"),
    "sum": (lambda m: m.ended + m.form + m.content, "adds up all three marks"),
    "sum of two": (lambda m: m.form + m.content, "A right word in a reply"),
    "strict": (lambda m: 2 * (m.form and m.content), "near miss from noise"),
    "constant": (lambda m: 2, "typed in by hand"),
    "text": (lambda m: "follows", "should be a number"),
    "raises": (lambda m: m.points, "raised AttributeError"),
}


@pytest.mark.parametrize("name", WRONG_RUBRICS)
def test_a_wrong_rubric_hears_of_its_misconception(name):
    wrong, says = WRONG_RUBRICS[name]
    assert says in refused(comparison.rubric, wrong)


def test_right_rubrics_pass():
    comparison.rubric(rubric)
    comparison.rubric(lambda m: int(m.form) * (1 + int(m.content)))
    with pytest.raises(NotAttempted):
        comparison.rubric(lambda marked: ...)


def marked(*points):
    kinds = {2: (True, True, True), 1: (True, True, False), 0: (True, False, True)}
    return [
        SimpleNamespace(**dict(zip(("ended", "form", "content"), kinds[one], strict=True))) for one in points
    ]


MINE, THEIRS = marked(2, 2, 2, 1, 1, 0, 2, 1, 2, 1), marked(0, 1, 1, 0, 0, 0, 1, 1, 1, 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (-0.9, "Theirs minus mine"),
        (9, "divide by the number of questions"),
        (0.45, "divided by 2 once more"),
        (0.1, "use the points of `rubric`"),
        (8, "won minus how many it lost"),
        (1.4, "mean of mine alone"),
        (0.8, "is not right"),
        ("mine", "should be a number"),
    ],
)
def test_a_wrong_difference_hears_of_its_misconception(wrong, says):
    assert says in refused(comparison.difference, MINE, THEIRS, wrong)


def test_the_right_difference_passes():
    comparison.difference(MINE, THEIRS, 0.9)
    assert "different exams" in refused(comparison.difference, MINE, THEIRS[:4], 0.9)
    with pytest.raises(NotAttempted):
        comparison.difference(MINE, THEIRS, ...)


# ---- the lesson


def test_the_quick_judge_looks_at_the_text_only():
    good, bad = "Horses eat grass and hay.", "the the the the the of of"
    assert quick_judge("What do horses eat?", good, bad) == "L"
    assert quick_judge("What do horses eat?", bad, good) == "R"
    assert quick_judge("What do horses eat?", good, good) == "="


def test_a_published_model_is_never_fetched_unasked(capsys):
    assert comparing.published(["Hello!"]) is None
    assert "Nothing needs it" in capsys.readouterr().out


def test_a_ballot_needs_a_pair_for_each_prompt():
    with pytest.raises(comparing.ConfigError, match="one pair a prompt"):
        Ballot(["a", "b"], [("1", "2", True)])
