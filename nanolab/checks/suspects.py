"""What the checks of challenge 8 know of a case: its fault, its evidence, what clears other suspects."""

from __future__ import annotations

import re

from nanolab.checks.core import Wrong, shown

FAULTS = {"A": "targets", "B": "too fast", "C": "leak", "D": "mask", "E": "division", "F": "reward"}

WORDS = {
    "targets": r"target|shift|label|off by one|\bcop(y|ies)",
    "mask": r"mask|prompt|questions|\buser",
    "too fast": r"too (fast|high|large|big)\b|times (too|100)|hundred|[x×] ?100|warm.?up",
    "too slow": r"too (slow|low)\b|rate.* too small",
    "leak": r"leak|validation|held.?out|\bsplit|overlap|contamina",
    "division": r"divi|zero|variance|deviation|spread|epsilon|0 ?/ ?0|\bstd\b",
    "reward": r"reward|hack|\bpaid|\bpays",
    "small": r"small model|model.* small|^small$|capacity",
}
"""How a suspect may be called, besides by its short name."""

RATE = (
    "A rate far too high throws the loss up and about; one far too low leaves it where it was. Look at the "
    "curve: "
)
"""The first suspect of everybody; how to clear it of suspicion."""

CLEARED: dict[str, dict[str, str]] = {
    "A": {
        "too fast": RATE + "it falls smoothly, and far too low.",
        "too slow": RATE + "it falls fast, and far too low.",
        "small": "A model too small has a loss that stays high. This one is too good to be true.",
        "leak": "Nothing is validated here. And what has leaked could be written down: ask it for a "
        "sentence.",
        "mask": "Whatever counts in the loss, it would be predicted. Ask the model to go on with a text: "
        "what does "
        "it say, and where has it got that from?",
    },
    "B": {
        "too slow": "With a low rate the loss falls slowly, but it falls. This one leaps above where it "
        "began.",
        "targets": "Wrong targets can be learned as well, and their loss would fall. This one does not.",
        "small": "The same model does well in case C. And a small model has no reason to leap up.",
        "division": "Zero divided by zero is nan, and the training would end there. These losses are "
        "numbers.",
    },
    "C": {
        "too fast": RATE + "both losses fall smoothly.",
        "too slow": RATE + "both losses fall, and far.",
        "small": "It is large enough to know its texts by heart.",
        "targets": "With wrong targets it could not write. Ask it: it writes its texts word for word.",
        "mask": "This is plain text: nobody asks, nobody answers, and every token counts.",
    },
    "D": {
        "too fast": RATE + "it falls as it should.",
        "too slow": RATE + "it falls as it should.",
        "targets": "With wrong targets it could not answer at all. What it predicts is right, but is it its "
        "job?",
        "leak": "The validation is honest here: new conversations, and only the answers count in it.",
        "small": "It answers as well as other models of its size. Look at what else it has learned.",
    },
    "E": {
        "too fast": "A rate too high spoils a model little by little. Here a good model was lost in a single "
        "step. "
        "What was special about its rewards?",
        "reward": "The reward is honest: 1 for the right number, 0 otherwise. All rewards of the last step "
        "are equal: what is done with them?",
        "small": "It solved problems until that step. What was special about its rewards?",
    },
    "F": {
        "too fast": "The model learned just what it was paid for. Compare its habits before and after.",
        "too slow": "It learned a lot: the mean reward rises. Compare its habits before and after.",
        "division": "Then the loss would be nan. Here all numbers are finite, and one of them rises.",
        "leak": "There is no split here. Which number went up, and which one did not?",
        "small": "It learned what it was paid for. Is that what you want it to learn?",
    },
}
"""By case: what speaks against each wrong suspicion."""

EVIDENCE = {
    "A": "it says again what it has just read",
    "B": "the loss leaps above ln(V) while the rate climbs",
    "C": "text that it has really never seen costs it far more than its validation text",
    "D": "it was trained on the user's words as hard as on its own",
    "E": "it was lost at a group whose rewards are all equal: its spread is 0, and so is its distance from "
    "the mean",
    "F": "the reward rises, and the right answers do not",
}


def suspects_in(answer: object) -> list[str]:
    """The short names of the suspects that a text speaks of."""
    if not isinstance(answer, str):
        raise Wrong(
            f"a suspect is named by a text, and this is {shown(answer)}.", cause='Write "targets", say.'
        )
    text = re.sub(r"[\s_-]+", " ", answer.strip().lower())
    return [text] if text in WORDS else [name for name, words in WORDS.items() if re.search(words, text)]
