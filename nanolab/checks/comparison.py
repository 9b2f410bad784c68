"""Checks of challenge 7, the comparison: how many prompts, a blind vote and its meaning, a rubric."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nanolab.checks.core import Misconception, Wrong, call, check, check_function, diagnose_value, shown
from nanolab.checks.signs import LEVEL, at_least, needed, p_value_of, sign_test
from nanolab.lessons.comparing import LEFT, PROMPTS, RIGHT, TIE, Ballot

__all__ = ["difference", "hide", "prompts", "rubric", "sign_test", "tally", "verdict", "votes"]

CONCLUSIONS = ("mine", "theirs", "not shown")


# ---- the prompts


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@check
def prompts(prompts: object) -> str:
    """At least 12 different prompts, 4 of them the learner's own."""
    if isinstance(prompts, str):
        raise Wrong("the prompts are one text; a list of texts is expected.", got=shown(prompts, 80))
    if not isinstance(prompts, (list, tuple)):
        raise Wrong("the prompts should be a list of texts.", got=shown(prompts, 80))
    for number, prompt in enumerate(prompts, 1):
        if not isinstance(prompt, str):
            cause = "A list within the list? Join lists with +." if isinstance(prompt, (list, tuple)) else ""
            raise Wrong(f"prompt {number} should be a text.", got=shown(prompt, 80), cause=cause)
        if not _plain(prompt):
            raise Wrong(f"prompt {number} is empty.")
    different = {_plain(prompt) for prompt in prompts}
    if len(different) < len(prompts):
        raise Wrong(
            f"{len(prompts)} prompts, but only {len(different)} different ones.",
            cause="The same prompt again is no new evidence, in whatever spelling: it looks like more "
            "votes than "
            "there are.",
        )
    if len(prompts) < 12:
        n = len(prompts)
        least = f"even {n} of {n} has p = {p_value_of(n, 0):.2g}" if p_value_of(n, 0) >= LEVEL else \
            f"it would take {needed(n)} of {n} votes"  # fmt: skip
        raise Wrong(
            f"{n} prompts are too few.", got=n, expected="12 or more",
            cause=f"With {n} votes {least}, and each tie takes one vote away.",
        )  # fmt: skip
    own = different - {_plain(prompt) for prompt in PROMPTS}
    if len(own) < 4:
        raise Wrong(f"{len(own)} of the prompts are your own.", expected="4 or more",
                    cause="A model should also be asked what nobody of us thought of.")  # fmt: skip
    return f"With {len(prompts)} votes, {needed(len(prompts))} of them are more than luck."


# ---- hiding who is who


@check
def hide(answer: object) -> str:
    """The learner's `hide(mine, theirs, rng)`: per prompt (left, right, mine_is_left), by a fair coin."""
    placed: list[tuple[bool, ...]] = []
    for seed in range(1, 9):
        count = 40 + seed
        mine = [f"answer {i}{' and more' * (i % 3)} of one" for i in range(count)]
        theirs = [f"answer {i}{' and more' * (i % 3 + ((i + seed) % 4 > 0))} of two" for i in range(count)]
        kept = (list(mine), list(theirs))
        pairs = call(answer, mine, theirs, random.Random(seed))
        if (mine, theirs) != kept:
            raise Wrong(
                "`hide` changed the lists that it was given.",
                cause="`shuffle`, `pop` and the like work in place: use copies.",
            )
        placed.append(_placed(pairs, mine, theirs))
        again = call(answer, mine, theirs, random.Random(seed))
        if _placed(again, mine, theirs) != placed[-1]:
            raise Wrong(
                "`hide` draws other sides when it is called again with the same seed.",
                cause="Toss with the `rng` that comes in, `rng.random()`: other coins can't be tossed again, "
                "so nobody could check the ballot.",
            )
    _fair(placed)
    return "Each prompt has a coin of its own: whoever always prefers the left prefers nobody."


def _placed(pairs: object, mine: Sequence[str], theirs: Sequence[str]) -> tuple[bool, ...]:
    """Where each of mine is: True for left. Raises `Wrong` where the pairs are not what they say."""
    if not isinstance(pairs, (list, tuple)) or len(pairs) != len(mine):
        size = f"{len(pairs)} entries" if isinstance(pairs, (list, tuple)) else shown(pairs, 80)
        raise Wrong("`hide` should return a list with an entry for each prompt.", got=size,
                    expected=f"{len(mine)} entries")  # fmt: skip
    lefts, said = [], []
    for number, (entry, a, b) in enumerate(zip(pairs, mine, theirs, strict=True)):
        if not isinstance(entry, (list, tuple)) or len(entry) != 3:
            raise Wrong(f"entry {number} should be (left, right, mine_is_left).", got=shown(entry, 120))
        left, right, flag = entry
        if {left, right} != {a, b} or left == right:
            mixed = {left, right} <= {*mine, *theirs}
            raise Wrong(
                f"entry {number} does not hold the two replies to prompt {number}.", got=shown(entry, 160),
                cause="The replies to different prompts were mixed: each pair must answer the same prompt."
                if mixed else "",
            )  # fmt: skip
        if isinstance(flag, str):
            raise Wrong(f"the third part of entry {number} should be True or False, and is a text.",
                        got=shown(flag), cause="It says whether mine is left.")  # fmt: skip
        lefts.append(left == a)
        said.append(bool(flag))
    if lefts != said:
        wrong = sum(x != y for x, y in zip(lefts, said, strict=True))
        raise Wrong(
            f"the third part is wrong in {wrong} of {len(said)} entries.",
            cause="Exchanged: it says whether *mine* is left." if wrong == len(said)
            else "It must tell of each pair where mine is: the coin of this very pair.",
        )  # fmt: skip
    return tuple(lefts)


def _fair(placed: Sequence[tuple[bool, ...]]) -> None:
    shortest = min(map(len, placed))
    if all(len(set(sides)) == 1 for sides in placed):
        if len({sides[0] for sides in placed}) > 1:
            raise Wrong("all replies of one model are on the same side.",
                        cause="One coin for all prompts: after the first good reply you know who is "
                        "who.")  # fmt: skip
        raise Wrong(
            "mine is always on the same side.", cause="That is not blind: toss a coin with `rng.random()`."
        )
    if len({sides[:shortest] for sides in placed}) == 1:
        first = placed[0]
        alternates = all(a != b for a, b in pairwise(first))
        raise Wrong(
            "the sides are the same for every `rng`.",
            cause="Left, right, left, right: whoever notices is no longer blind." if alternates
            else "A seed fixed in the function makes the same draw each time: use the `rng` that comes in.",
        )  # fmt: skip
    share = sum(map(sum, placed)) / sum(map(len, placed))
    if not 0.35 < share < 0.65:
        raise Wrong(f"mine is on the left in {share:.0%} of the pairs.", expected="about half of them",
                    cause="`rng.random() < 0.5` is a fair coin.")  # fmt: skip


# ---- the vote


@check
def votes(ballot: Ballot, my_votes: object) -> str:
    """The votes: one a prompt, cast before the ballot was revealed, and not changed since."""
    given = _letters(my_votes)
    if ballot.votes is None:
        raise Wrong("these votes were not cast.", cause="Hand them in: `ballot.cast(my_votes)`.")
    if len(given) != len(ballot.prompts):
        raise Wrong("there should be one vote for each prompt.", got=len(given), expected=len(ballot.prompts))
    if ballot.revealed and ballot.votes_when_revealed is None:
        raise Wrong(
            "the votes came after the reveal.",
            cause="Who knows the names sees quality where the favourite is. Make a new ballot, with "
            "another seed for "
            "the replies and for `hide`, and vote again.",
        )
    if ballot.revealed and ballot.votes_when_revealed != ballot.votes:
        raise Wrong("the votes were changed after the reveal.", got=ballot.votes,
                    expected=ballot.votes_when_revealed,
                    cause="Only those from before count. Cast them again, or make a new ballot.")  # fmt: skip
    if given != ballot.votes:
        raise Wrong("these are other votes than those that were cast.", got=given, expected=ballot.votes,
                    cause="Cast again after a change, before the reveal.")  # fmt: skip
    if set(given) == {TIE}:
        raise Wrong(
            "no vote prefers anything.",
            cause="Ties say nothing about who is better. Look for small differences.",
        )
    if len(set(given) - {TIE}) == 1 and len(given.replace(TIE, "")) >= 6:
        side = "left" if LEFT in given else "right"
        raise Wrong(
            f"every vote is for the {side}.",
            cause="The sides were drawn by coin, so that would be a strange accident. Was it typed in "
            "without reading?",
        )
    return f"{len(given)} votes, {given.count(TIE)} of them ties, and nobody knew who was who."


def _letters(answer: object) -> str:
    """The votes as letters. Raises `Wrong` for any other form."""
    if isinstance(answer, (list, tuple)) and all(isinstance(vote, str) for vote in answer):
        answer = "".join(answer)
    if not isinstance(answer, str):
        raise Wrong("the votes should be a text, such as LR=RL.", got=shown(answer, 80))
    found = "".join(answer.split()).upper()
    if strange := sorted(set(found) - {LEFT, RIGHT, TIE}):
        raise Wrong(f"a vote is {LEFT}, {RIGHT} or {TIE}.", got=f"{strange[0]!r} among the votes",
                    cause="Votes are for a side: the names are not known yet.")  # fmt: skip
    return found


def tally(ballot: Ballot) -> tuple[int, int, int]:
    """(wins of mine, losses, ties) among the votes that stood when the ballot was revealed."""
    cast = ballot.votes_when_revealed if ballot.revealed else ballot.votes
    won = [{LEFT: left, RIGHT: not left}.get(vote)
           for vote, left in zip(cast or "", ballot._mine_is_left, strict=False)]  # fmt: skip
    return won.count(True), won.count(False), won.count(None)


@check
def verdict(ballot: Ballot, p: object, conclusion: object) -> str:
    """The p-value of the vote, and what it shows: "mine", "theirs" or "not shown"."""
    if ballot.votes is None or (ballot.revealed and ballot.votes_when_revealed is None):
        raise Wrong("nothing was cast before the reveal, so there is nothing to count.",
                    cause="Make a new ballot and vote first.")  # fmt: skip
    wins, losses, ties = tally(ballot)
    right = p_value_of(wins, losses)
    lefts, rights = (ballot.votes or "").count(LEFT), (ballot.votes or "").count(RIGHT)
    diagnose_value(
        p, right,
        {
            "Ties counted as losses: who prefers neither has not voted against you. Leave them out.":
                p_value_of(wins, losses + ties),
            "Ties counted as wins. Leave them out.": p_value_of(wins + ties, losses),
            "One direction only: either model could have won, so count both tails.":
                at_least(max(wins, losses), min(wins, losses)),
            "That counts votes for left and right, not for mine and theirs: use the rows of `reveal()`.":
                p_value_of(lefts, rights),
            "That is in per cent: a probability goes from 0 to 1.": 100 * right,
            "That is the share of wins, not a p-value.": wins / max(1, wins + losses),
        },
        tolerance=1e-3, what=f"the p-value of {wins} wins and {losses} losses",
    )  # fmt: skip
    _concluded(conclusion, wins, losses, right)
    if right >= LEVEL:
        return (f"{wins} to {losses} is what two equal models may well give (p = {right:.2g}). "
                "Not shown to differ is not shown to be equal.")  # fmt: skip
    return f"{wins} to {losses}: equal models would do that in {right:.1%} of such votes."


def _concluded(conclusion: object, wins: int, losses: int, p: float) -> None:
    said = str(conclusion).strip().lower() if isinstance(conclusion, str) else ""
    if said not in CONCLUSIONS:
        equal = "equal" in said or "same" in said
        raise Wrong(
            "the conclusion should be one of " + ", ".join(f'"{one}"' for one in CONCLUSIONS) + ".",
            got=shown(conclusion, 60),
            cause="That they are equal can't be shown by so few votes: a small difference would not be "
            "seen." if equal else "",
        )  # fmt: skip
    ahead = "mine" if wins > losses else "theirs"
    count = f"{max(wins, losses)} of {wins + losses} for {ahead}" if wins != losses else f"{wins} each"
    if said == "not shown" and p < LEVEL:
        raise Wrong(f'"not shown", though p = {p:.2g} is below {LEVEL}.', got=count,
                    cause="Luck alone hardly does that: this vote shows a difference.")  # fmt: skip
    if said != "not shown" and p >= LEVEL:
        raise Wrong(
            f'"{said}" is not shown: p = {p:.2g}.', got=count,
            cause=f"A lead is no proof: equal models give one as clear as this in {p:.0%} of such votes.",
        )  # fmt: skip
    if said != "not shown" and said != ahead:
        raise Wrong(f'"{said}", though {ahead} was preferred.', got=count,
                    cause="A small p says that there is a difference; the counts say in whose "
                    "favour.")  # fmt: skip


# ---- marks


@dataclass
class Marked:
    """A reply of no model, with its marks; a message shows it as it stands here."""

    ended: bool
    form: bool
    content: bool


_CASES = [(True, True, True), (True, True, False), (True, False, True), (False, False, True),
          (True, False, False), (False, False, False)]  # fmt: skip


def _marks(marked: Any) -> tuple[bool, bool, bool]:
    return bool(marked.ended), bool(marked.form), bool(marked.content)


def _points(ended: bool, form: bool, content: bool) -> int:
    return 2 if form and content else int(form)


@check
def rubric(answer: object) -> str:
    """The learner's `rubric(marked)`: 2 for an answer that follows, 1 for a plausible one, else 0."""
    wrong: dict[str, Any] = {
        "The right words alone are not enough: the instruction also says in which form to answer, and to "
        "stop.":
            lambda e, f, c: 2 if c else int(f),
        "Without the right form there is no point: ask for `form` first.":
            lambda e, f, c: 2 if c else 1,
        "Good form is not following: a fluent wrong answer is just what plausible text is.":
            lambda e, f, c: 2 if f else 0,
        "2 and 1 are exchanged: the right answer is worth more.":
            lambda e, f, c: 1 if f and c else 2 if f else 0,
        "To end properly does not make a reply plausible: it takes the form of an answer (`form`).":
            lambda e, f, c: 2 if f and c else int(e),
        "A right word in a reply without form earns nothing: nothing there looks like an answer.":
            lambda e, f, c: 2 if f and c else int(f or c),
        "That adds up all three marks. There are three steps, and `content` counts only in the right form.":
            lambda e, f, c: int(e) + int(f) + int(c),
        "No point for a plausible reply? Then the rubric can't tell a near miss from noise.":
            lambda e, f, c: 2 * int(f and c),
    }  # fmt: skip
    check_function(
        answer,
        lambda marked: _points(*_marks(marked)),
        [(Marked(*case),) for case in _CASES],
        [Misconception(text, lambda marked, f=f: f(*_marks(marked))) for text, f in wrong.items()],
        what="`rubric`",
    )
    return "Plausible text has the form of an answer, and is none."


@check
def difference(mine: Sequence[Any], theirs: Sequence[Any], ahead: object) -> str:
    """Mean points of mine minus theirs on the same questions."""
    ours, others = (
        [_points(one.ended, one.form, one.content) for one in marked] for marked in (mine, theirs)
    )
    if len(ours) != len(others):
        raise Wrong("the two sat different exams.", got=f"{len(ours)} and {len(others)} questions")
    gap = (sum(ours) - sum(others)) / len(ours)
    won = [a > b for a, b in zip(ours, others, strict=True) if a != b]
    diagnose_value(
        ahead, gap,
        {
            "Theirs minus mine: the sign is turned around.": -gap,
            "That is the difference of the sums: divide by the number of "
            "questions.": float(sum(ours) - sum(others)),
            "Points go from 0 to 2; that is divided by 2 once more.": gap / 2,
            "Only right answers are compared: use the points of `rubric`.":
                sum(a.content - b.content for a, b in zip(mine, theirs, strict=True)) / len(ours),
            "That is how many questions mine won minus how many it lost.": float(2 * sum(won) - len(won)),
            "That is the mean of mine alone.": sum(ours) / len(ours),
        },
        tolerance=1e-3, what="the difference of the mean points", unit="points",
    )  # fmt: skip
    p = p_value_of(sum(won), len(won) - sum(won))
    return (
        f"On single questions mine was ahead {sum(won)} times and behind {len(won) - sum(won)} times: p "
        f"= {p:.2g}."
    )
