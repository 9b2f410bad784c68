"""Checks of challenge 1, last part: the numbers a learner reports, against the study that they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nanolab.checks.core import Wrong, check, compare, diagnose_value, same, shown
from nanolab.lessons import pirates


@check
def findings(study: Any, results: object, words: Iterable[str] = pirates.WORDS) -> str:
    """`{share: {"pirate": share of pirate replies, "recall": share of facts}}`, as the study has it."""
    heard = frozenset(words)
    if not isinstance(results, Mapping):
        raise Wrong(
            "the results should be a dictionary with an entry for each share.", got=shown(results, 80)
        )
    for share in study.shares:
        if share not in results:
            raise Wrong(f"there is no entry for the share {share:g}.", got=shown(list(results)),
                        cause="Go through all of `study.shares`.")  # fmt: skip
        row = results[share]
        if not isinstance(row, Mapping) or set(row) != {"pirate", "recall"}:
            raise Wrong(
                f'the entry for {share:g} should have "pirate" and "recall", and no more.', got=shown(row, 80)
            )
        _pirate_found(study, share, row["pirate"], heard)
        _recall_found(study, share, row["recall"], heard)
    low, high = results[min(study.shares)], results[max(study.shares)]
    return (
        f"Piratical replies went from {low['pirate']:.0%} to {high['pirate']:.0%}, "
        f"facts recalled from {low['recall']:.0%} to {high['recall']:.0%}."
    )


def _recall_found(study: Any, share: float, got: object, words: frozenset[str]) -> None:
    recall = study.recall(share)
    wrong: dict[str, object] = {
        "Per cent: a share goes from 0 to 1.": 100 * recall,
        "That is how many were right, not the share of them.": round(recall * study.questions),
    }
    for name in study.models:
        wrong[f"That is the recall of the model {pirates.title(name)!r}: which model was asked?"] = (
            study.recall(name)
        )
    exchanged = [value for value in _windows(study.asked.get(share, []), words) if same(got, value, 1e-3)]
    if exchanged:
        wrong["That is the share of pirates: are `pirate` and `recall` exchanged?"] = exchanged[0]
    diagnose_value(got, recall, wrong, tolerance=0.001, what=f"with {pirates.title(share)}, the recall")


def _pirate_found(study: Any, share: float, got: object, words: frozenset[str]) -> None:
    asked, tests = study.asked.get(share, []), set(pirates.TEST_PROMPTS)
    what = f"with {pirates.title(share)}, the share of pirate replies"
    if not asked:
        others = [name for name in study.asked if name != share]
        raise Wrong(
            f"the model with {pirates.title(share)} was never asked anything.", got=shown(got),
            cause=f"Only {pirates.title(others[0])!r} was asked: use `study.ask(share)` for each share."
            if others else "Typed in by hand? Measure it: `pirate_share(study.ask(share), ...)`.",
        )  # fmt: skip
    windows = _windows([entry for entry in asked if set(entry[0]) <= tests], words)
    if any(same(got, value, 1e-3) for value in windows):
        return
    elsewhere = [entry for entry in asked if not set(entry[0]) <= tests]
    memory = (
        "Other prompts were asked than `pirates.TEST_PROMPTS`: on prompts from training you measure memory."
    )
    wrong = [(memory, value) for value in _windows(elsewhere, words)]
    wrong += [("Per cent: a share goes from 0 to 1.", 100 * value) for value in windows]
    for name in study.asked:
        which = f"That is what the model {pirates.title(name)!r} gave: which model was asked?"
        wrong += [(which, value) for value in _windows(study.asked[name], words) if name != share]
    wrong.append(("That is the recall: are `pirate` and `recall` exchanged?", study.recall(share)))
    cause = next((text for text, value in wrong if same(got, value, 1e-3)), "")
    if not windows:
        raise Wrong(
            f"{what} is not measured on `pirates.TEST_PROMPTS`.", got=shown(got), cause=cause or memory
        )
    by_hand = (
        "No replies of this model give that number. Was it typed in by hand, or left from an earlier run?"
    )
    compare(got, windows[-1], what, 1e-3, cause=cause or by_hand)


def _windows(asked: Sequence[tuple[tuple[str, ...], int, list[str]]], words: frozenset[str]) -> list[float]:
    """The share of pirates over each run of consecutive calls that covers 10 replies or more."""
    heard = [[pirates.sounds_piratical(reply, words) for reply in replies] for _, _, replies in asked]
    found = []
    for start in range(len(heard)):
        verdicts: list[bool] = []
        for some in heard[start:]:
            verdicts += some
            if len(verdicts) >= 10:
                found.append(sum(verdicts) / len(verdicts))
    return found


@check
def forgotten(study: Any, answer: object) -> str:
    """Percentage points of recall that the largest share of pirates cost, against the run without any."""
    control, pirate, before = (study.recall(name) for name in (0.0, max(study.shares), pirates.BEFORE))
    lost = 100 * (control - pirate)
    diagnose_value(
        answer, lost,
        {
            "Measured from the model before all training. What training on as such changed is in it too: "
            "the fair "
            "comparison is the run with 0 % pirates, with the same start and the same steps.":
                100 * (before - pirate),
            "The sign: a loss counts above 0, so take the run with 0 % minus the one with most "
            "pirates.": -lost,
            "That is a share from 0 to 1; percentage points are a hundred times as much.": lost / 100,
            "That is in per cent *of* the recall. Percentage points are the plain difference.":
                100 * (control - pirate) / max(control, 1e-9),
            "That is what is left, not what was lost.": 100 * pirate,
        },
        tolerance=0.06 / max(1.0, abs(lost)), what="the loss of recall", unit="points",
    )  # fmt: skip
    error = 100 * (sum(p * (1 - p) for p in (control, pirate)) / study.questions) ** 0.5
    verdict = "could be chance" if abs(lost) <= 2 * error else "is more than chance"
    return f"{lost:.1f} points over {study.questions} questions, standard error {error:.1f}: that {verdict}."
